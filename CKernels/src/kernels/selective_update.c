/* selective_update.c: a few tokens of the selective scan, states in lanes, so that A and the states are read and written
 * once in the order they lie in. */
#include "selective.h"
#include "../integers.h"
#include "variants.h"

#define CHANNELS LSPAN_UPDATE_CHANNELS
#define TOKENS LSPAN_SSM_MAX_UPDATE_TOKENS

/* B and C of the tokens for one group, zeros above N up to a whole vector. */
typedef struct update_group {
    float b[TOKENS][LSPAN_SSM_MAX_STATE];
    float c[TOKENS][LSPAN_SSM_MAX_STATE];
} update_group;

/* The tokens of up to 16 channels of one group. */
typedef struct update_block {
    int64_t count;
    int64_t tokens;
    const float *a;
    const float *initial; /* or NULL for zeros */
    float *final;
    float steps[TOKENS][CHANNELS];
    float pushes[TOKENS][CHANNELS];
    float sums[TOKENS][CHANNELS];
} update_block;

static void load_group(const lspan_selective_scan *s, int64_t row, int64_t tokens, int64_t group, update_group *out)
{
    for (int64_t t = 0; t < tokens; t++) {
        load_states(s->b, row + t, group, s->state_size, out->b[t]);
        load_states(s->c, row + t, group, s->state_size, out->c[t]);
    }
}

static void make_steps(
    const lspan_selective_scan *s, int64_t sequence, int64_t row, int64_t channel, update_block *block)
{
    for (int64_t i = 0; i < block->count; i += V_WIDTH) {
        int lanes = lanes_of(block->count - i);
        v_dt_rule rule = v_dt_rule_at(&s->rule, sequence, channel + i, lanes);
        int64_t kept[V_WIDTH] = {0};
        for (int64_t t = 0; t < block->tokens; t++) {
            v_f32 u = load_row(s->input, row + t, channel + i, lanes);
            v_f32 dt = v_dt_step(&rule, load_row(s->dt, row + t, channel + i, lanes));
            v_mask skipped = v_eq(dt, v_zero());
            v_store(block->steps[t] + i, decay_step(dt));
            v_store(block->pushes[t] + i, v_select(skipped, v_zero(), v_mul(dt, u)));
            for (int l = 0; s->kept && l < lanes; l++) kept[l] += !(v_bits(skipped) >> l & 1u);
        }
        if (s->kept) memcpy(s->kept + sequence * s->channels + channel + i, kept, (size_t)lanes * sizeof *kept);
    }
}

V_INLINE void update_states(update_block *k, const update_group *g, int64_t n, const int64_t tokens)
{
    v_f32 products[TOKENS][4][4];
    for (int64_t t = 0; t < tokens; t++) {
        for (int l = 0; l < CHANNELS; l++) products[t][l / 4][l % 4] = v_zero();
    }
    for (int64_t l = 0; l < k->count; l++) {
        for (int64_t i = 0; i < n; i += V_WIDTH) {
            int lanes = lanes_of(n - i);
            int64_t at = l * n + i;
            v_f32 a = decay_rate(lanes == V_WIDTH ? v_load(k->a + at) : v_load_n(k->a + at, lanes));
            v_f32 h = k->initial ? v_load_n(k->initial + at, lanes) : v_zero();
            for (int64_t t = 0; t < tokens; t++) {
                v_f32 dt = v_set1(k->steps[t][l]), push = v_set1(k->pushes[t][l]);
                v_f32 decay = v_exp2_decay(v_mul(dt, a));
                h = v_fma_unless(v_eq(dt, v_zero()), h, decay, v_mul(push, v_load(g->b[t] + i)));
                products[t][l / 4][l % 4] = v_fma(h, v_load(g->c[t] + i), products[t][l / 4][l % 4]);
            }
            if (lanes == V_WIDTH) {
                v_store(k->final + at, h);
            } else {
                v_store_n(k->final + at, h, lanes);
            }
        }
    }
    for (int64_t t = 0; t < tokens; t++) v_reduce_add4x4(products[t], k->sums[t], 4);
}

/* One token of 16 channels whose states fill whole vectors: all that update_states does, with the sums of the channels in
 * registers. */
V_INLINE void update_token(update_block *k, const update_group *g, int64_t n)
{
    v_f32 products[4][4];
#pragma GCC unroll 16
    for (int l = 0; l < CHANNELS; l++) {
        v_f32 dt = v_set1(k->steps[0][l]), push = v_set1(k->pushes[0][l]), y = v_zero();
        v_mask skipped = v_eq(dt, v_zero());
        for (int64_t i = 0; i < n; i += V_WIDTH) {
            int64_t at = l * n + i;
            v_f32 decay = v_exp2_decay(v_mul(dt, decay_rate(v_load(k->a + at))));
            v_f32 h = v_fma_unless(skipped, v_load(k->initial + at), decay, v_mul(push, v_load(g->b[0] + i)));
            y = v_fma(h, v_load(g->c[0] + i), y);
            v_store(k->final + at, h);
        }
        products[l / 4][l % 4] = y;
    }
    v_reduce_add4x4(products, k->sums[0], 4);
}

void LSPAN_VARIANT(selective_update)(const lspan_selective_scan *s, int64_t sequence, int64_t first, int64_t end)
{
    int64_t row = s->indptr[sequence], tokens = s->indptr[sequence + 1] - row;
    int64_t n = s->state_size, size = s->channels / s->groups, loaded = -1, count;
    update_group group;
    for (int64_t e = first; e < end; e += count) {
        int64_t g = e / size, state = sequence * s->state_stride + e * n;
        count = lspan_min64(CHANNELS, lspan_min64(end, (g + 1) * size) - e);
        if (g != loaded) load_group(s, row, tokens, g, &group);
        loaded = g;
        update_block block;
        block.count = count;
        block.tokens = tokens;
        block.a = s->a + e * n;
        block.initial = s->initial_state ? s->initial_state + state : NULL;
        block.final = s->final_state + state;
        make_steps(s, sequence, row, e, &block);
        if (tokens == 1 && count == CHANNELS && n % V_WIDTH == 0 && block.initial) {
            update_token(&block, &group, n);
        } else if (tokens == 1) {
            update_states(&block, &group, n, 1);
        } else {
            update_states(&block, &group, n, tokens);
        }
        for (int64_t i = 0; i < count; i += V_WIDTH) {
            int lanes = lanes_of(count - i);
            v_f32 d = s->d ? v_load_n(s->d + e + i, lanes) : v_zero();
            for (int64_t t = 0; t < tokens; t++) write_output(s, row + t, e + i, lanes, d, v_load(block.sums[t] + i));
        }
    }
}
