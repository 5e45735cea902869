/* scan_scratch.h: how a task of the selective scan cuts up its scratch. */
#ifndef LSPAN_SCAN_SCRATCH_H
#define LSPAN_SCAN_SCRATCH_H

#include "../integers.h"
#include "../tuning.h"
#include <stddef.h>
#include <stdint.h>

/* All f32. A strip of channels is in blocks of one vector; what has a value a channel has lanes innermost. Each array
 * starts at a cache line. */
typedef struct lspan_scan_scratch {
    float *decays; /* [blocks, N, lanes]: A in units of ln 2 */
    float *states; /* [blocks, N, lanes] */
    float *steps;  /* [tokens, lanes] of a block: dt */
    float *pushes; /* likewise dt * u */
    float *sums;   /* likewise the sum over n of C h */
    float *b;      /* [tokens, row] */
    float *c;      /* [tokens, row] */
    int64_t row;   /* N, padded to a whole vector */
    size_t bytes;
} lspan_scan_scratch;

/* With base NULL only `bytes` is meaningful. */
static inline lspan_scan_scratch lspan_cut_scan_scratch(float *base, int64_t strip, int64_t state_size)
{
    const int64_t lanes = 16, rows = LSPAN_SCAN_TOKENS;
    int64_t states = lspan_round_up(strip, lanes) * state_size;
    int64_t row = lspan_round_up(state_size, lanes);
    int64_t sizes[7] = {states, states, rows * lanes, rows * lanes, rows * lanes, rows * row, rows * row};
    float *starts[7];
    size_t offset = 0;
    for (int i = 0; i < 7; i++) {
        starts[i] = base ? base + offset : NULL;
        offset += (size_t)sizes[i];
    }
    return (lspan_scan_scratch){
        starts[0], starts[1], starts[2], starts[3], starts[4], starts[5], starts[6], row, offset * sizeof(float)};
}

#endif
