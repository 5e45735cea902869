/* ssd_input.h: x on its way into a chunk's products, and what is asked of memory ahead. */
#ifndef LSPAN_SSD_INPUT_H
#define LSPAN_SSD_INPUT_H

#include "ssd_chunk.h"

/* ---- Memory ahead of its use -------------------------------------------------------------------------- */

V_INLINE int64_t bytes_of(lspan_dtype dtype)
{
    return (int64_t)(dtype == lspan_dtype_f32 ? sizeof(float) : sizeof(uint16_t));
}

/* Asks for the task's columns of one row of x or z, or of y. */
V_INLINE void prefetch_row(
    const chunk_call *call, const void *data, lspan_dtype dtype, int64_t row, const int written)
{
    const char *at = (const char *)data + (row + call->task.column) * bytes_of(dtype);
    for (int64_t byte = 0; byte < call->columns * bytes_of(dtype); byte += 64) {
        if (written) v_prefetch_write(at + byte);
        else v_prefetch_l2(at + byte);
    }
}

/* Head h's share of the next chunk's rows of B and C. */
V_INLINE void prefetch_chunk(const chunk_call *call, int64_t h)
{
    const lspan_heads *b = &call->scan->b, *c = &call->scan->c;
    int64_t end = call->scan->indptr[call->task.sequence + 1], share = (CHUNK + call->task.heads - 1) / call->task.heads;
    int64_t first = call->first + CHUNK + h * share, stop = lspan_min64(first + share, end);
    for (int64_t t = first; t < stop; t++) {
        const char *rows[2] = {b->data, c->data};
        rows[0] += (t * b->token_stride + call->group * b->head_stride) * bytes_of(b->dtype);
        rows[1] += (t * c->token_stride + call->group * c->head_stride) * bytes_of(c->dtype);
        for (int64_t byte = 0; byte < call->state_size * bytes_of(b->dtype); byte += 64) v_prefetch_l2(rows[0] + byte);
        for (int64_t byte = 0; byte < call->state_size * bytes_of(c->dtype); byte += 64) v_prefetch_l2(rows[1] + byte);
    }
}

/* Rows of y, and of z, of tokens from .. end-1. */
V_INLINE void prefetch_outputs(const chunk_call *call, int64_t head, int64_t from, int64_t end)
{
    const lspan_heads_out *y = &call->scan->output;
    const lspan_heads *z = &call->scan->gate;
    end = lspan_min64(end, call->count);
    for (int64_t t = call->first + from; t < call->first + end; t++) {
        prefetch_row(call, y->data, y->dtype, t * y->token_stride + head * y->head_stride, 1);
        if (z->data) prefetch_row(call, z->data, z->dtype, t * z->token_stride + head * z->head_stride, 0);
    }
}
/* ---- Staging ------------------------------------------------------------------------------------------ */

/* x of some heads in a chunk, to be staged: panels of all tokens, zero in the columns that pad the task's. It is read token
 * by token, where the heads lie side by side (rows of one head are often a multiple of 4 KiB apart, and would drive each
 * other out of the caches), and while the heads before are at work, so that memory has time. */
typedef struct input_stage {
    float *to;
    int64_t head;
    int64_t heads;
    int64_t first;
    int64_t count; /* of tokens */
} input_stage;

V_INLINE void stage_tokens(const chunk_call *call, const input_stage *stage, int64_t from, int64_t end, const int pairs)
{
    const lspan_heads *x = &call->scan->input;
    int64_t base = stage->first * x->token_stride + stage->head * x->head_stride;
    for (int64_t t = from; t < end; t += pairs ? 2 : 1) {
        for (int64_t h = 0; h < stage->heads; h++) {
            int64_t row = base + t * x->token_stride + h * x->head_stride + call->task.column;
            float *to = stage->to + h * call->width * CHUNK + (pairs ? t / 2 : t) * PANEL;
            for (int64_t p = 0; p < call->columns; p += V_WIDTH) {
                int lanes = lanes_of(call->columns - p);
                float *at = to + p / PANEL * PANEL * CHUNK + p % PANEL;
#if V_BF16_DOT
                if (pairs) {
                    const uint16_t *first = (const uint16_t *)x->data + row + p;
                    v_store(at, v_zip_bf16(first, t + 1 < stage->count ? first + x->token_stride : NULL, lanes));
                    continue;
                }
#endif
                v_store(at, load_lanes(x->data, row + p, x->dtype, lanes));
            }
        }
    }
}

