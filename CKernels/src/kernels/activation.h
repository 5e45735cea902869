/* activation.h: the nonlinearities of gated layers. */
#ifndef LSPAN_ACTIVATION_H
#define LSPAN_ACTIVATION_H

#include "../simd/vmath.h"
#include <longspan/dense.h>

V_INLINE v_f32 activate(v_f32 x, const lspan_activation activation)
{
    v_f32 half = v_mul(x, v_set1(0.5f));
    switch (activation) {
    case lspan_activation_gelu_tanh: {
        v_f32 cube = v_mul(v_mul(x, x), x);
        v_f32 inner = v_mul(v_set1(0.7978845608028654f), v_fma(cube, v_set1(0.044715f), x));
        return v_fma(half, v_tanh(inner), half);
    }
    case lspan_activation_gelu_erf:
        return v_fma(half, v_erf(v_mul(x, v_set1(0.7071067811865476f))), half);
    default:
        return v_mul(x, v_sigmoid(x));
    }
}

#endif
