/* attention_mask.h: which keys a query row sees, shared by planning and by every kernel body. */
#ifndef LSPAN_ATTENTION_MASK_H
#define LSPAN_ATTENTION_MASK_H

#include "../integers.h"
#include <longspan/attention.h>

/* Keys of one head of a sequence. */
static inline int64_t lspan_keys_of_head(const lspan_attention *a, int64_t sequence, int64_t kv_head)
{
    if (a->kv_lengths) return a->kv_lengths[sequence * a->kv_heads + kv_head];
    return a->kv_indptr[sequence + 1] - a->kv_indptr[sequence];
}

/* A row sees key j where j < high and (j >= low or j < sinks). All three do not decrease with the row. */
typedef struct lspan_row_keys {
    int64_t low;
    int64_t high;
    int64_t sinks;
} lspan_row_keys;

/* Keys seen by query token `row` of T over S keys. */
static inline lspan_row_keys lspan_keys_of_row(const lspan_attention *a, int64_t row, int64_t tokens, int64_t keys)
{
    int64_t position = keys - tokens + row;
    lspan_row_keys seen = {0, keys, 0};
    if (a->causal) seen.high = lspan_clamp64(position + 1, 0, keys);
    if (a->window > 0) {
        /* compared before it is subtracted, so that no window overflows */
        seen.low = a->window > position ? 0 : position - a->window + 1;
        seen.sinks = lspan_min64(a->sinks, seen.high);
    }
    return seen;
}

/* The keys that at least one of rows first .. last sees: [0, sinks) and [low, high), disjoint. */
static inline lspan_row_keys lspan_keys_of_rows(
    const lspan_attention *a, int64_t first, int64_t last, int64_t tokens, int64_t keys)
{
    lspan_row_keys begin = lspan_keys_of_row(a, first, tokens, keys);
    lspan_row_keys end = lspan_keys_of_row(a, last, tokens, keys);
    lspan_row_keys seen = {begin.low, end.high, end.sinks};
    if (seen.sinks >= seen.low) {
        seen.sinks = 0;
        seen.low = 0;
    }
    seen.low = lspan_min64(seen.low, seen.high);
    return seen;
}

/* Whether a row sees all of keys first .. end-1. */
static inline int lspan_row_sees_all(lspan_row_keys row, int64_t first, int64_t end)
{
    return end <= row.high && (first >= row.low || end <= row.sinks);
}

#endif
