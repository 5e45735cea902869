/* ssd_chunks.c: one task of the chunked SSD scan: some heads of a group over a sequence, a chunk of tokens at a time (Dao
 * and Gu 2024, section 6).
 *
 * With c_t the sum of dt * A over a chunk's tokens up to t, and S the state before the chunk, kept as [N][P]:
 *
 *     Y_t = exp(c_t) * C_t S + sum_{s <= t} (C_t . B_s) exp(c_t - c_s) dt_s x_s
 *     S   = exp(c_last) * S + sum_s B_s^T (exp(c_last - c_s) dt_s x_s)
 *
 * C B^T is made once a chunk for all heads. The rest is three register-tiled products a head; no exponent is above 0. Sums
 * of dt * A are kept in two floats: differences of sums that large steps have made large would otherwise be wrong. Tokens
 * with dt = 0 are left out of both sums over s: the others are gathered by a list, which names all tokens where none is 0.
 *
 * A token reaches none before it, even if it is infinite or NaN: sums end at the token itself, row by row.
 *
 * Where the CPU has bf16 dot products and x, B and C are all bf16 (and N is even), products take pairs of bf16 as their
 * elements (`pairs` below): along n in C S and C B^T, along tokens in the others. */
#include "ssd_input.h"
#include "ssd_operands.h"

/* ---- Outputs ----------------------------------------------------------------------------------------- */

/* Sums of a tile of tokens, from column `column` of the head on, on their way out. */
V_INLINE void store_outputs(
    const chunk_call *call, int64_t head, int64_t t, int64_t column, const float *staged,
    const v_f32 sum[ROWS][VECTORS], const int vectors, const int pairs)
{
    const lspan_ssd_scan *scan = call->scan;
    const lspan_heads *z = &scan->gate;
    v_f32 d = v_set1(scan->d ? scan->d[head] : 0.0f);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
        if (t + r >= call->count) break;
        int64_t token = call->first + t + r;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            int64_t p = column + v * V_WIDTH;
            int lanes = lanes_of(call->task.column_end - p);
            v_f32 y = sum[r][v];
            if (scan->d) y = v_fma(d, staged_input(staged + v * V_WIDTH, t + r, pairs), y);
            if (z->data) {
                v_f32 g = load_lanes(z->data, token * z->token_stride + head * z->head_stride + p, z->dtype, lanes);
                y = v_mul(y, v_mul(g, v_sigmoid(g)));
            }
            int64_t at = token * scan->output.token_stride + head * scan->output.head_stride + p;
#if V_BF16_DOT
            if (pairs && lanes == V_WIDTH && scan->output.dtype == lspan_dtype_bf16) {
                v_narrow_bf16((uint16_t *)scan->output.data + at, y);
                continue;
            }
#endif
            if (lanes == V_WIDTH) v_store_as(scan->output.data, at, scan->output.dtype, y);
            else v_store_as_n(scan->output.data, at, scan->output.dtype, y, lanes);
        }
    }
}

/* What the tile of tokens from t on reads of kept tokens that not all of its rows see. */
V_INLINE void accumulate_rest(
    const chunk_call *call, v_f32 sum[ROWS][VECTORS], int64_t t, const float *input, kept_tokens kept,
    const int vectors, const int pairs)
{
    int64_t seen = kept.until[t];
#pragma GCC unroll 16
    for (int r = 1 - pairs; r < ROWS; r++) {
        if (t + r >= call->count) break;
        int64_t until = kept.until[t + r];
        const float *weight = call->s.weights + in_blocks(t + r, CHUNK);
        int64_t k = pairs ? seen / 2 : seen, end = pairs ? until / 2 : until;
        for (; k < end; k++) {
            v_f32 left = v_set1(weight[k * BLOCK]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                sum[r][v] = multiply_add(left, v_load(input + k * PANEL + v * V_WIDTH), sum[r][v], pairs);
            }
        }
#if V_BF16_DOT
        if (pairs && until % 2 != 0) {
            v_f32 left = v_set1(weight[end * BLOCK]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                sum[r][v] = v_dot_bf16(sum[r][v], left, v_first_bf16(v_load(input + end * PANEL + v * V_WIDTH)));
            }
        }
#endif
    }
}

