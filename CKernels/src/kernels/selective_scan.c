/* selective_scan.c: the scan of Mamba, channels in lanes.
 *
 * A strip of channels goes through the sequence in chunks of tokens. In each, a block of
 * V_WIDTH channels makes its steps, runs the recurrence over the chunk, a tile of its states at a time in registers, with B
 * and C as broadcasts, and writes its outputs. No sum crosses lanes. */
#include "scan_scratch.h"
#include "selective.h"
#include "variants.h"

/* ---- States in lane order ------------------------------------------------------------------------------ */

/* lanes [N][V_WIDTH] of rows [count][N], as rates of decay where asked; lanes from count on are 0. */
V_INLINE void lanes_of_rows(const float *rows, int count, int64_t n, const int rates, float *lanes)
{
    for (int64_t i = 0; i < n; i += V_WIDTH) {
        int columns = lanes_of(n - i);
        v_f32 square[V_WIDTH];
        for (int l = 0; l < V_WIDTH; l++) square[l] = l < count ? v_load_n(rows + l * n + i, columns) : v_zero();
        v_transpose(square);
        for (int k = 0; k < columns; k++) {
            v_store(lanes + (i + k) * V_WIDTH, rates ? decay_rate(square[k]) : square[k]);
        }
    }
}

V_INLINE void rows_of_lanes(const float *lanes, int count, int64_t n, float *rows)
{
    for (int64_t i = 0; i < n; i += V_WIDTH) {
        int columns = lanes_of(n - i);
        v_f32 square[V_WIDTH];
        for (int k = 0; k < V_WIDTH; k++) square[k] = k < columns ? v_load(lanes + (i + k) * V_WIDTH) : v_zero();
        v_transpose(square);
        for (int l = 0; l < count; l++) v_store_n(rows + l * n + i, square[l], columns);
    }
}

/* ---- The recurrence -------------------------------------------------------------------------------------- */

/* Rows of a matrix that a block will need next, of which it asks for a line a token: rows may be whole pages apart, where
 * no hardware prefetcher follows. */
typedef struct scan_ahead {
    const char *line;
    int64_t row_bytes;
} scan_ahead;

/* What a block needs of a chunk. */
typedef struct scan_block {
    const float *decays;
    float *states;
    const float *steps;
    const float *pushes;
    float *sums;
    const float *b;
    const float *c;
    int64_t row; /* of b and c */
    int64_t state_size;
    int64_t tokens;
    int64_t ahead_tokens;
    int aheads;
    scan_ahead ahead[4];
} scan_block;

/* States n .. n+size-1 over the tokens of a chunk. A lane whose step is 0 keeps its state whatever B is. */
V_INLINE void scan_tile(const scan_block *k, int64_t n, const int size)
{
    const float *decays = k->decays + n * V_WIDTH, *b = k->b + n, *c = k->c + n;
    float *states = k->states + n * V_WIDTH;
    v_f32 h[LSPAN_SCAN_TILE];
#pragma GCC unroll 16
    for (int i = 0; i < size; i++) h[i] = v_load(states + i * V_WIDTH);
    for (int64_t t = 0; t < k->tokens; t++, b += k->row, c += k->row) {
        v_f32 dt = v_load(k->steps + t * V_WIDTH), push = v_load(k->pushes + t * V_WIDTH);
        v_f32 y[2] = {n == 0 ? v_zero() : v_load(k->sums + t * V_WIDTH), v_zero()};
        for (int i = 0; n == 0 && i < k->aheads && t < k->ahead_tokens; i++) {
            v_prefetch_l2(k->ahead[i].line + t * k->ahead[i].row_bytes);
        }
        v_mask skipped = v_eq(dt, v_zero());
        if (__builtin_expect(v_bits(skipped) == (UINT32_C(1) << V_WIDTH) - 1, 0)) {
            const float *same = c;
            V_FORGET(same);
#pragma GCC unroll 16
            for (int i = 0; i < size; i++) y[i % 2] = v_fma(h[i], v_set1(same[i]), y[i % 2]);
        } else {
#pragma GCC unroll 16
            for (int i = 0; i < size; i++) {
                v_f32 decay = v_exp2_decay(v_mul(dt, v_load(decays + i * V_WIDTH)));
                h[i] = v_fma_unless(skipped, h[i], decay, v_mul(push, v_set1(b[i])));
                y[i % 2] = v_fma(h[i], v_set1(c[i]), y[i % 2]);
            }
        }
        v_store(k->sums + t * V_WIDTH, v_add(y[0], y[1]));
    }
#pragma GCC unroll 16
    for (int i = 0; i < size; i++) v_store(states + i * V_WIDTH, h[i]);
}

/* Functions of their own, so that each tile is compiled once. */
static __attribute__((noinline)) void scan_full_tiles(const scan_block *k, int64_t n)
{
    for (int64_t i = 0; i < n; i += LSPAN_SCAN_TILE) scan_tile(k, i, LSPAN_SCAN_TILE);
}
static __attribute__((noinline)) void scan_quarter_tile(const scan_block *k, int64_t n)
{
    scan_tile(k, n, LSPAN_SCAN_TILE / 4);
}
static __attribute__((noinline)) void scan_single(const scan_block *k, int64_t n)
{
    scan_tile(k, n, 1);
}

