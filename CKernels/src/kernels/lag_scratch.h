/* lag_scratch.h: how the scratch of lag_scores is laid out. */
#ifndef LSPAN_LAG_SCRATCH_H
#define LSPAN_LAG_SCRATCH_H

#include "../integers.h"

/* Channels are padded to whole pairs of the widest vectors, tokens to whole cache lines. */
static inline int64_t lspan_lag_channels(int64_t head_dim)
{
    return lspan_round_up(head_dim, 32);
}

/* Three arrays of channels, then one of tokens. */
static inline int64_t lspan_lag_scratch_floats(int64_t head_dim, int64_t window)
{
    return 3 * lspan_lag_channels(head_dim) + lspan_round_up(window, 16);
}

#endif