/* Outputs of a tile of tokens in `vectors` vectors of columns. */
V_INLINE void output_tile(
    const chunk_call *call, int64_t head, int64_t t, int64_t column, const float *state, const float *staged,
    const float *input, kept_tokens kept, const int vectors, const int pairs)
{
    const lspan_ssd_scratch *s = &call->s;
    v_f32 sum[ROWS][VECTORS];
    clear(sum, vectors);
    int64_t depth = pairs ? call->state_size / 2 : call->state_size;
    accumulate(sum, s->c + in_blocks(t, depth), 1, BLOCK, state, PANEL, V_WIDTH, depth, vectors, pairs);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
        v_f32 entry = v_set1(s->entry[t + r]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[r][v] = v_mul(entry, sum[r][v]);
    }
    int64_t seen = kept.until[t];
    if (pairs) seen /= 2;
    accumulate(sum, s->weights + in_blocks(t, CHUNK), 1, BLOCK, input, PANEL, V_WIDTH, seen, vectors, pairs);
    accumulate_rest(call, sum, t, input, kept, vectors, pairs);
    store_outputs(call, head, t, column, staged, sum, vectors, pairs);
}

/* A tile of rows n .. of a panel of the state: decayed, and with what the chunk adds. */
V_INLINE void state_tile(
    float *state, const float *b, int64_t b_stride, int64_t rows, const float *input, float decay, int64_t depth,
    const int vectors, const int pairs)
{
    v_f32 sum[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            sum[r][v] = r < rows ? v_mul(v_set1(decay), v_load(state + r * PANEL + v * V_WIDTH)) : v_zero();
        }
    }
    accumulate(sum, b, 1, b_stride, input, PANEL, V_WIDTH, depth, vectors, pairs);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            if (r < rows) v_store(state + r * PANEL + v * V_WIDTH, sum[r][v]);
        }
    }
}

/* Vectors of columns that a panel has from column p of the task on. */
V_INLINE int64_t vectors_from(const chunk_call *call, int64_t p)
{
    return lspan_min64(VECTORS, (call->columns - p + V_WIDTH - 1) / V_WIDTH);
}

V_INLINE void make_outputs(
    const chunk_call *call, int64_t h, const float *states, const float *staged, const float *input,
    kept_tokens kept, const input_stage *next, const int pairs)
{
    int64_t head = call->task.head + h, place = h % LSPAN_SSD_STAGED, tiles = (call->count + ROWS - 1) / ROWS;
    int64_t steps = tiles * lspan_min64(LSPAN_SSD_STAGED, call->task.heads - h + place);
    int64_t each = lspan_round_up((next->count + steps - 1) / steps, 2);
    int64_t depth = pairs ? call->state_size / 2 : call->state_size;
    prefetch_outputs(call, head, 0, LSPAN_SSD_AHEAD);
    for (int64_t p = 0; p < call->columns; p += PANEL) {
        int64_t vectors = vectors_from(call, p), column = call->task.column + p;
        const float *state = states + p * depth, *x = staged + p * CHUNK, *kept_x = input + p * CHUNK;
        for (int64_t t = 0; t < call->count; t += ROWS) {
            if (p == 0) {
                prefetch_outputs(call, head, t + LSPAN_SSD_AHEAD, t + LSPAN_SSD_AHEAD + ROWS);
                stage_part(call, next, (place * tiles + t / ROWS) * each, each, pairs);
            }
            if (vectors == VECTORS) {
                output_tile(call, head, t, column, state, x, kept_x, kept, VECTORS, pairs);
                continue;
            }
            for (int64_t v = 0; v < vectors * V_WIDTH; v += V_WIDTH) {
                output_tile(call, head, t, column + v, state + v, x + v, kept_x + v, kept, 1, pairs);
            }
        }
    }
}

