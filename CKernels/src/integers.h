/* integers.h: small arithmetic on sizes. */
#ifndef LSPAN_INTEGERS_H
#define LSPAN_INTEGERS_H

#include <stdint.h>

static inline int64_t lspan_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t lspan_max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t lspan_clamp64(int64_t x, int64_t low, int64_t high)
{
    return lspan_max64(low, lspan_min64(x, high));
}

static inline int64_t lspan_round_up(int64_t x, int64_t multiple)
{
    return (x + multiple - 1) / multiple * multiple;
}

#endif
