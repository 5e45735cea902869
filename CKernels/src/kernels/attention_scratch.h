/* attention_scratch.h: how a prefill or decode task cuts up its scratch. One layout for every variant: rows
 * and columns are padded to 16 lanes, 12 rows and panels of 32 columns, which suits all of them. */
#ifndef LSPAN_ATTENTION_SCRATCH_H
#define LSPAN_ATTENTION_SCRATCH_H

#include "../integers.h"
#include "../tuning.h"
#include <stddef.h>
#include <stdint.h>

#define LSPAN_SCRATCH_LANES 16
#define LSPAN_SCRATCH_ROWS 12
#define LSPAN_SCRATCH_PANEL 32

/* All f32, each array 64-byte aligned. */
typedef struct lspan_attention_scratch {
    float *queries;   /* [rows, D], scaled */
    float *output;    /* [rows, columns] */
    float *scores;    /* [rows, keys]; in prefill those of a block of rows */
    float *maximum;   /* [rows] */
    float *sum;       /* [rows] */
    float *keys;      /* prefill only: [D, keys], transposed, in panels of columns */
    float *values;    /* prefill only: [keys, D], in panels of columns */
    size_t bytes;
} lspan_attention_scratch;

static inline float *lspan_take(char *base, size_t *offset, int64_t count)
{
    float *array = base ? (float *)(void *)(base + *offset) : NULL;
    *offset += (size_t)lspan_round_up(count, 16) * sizeof(float);
    return array;
}

/* With base NULL only `bytes` is meaningful. */
static inline lspan_attention_scratch lspan_cut_scratch(
    void *base, int64_t rows, int64_t head_dim, int64_t keys, int prefill)
{
    lspan_attention_scratch s = {0};
    char *start = base;
    int64_t padded = lspan_round_up(rows, LSPAN_SCRATCH_ROWS);
    int64_t columns = lspan_round_up(head_dim, LSPAN_SCRATCH_LANES);
    s.queries = lspan_take(start, &s.bytes, padded * head_dim);
    s.output = lspan_take(start, &s.bytes, padded * columns);
    s.scores = lspan_take(start, &s.bytes, (prefill ? lspan_min64(padded, LSPAN_PREFILL_BLOCK_ROWS) : padded) * keys);
    s.maximum = lspan_take(start, &s.bytes, padded);
    s.sum = lspan_take(start, &s.bytes, padded);
    if (prefill) {
        s.keys = lspan_take(start, &s.bytes, head_dim * keys);
        s.values = lspan_take(start, &s.bytes, keys * lspan_round_up(head_dim, LSPAN_SCRATCH_PANEL));
    }
    return s;
}

#endif