/* Leaves the input weighed. */
V_INLINE void update_state(const chunk_call *call, float *states, float *inputs, kept_tokens kept, const int pairs)
{
    int64_t depth = pairs ? (kept.count + 1) / 2 : kept.count;
    const float *b = call->s.b;
    float decay = call->s.entry[call->count - 1];
    if (kept.count == 0) return;
    if (kept.count < call->count) {
        b = call->s.kept_b;
        pack_b(call, call->s.kept_b, kept.token, kept.count, pairs);
    }
    weigh_input(call, inputs, kept, pairs);
    for (int64_t p = 0; p < call->columns; p += PANEL) {
        int64_t vectors = vectors_from(call, p);
        float *state = states + p * call->state_size;
        const float *input = inputs + p * CHUNK;
        for (int64_t n = 0; n < call->state_size; n += ROWS) {
            int64_t rows = lspan_min64(ROWS, call->state_size - n);
            if (vectors == VECTORS) {
                state_tile(
                    state + n * PANEL, b + n, call->state_stride, rows, input, decay, depth, VECTORS, pairs);
                continue;
            }
            for (int64_t v = 0; v < vectors * V_WIDTH; v += V_WIDTH) {
                state_tile(
                    state + n * PANEL + v, b + n, call->state_stride, rows, input + v, decay, depth, 1, pairs);
            }
        }
    }
}

#if V_BF16_DOT
/* The state as the outputs read it, in pairs along n. */
V_INLINE void pair_states(const chunk_call *call, const float *states)
{
    for (int64_t p = 0; p < call->columns; p += PANEL) {
        const float *from = states + p * call->state_size;
        float *to = call->s.state_pairs + p * (call->state_size / 2);
        for (int64_t n = 0; n < call->state_size; n += 2, from += 2 * PANEL, to += PANEL) {
#pragma GCC unroll 4
            for (int v = 0; v < PANEL; v += V_WIDTH) {
                v_store(to + v, v_pair_bf16(v_load(from + v), v_load(from + PANEL + v)));
            }
        }
    }
}
#endif

/* ---- States between a call's layout and the scratch's --------------------------------------------------- */

/* Panels of [N][panel] of one head from its state [P][N], or zeros. */
V_INLINE void load_state(const chunk_call *call, const float *state, float *out)
{
    memset(out, 0, (size_t)(call->width * call->state_size) * sizeof(float));
    for (int64_t p = 0; state && p < call->columns; p += V_WIDTH) {
        int count = lanes_of(call->columns - p);
        float *panel = out + p / PANEL * PANEL * call->state_size + p % PANEL;
        for (int64_t n = 0; n < call->state_size; n += V_WIDTH) {
            int lanes = lanes_of(call->state_size - n);
            v_f32 block[V_WIDTH];
            for (int i = 0; i < V_WIDTH; i++) {
                block[i] = i < count ? v_load_n(state + (p + i) * call->state_size + n, lanes) : v_zero();
            }
            v_transpose(block);
            for (int i = 0; i < lanes; i++) v_store(panel + (n + i) * PANEL, block[i]);
        }
    }
}

V_INLINE void store_state(const chunk_call *call, const float *in, float *state)
{
    for (int64_t p = 0; p < call->columns; p += V_WIDTH) {
        int count = lanes_of(call->columns - p);
        const float *panel = in + p / PANEL * PANEL * call->state_size + p % PANEL;
        for (int64_t n = 0; n < call->state_size; n += V_WIDTH) {
            int lanes = lanes_of(call->state_size - n);
            v_f32 block[V_WIDTH];
            for (int i = 0; i < V_WIDTH; i++) block[i] = i < lanes ? v_load(panel + (n + i) * PANEL) : v_zero();
            v_transpose(block);
            for (int i = 0; i < count; i++) v_store_n(state + (p + i) * call->state_size + n, block[i], lanes);
        }
    }
}

/* ---- The task ---------------------------------------------------------------------------------------- */

