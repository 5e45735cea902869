/* ssd_scratch.h: how a task of the chunked SSD scan cuts up its scratch. One layout for every variant: columns are padded
 * to panels of 32, state elements and tokens to 16, which suits all of them. */
#ifndef LSPAN_SSD_SCRATCH_H
#define LSPAN_SSD_SCRATCH_H

#include "../integers.h"
#include "../tuning.h"
#include <stddef.h>
#include <stdint.h>

/* Columns to which a head's are padded: a multiple of every variant's panel. */
#define LSPAN_SSD_PANEL 32
/* What products read along a chunk's tokens lies in blocks of that many, a cache line, row after row: a tile of rows, which
 * divides a block, reads it in address order. */
#define LSPAN_SSD_BLOCK 16

/* Each array 64-byte aligned. "Pairs" of bf16 take the place of two floats: rows of them are half as many. */
typedef struct lspan_ssd_scratch {
    /* of the task */
    float *states;      /* [heads] of panels [N][panel], for the whole sequence */
    float *tokens;      /* [CHUNK] 0, 1, 2 ... */
    int32_t *all;       /* [CHUNK] the same as integers: the tokens of a chunk that keeps all, and .. */
    int32_t *all_until; /* [CHUNK] .. how many of them are not after token t: t + 1 */
    /* of a chunk, for all heads */
    float *c;        /* blocks [N][BLOCK] of C transposed; pairs along n: [N / 2][BLOCK] */
    float *b;        /* [CHUNK][n_stride] B; pairs along tokens: [CHUNK / 2][n_stride] */
    float *b_rows;   /* pairs only: [CHUNK][N / 2] B in pairs along n */
    float *products; /* [CHUNK][CHUNK] B_s . C_t in row s and column t, for t >= s */
    float *staged;   /* twice, of some heads: panels [CHUNK][panel] of x; pairs along tokens: [CHUNK / 2][panel] */
    float *steps;    /* [heads][CHUNK] dt */
    float *high;     /* [heads][CHUNK] sums of dt * A so far, as powers of 2 .. */
    float *low;      /* [heads][CHUNK] .. and what rounding took from them */
    float *least;    /* [heads] the least |dt| */
    /* of a head and chunk; k counts the kept tokens */
    int32_t *kept;       /* [CHUNK] token k */
    int32_t *kept_until; /* [CHUNK] how many kept tokens are not after token t */
    float *input;        /* as staged, of token k, where some are left out */
    float *weights;      /* blocks [CHUNK][BLOCK]: what token t reads of token k; pairs along k likewise */
    float *kept_b;       /* as b, of token k */
    float *state_pairs;  /* pairs only: panels [N / 2][panel] of the state, along n */
    float *entry;        /* [CHUNK] what is left at token t of the state before the chunk */
    float *exit;         /* [CHUNK] what the state after the chunk has of token t */
    size_t bytes;
} lspan_ssd_scratch;

static inline void *lspan_ssd_take(char *base, size_t *offset, int64_t count)
{
    void *array = base ? base + *offset : NULL;
    *offset += (size_t)lspan_round_up(count, 16) * sizeof(float);
    return array;
}

/* Elements from row to row of what has state elements in its columns. */
static inline int64_t lspan_ssd_state_stride(int64_t state_size)
{
    return lspan_round_up(state_size, 16) + 16;
}

/* With base NULL only `bytes` is meaningful. */
static inline lspan_ssd_scratch lspan_cut_ssd_scratch(void *base, int64_t heads, int64_t columns, int64_t state_size)
{
    lspan_ssd_scratch s = {0};
    char *start = base;
    int64_t width = lspan_round_up(columns, LSPAN_SSD_PANEL), rows = LSPAN_SSD_CHUNK * LSPAN_SSD_CHUNK;
    int64_t padded = lspan_round_up(heads, 16) * LSPAN_SSD_CHUNK;
    int64_t b = LSPAN_SSD_CHUNK * lspan_ssd_state_stride(state_size);
    s.states = lspan_ssd_take(start, &s.bytes, heads * state_size * width);
    s.tokens = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK);
    s.all = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK);
    s.all_until = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK);
    s.c = lspan_ssd_take(start, &s.bytes, lspan_round_up(state_size, 16) * LSPAN_SSD_CHUNK);
    s.b = lspan_ssd_take(start, &s.bytes, b);
    s.b_rows = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK * (state_size / 2));
    s.products = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK * LSPAN_SSD_CHUNK);
    s.staged = lspan_ssd_take(start, &s.bytes, 2 * lspan_min64(heads, LSPAN_SSD_STAGED) * LSPAN_SSD_CHUNK * width);
    s.steps = lspan_ssd_take(start, &s.bytes, padded);
    s.high = lspan_ssd_take(start, &s.bytes, padded);
    s.low = lspan_ssd_take(start, &s.bytes, padded);
    s.least = lspan_ssd_take(start, &s.bytes, heads + 16);
    s.kept = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK);
    s.kept_until = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK);
    s.input = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK * width);
    s.weights = lspan_ssd_take(start, &s.bytes, rows);
    s.kept_b = lspan_ssd_take(start, &s.bytes, b);
    s.state_pairs = lspan_ssd_take(start, &s.bytes, state_size / 2 * width);
    s.entry = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK);
    s.exit = lspan_ssd_take(start, &s.bytes, LSPAN_SSD_CHUNK);
    return s;
}

#endif
