/* lanes.h: moves of up to V_WIDTH elements. A whole vector goes without a mask, which costs nothing then. */
#ifndef LSPAN_LANES_H
#define LSPAN_LANES_H

#include "../simd/simd.h"

/* Lanes of the next vector where `left` elements are left. */
V_INLINE int lanes_of(int64_t left)
{
    return left < V_WIDTH ? (int)left : V_WIDTH;
}

V_INLINE v_f32 load_lanes(const void *data, int64_t index, lspan_dtype dtype, int lanes)
{
    return lanes == V_WIDTH ? v_load_as(data, index, dtype) : v_load_as_n(data, index, dtype, lanes);
}

V_INLINE void store_lanes(void *data, int64_t index, lspan_dtype dtype, v_f32 x, int lanes)
{
    if (lanes == V_WIDTH) {
        v_store_as(data, index, dtype, x);
    } else {
        v_store_as_n(data, index, dtype, x, lanes);
    }
}

#endif