/* Stages tokens from .. from+count-1, as far as there are such, and asks for those that come after the next so many. */
V_INLINE void stage_part(const chunk_call *call, const input_stage *stage, int64_t from, int64_t count, const int pairs)
{
    const lspan_heads *x = &call->scan->input;
    int64_t ahead = lspan_min64(from + 2 * count, stage->count), end = lspan_min64(from + 3 * count, stage->count);
    for (int64_t t = ahead; t < end; t++) {
        int64_t row = (stage->first + t) * x->token_stride + stage->head * x->head_stride;
        for (int64_t h = 0; h < stage->heads; h++) prefetch_row(call, x->data, x->dtype, row + h * x->head_stride, 0);
    }
    stage_tokens(call, stage, from, lspan_min64(from + count, stage->count), pairs);
}

/* The stage of the task's heads from h on in the chunk at work or, after its last head, of the first heads in the next. */
V_INLINE input_stage stage_from(const chunk_call *call, int64_t h, float *to)
{
    input_stage stage = {to, call->task.head + h, 0, call->first, call->count};
    if (h >= call->task.heads) {
        h = 0;
        stage.head = call->task.head;
        stage.first += CHUNK;
        stage.count = lspan_clamp64(call->scan->indptr[call->task.sequence + 1] - stage.first, 0, CHUNK);
    }
    stage.heads = lspan_min64(LSPAN_SSD_STAGED, call->task.heads - h);
    return stage;
}

/* Token t of a vector of staged columns. */
V_INLINE v_f32 staged_input(const float *staged, int64_t t, const int pairs)
{
#if V_BF16_DOT
    if (pairs) {
        v_f32 x = v_load(staged + t / 2 * PANEL);
        return t % 2 != 0 ? v_high_bf16(x) : v_low_bf16(x);
    }
#else
    (void)pairs;
#endif
    return v_load(staged + t * PANEL);
}

/* Panels of x of the kept tokens: the staged ones, where that is all of them. */
V_INLINE float *pack_input(const chunk_call *call, float *staged, kept_tokens kept, const int pairs)
{
    if (kept.count == call->count) return staged;
    for (int64_t p = 0; p < call->columns; p += V_WIDTH) {
        int64_t at = p / PANEL * PANEL * CHUNK + p % PANEL;
        float *to = call->s.input + at;
#if V_BF16_DOT
        for (int64_t k = 0; pairs && k < kept.count; k += 2, to += PANEL) {
            v_f32 second = k + 1 < kept.count ? staged_input(staged + at, kept.token[k + 1], 1) : v_zero();
            v_store(to, v_pair_bf16(staged_input(staged + at, kept.token[k], 1), second));
        }
#endif
        for (int64_t k = 0; !pairs && k < kept.count; k++, to += PANEL) {
            v_store(to, staged_input(staged + at, kept.token[k], 0));
        }
    }
    return call->s.input;
}

/* The input as the state takes it: x_s times exit_s, in place. */
V_INLINE void weigh_input(const chunk_call *call, float *input, kept_tokens kept, const int pairs)
{
    const lspan_ssd_scratch *s = &call->s;
    for (int64_t p = 0; p < call->columns; p += V_WIDTH) {
        float *at = input + p / PANEL * PANEL * CHUNK + p % PANEL;
#if V_BF16_DOT
        for (int64_t k = 0; pairs && k < kept.count; k += 2, at += PANEL) {
            v_f32 x = v_load(at), high = v_zero();
            if (k + 1 < kept.count) high = v_mul(v_set1(s->exit[kept.token[k + 1]]), v_high_bf16(x));
            v_store(at, v_pair_bf16(v_mul(v_set1(s->exit[kept.token[k]]), v_low_bf16(x)), high));
        }
#endif
        for (int64_t k = 0; !pairs && k < kept.count; k++, at += PANEL) {
            v_store(at, v_mul(v_set1(s->exit[kept.token[k]]), v_load(at)));
        }
    }
}

#endif