/* Staged is the head's x, next what is to be staged meanwhile. */
V_INLINE int64_t scan_head_chunk(
    const chunk_call *call, int64_t h, float *staged, const input_stage *next, const int pairs)
{
    float *states = call->s.states + h * call->width * call->state_size;
    kept_tokens kept = find_kept(call, h);
    prefetch_chunk(call, h);
    make_decays(call, h);
    make_weights(call, h, kept, pairs);
    float *input = pack_input(call, staged, kept, pairs);
#if V_BF16_DOT
    if (pairs) pair_states(call, states);
#endif
    make_outputs(call, h, pairs ? call->s.state_pairs : states, staged, input, kept, next, pairs);
    update_state(call, states, input, kept, pairs);
    return kept.count;
}

V_INLINE void scan_chunks(chunk_call *call, const int pairs)
{
    const lspan_ssd_scan *scan = call->scan;
    int64_t end = scan->indptr[call->task.sequence + 1];
    int64_t *kept = scan->kept && call->task.column == 0
        ? scan->kept + call->task.sequence * scan->heads + call->task.head : NULL;
    for (int64_t h = 0; kept && h < call->task.heads; h++) kept[h] = 0;
    int64_t stage_size = lspan_min64(LSPAN_SSD_STAGED, call->task.heads) * call->width * CHUNK;
    input_stage stage = {0}, next = {0};
    for (int i = 0; call->first < end; call->first += CHUNK) {
        call->count = lspan_min64(CHUNK, end - call->first);
        pack_chunk(call, pairs);
        for (int64_t h = 0; h < call->task.heads; h += V_WIDTH) make_steps(call, h);
        for (int64_t h = 0; h < call->task.heads; h++) {
            if (h % LSPAN_SSD_STAGED == 0) {
                if (next.count == 0) {
                    next = stage_from(call, h, call->s.staged);
                    stage_tokens(call, &next, 0, next.count, pairs);
                }
                stage = next;
                i ^= 1;
                next = stage_from(call, h + LSPAN_SSD_STAGED, call->s.staged + i * stage_size);
            }
            float *staged = stage.to + h % LSPAN_SSD_STAGED * call->width * CHUNK;
            int64_t count = scan_head_chunk(call, h, staged, &next, pairs);
            if (kept) kept[h] += count;
        }
    }
}

void LSPAN_VARIANT(ssd_chunks)(const lspan_ssd_scan *scan, lspan_ssd_task task, void *scratch)
{
    chunk_call call = {
        .scan = scan,
        .task = task,
        .group = task.head / (scan->heads / scan->groups),
        .columns = task.column_end - task.column,
        .state_size = scan->state_size,
        .state_stride = lspan_ssd_state_stride(scan->state_size),
        .first = scan->indptr[task.sequence]};
    call.width = lspan_round_up(call.columns, LSPAN_SSD_PANEL);
    call.s = lspan_cut_ssd_scratch(scratch, task.heads, call.columns, scan->state_size);
    for (int32_t t = 0; t < CHUNK; t++) {
        call.s.tokens[t] = (float)t;
        call.s.all[t] = t;
        call.s.all_until[t] = t + 1;
    }
    int64_t head_state = scan->head_dim * scan->state_size, column = task.column * scan->state_size;
    int64_t at = task.sequence * scan->state_stride + task.head * head_state + column;
    for (int64_t h = 0; h < task.heads; h++) {
        const float *initial = scan->initial_state ? scan->initial_state + at + h * head_state : NULL;
        load_state(&call, initial, call.s.states + h * call.width * scan->state_size);
    }
#if V_BF16_DOT
    int pairs = scan->input.dtype == lspan_dtype_bf16 && scan->b.dtype == lspan_dtype_bf16 &&
        scan->c.dtype == lspan_dtype_bf16 && scan->state_size % 2 == 0;
    if (pairs) scan_chunks(&call, 1);
    else scan_chunks(&call, 0);
#else
    scan_chunks(&call, 0);
#endif
    for (int64_t h = 0; scan->final_state && h < task.heads; h++) {
        store_state(&call, call.s.states + h * call.width * scan->state_size, scan->final_state + at + h * head_state);
    }
}
