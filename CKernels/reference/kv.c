/* kv.c: scores, selection, compaction and shifted keys of a cache. */
#include "reference.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "precision_f64.h"
#include "kv_body.h"

#include "precision_f32.h"
#include "kv_body.h"

/* ---- Selection --------------------------------------------------------------------------------------- */

typedef struct ranked {
    double score;
    int64_t token;
    int64_t row;
} ranked;

/* Highest score first, a NaN last; then the lowest token, then the lowest row. -0 and 0 compare equal. */
static int compare_ranked(const void *left, const void *right)
{
    const ranked *a = left, *b = right;
    if (isnan(a->score) != isnan(b->score)) return isnan(a->score) ? 1 : -1;
    if (!isnan(a->score) && a->score != b->score) return a->score > b->score ? -1 : 1;
    if (a->token != b->token) return a->token < b->token ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

static int is_forced(const lspan_selection *s, int64_t token)
{
    for (int64_t i = 0; i < s->forced_count; i++) {
        if (token >= s->forced[i].begin && token < s->forced[i].end) return 1;
    }
    return 0;
}

/* Marks the `wanted` first of `count` candidates in kept [rows, N]. */
static void keep_best(const lspan_selection *s, ranked *candidates, int64_t count, int64_t wanted, char *kept)
{
    qsort(candidates, (size_t)count, sizeof *candidates, compare_ranked);
    for (int64_t i = 0; i < wanted && i < count; i++) kept[candidates[i].row * s->tokens + candidates[i].token] = 1;
}

void lspan_reference_select(const lspan_selection *s)
{
    int shared = s->scope == lspan_select_scope_shared, joint = s->scope == lspan_select_scope_joint;
    int64_t lists = shared ? 1 : s->rows, forced = 0, count = 0, entries = 0;
    char *kept = calloc((size_t)(lists * s->tokens) + 1, 1);
    ranked *candidates = calloc((size_t)(lists * s->tokens) + 1, sizeof *candidates);
    if (!kept || !candidates) abort();
    for (int64_t t = 0; t < s->tokens; t++) forced += is_forced(s, t);
    for (int64_t l = 0; l < lists; l++) {
        if (!joint) count = 0;
        for (int64_t t = 0; t < s->tokens; t++) {
            double score = 0;
            for (int64_t r = shared ? 0 : l; r < (shared ? s->rows : l + 1); r++) {
                score += (double)s->scores[r * s->score_row_stride + t];
            }
            if (is_forced(s, t)) kept[l * s->tokens + t] = 1;
            else candidates[count++] = (ranked){score, t, l};
            if (s->scope == lspan_select_scope_threshold && score >= (double)s->threshold) kept[l * s->tokens + t] = 1;
        }
        if (!joint) keep_best(s, candidates, count, s->keep - forced, kept);
    }
    if (joint) keep_best(s, candidates, count, s->keep - forced * s->rows, kept);
    s->indptr[0] = 0;
    for (int64_t l = 0; l < lists; l++) {
        for (int64_t t = 0; t < s->tokens; t++) {
            int32_t offset = s->row_offsets ? s->row_offsets[l] : 0;
            if (kept[l * s->tokens + t]) s->indices[entries++] = (int32_t)t + offset;
        }
        s->indptr[l + 1] = entries;
    }
    free(kept);
    free(candidates);
}

/* ---- Compaction -------------------------------------------------------------------------------------- */

typedef struct byte_rows {
    char *data;
    int64_t row;
    int64_t slot_stride;
    int64_t head_stride;
} byte_rows;

static byte_rows rows_of(lspan_heads_out view, int64_t head_dim)
{
    int64_t element = (int64_t)lspan_dtype_size(view.dtype);
    return (byte_rows){view.data, head_dim * element, view.token_stride * element, view.head_stride * element};
}

/* By way of a copy of all that moves. */
static void move_list(byte_rows a, int64_t head, const lspan_compaction *c)
{
    int64_t list = c->lists == 1 ? 0 : head, first = c->indptr[list], count = c->indptr[list + 1] - first;
    int64_t all = count + c->tail_end - c->tail_begin;
    char *copy = calloc((size_t)(all * a.row) + 1, 1), *base = a.data + head * a.head_stride;
    if (!copy) abort();
    for (int64_t i = 0; i < all; i++) {
        int64_t slot = i < count ? c->indices[first + i] : c->tail_begin + i - count;
        memcpy(copy + i * a.row, base + slot * a.slot_stride, (size_t)a.row);
    }
    for (int64_t i = 0; i < all; i++) {
        memcpy(base + (c->destination + i) * a.slot_stride, copy + i * a.row, (size_t)a.row);
    }
    free(copy);
}

void lspan_reference_compact(const lspan_compaction *c)
{
    for (int64_t h = 0; h < c->heads; h++) {
        move_list(rows_of(c->keys, c->head_dim), h, c);
        move_list(rows_of(c->values, c->head_dim), h, c);
        for (int64_t s = 0; s < c->side_count; s++) {
            int64_t size = c->side[s].element_bytes;
            move_list((byte_rows){c->side[s].data, size, size, c->side[s].head_stride * size}, h, c);
        }
    }
}