V_INLINE void scan_states(const scan_block *k)
{
    int64_t n = k->state_size / LSPAN_SCAN_TILE * LSPAN_SCAN_TILE;
    scan_full_tiles(k, n);
    for (; n + LSPAN_SCAN_TILE / 4 <= k->state_size; n += LSPAN_SCAN_TILE / 4) scan_quarter_tile(k, n);
    for (; n < k->state_size; n++) scan_single(k, n);
}

/* ---- Strips -------------------------------------------------------------------------------------------- */

/* Steps and pushes of tokens first .. first+tokens-1 for V_WIDTH channels, and how many of those steps are not 0. The push
 * of a skipped token is 0 whatever its input is. */
V_INLINE v_f32 make_steps(
    const lspan_selective_scan *s, const v_dt_rule *rule, int64_t channel, int lanes, int64_t first, int64_t tokens,
    float *steps, float *pushes)
{
    v_f32 kept = v_zero();
    for (int64_t t = 0; t < tokens; t++) {
        v_f32 u = load_row(s->input, first + t, channel, lanes);
        v_f32 dt = v_dt_step(rule, load_row(s->dt, first + t, channel, lanes));
        v_mask skipped = v_eq(dt, v_zero());
        v_store(steps + t * V_WIDTH, decay_step(dt));
        v_store(pushes + t * V_WIDTH, v_select(skipped, v_zero(), v_mul(dt, u)));
        kept = v_add(kept, v_select(skipped, v_zero(), v_set1(1.0f)));
    }
    return kept;
}

static scan_ahead ahead_of(lspan_matrix m, int64_t row, int64_t channel)
{
    int64_t size = (int64_t)lspan_dtype_size(m.dtype);
    return (scan_ahead){(const char *)m.data + (row * m.row_stride + channel) * size, m.row_stride * size};
}

static void add_kept(int64_t *kept, v_f32 counts, int lanes)
{
    float count[V_WIDTH];
    v_store(count, counts);
    for (int l = 0; l < lanes; l++) kept[l] += (int64_t)count[l];
}

void LSPAN_VARIANT(selective_scan)(const lspan_selective_scan *s, lspan_scan_task task, float *memory)
{
    int64_t n = s->state_size, begin = s->indptr[task.sequence], end = s->indptr[task.sequence + 1];
    int64_t group = task.channel / (s->channels / s->groups), state = task.sequence * s->state_stride;
    lspan_scan_scratch scratch = lspan_cut_scan_scratch(memory, task.count, n);
    int64_t *kept = s->kept ? s->kept + task.sequence * s->channels : NULL;
    lspan_matrix output = {s->output.data, s->output.dtype, s->output.row_stride};

    for (int64_t i = 0; i < task.count; i += V_WIDTH) {
        int64_t channel = task.channel + i;
        int lanes = lanes_of(task.count - i);
        const float *initial = s->initial_state ? s->initial_state + state + channel * n : NULL;
        lanes_of_rows(s->a + channel * n, lanes, n, 1, scratch.decays + i * n);
        lanes_of_rows(initial, initial ? lanes : 0, n, 0, scratch.states + i * n);
        for (int l = 0; kept && l < lanes; l++) kept[channel + l] = 0;
    }
    for (int64_t first = begin; first < end; first += LSPAN_SCAN_TOKENS) {
        int64_t tokens = lspan_min64(LSPAN_SCAN_TOKENS, end - first), next = first + tokens;
        for (int64_t t = 0; t < tokens; t++) {
            load_states(s->b, first + t, group, n, scratch.b + t * scratch.row);
            load_states(s->c, first + t, group, n, scratch.c + t * scratch.row);
        }
        for (int64_t i = 0; i < task.count; i += V_WIDTH) {
            int64_t channel = task.channel + i;
            int lanes = lanes_of(task.count - i);
            v_dt_rule rule = v_dt_rule_at(&s->rule, task.sequence, channel, lanes);
            scan_block block = {
                scratch.decays + i * n, scratch.states + i * n, scratch.steps, scratch.pushes, scratch.sums,
                scratch.b, scratch.c, scratch.row, n, tokens, lspan_min64(tokens, end - next), 3, {{NULL, 0}}};
            if (block.ahead_tokens > 0) {
                block.ahead[0] = ahead_of(s->input, next, channel);
                block.ahead[1] = ahead_of(s->dt, next, channel);
                block.ahead[2] = ahead_of(output, next, channel);
                if (s->gate.data) block.ahead[block.aheads++] = ahead_of(s->gate, next, channel);
            }
            v_f32 counts = make_steps(s, &rule, channel, lanes, first, tokens, scratch.steps, scratch.pushes);
            if (kept) add_kept(kept + channel, counts, lanes);
            scan_states(&block);
            v_f32 d = s->d ? v_load_n(s->d + channel, lanes) : v_zero();
            for (int64_t t = 0; t < tokens; t++) {
                write_output(s, first + t, channel, lanes, d, v_load(scratch.sums + t * V_WIDTH));
            }
        }
    }
    for (int64_t i = 0; s->final_state && i < task.count; i += V_WIDTH) {
        float *final = s->final_state + state + (task.channel + i) * n;
        rows_of_lanes(scratch.states + i * n, lanes_of(task.count - i), n, final);
    }
}
