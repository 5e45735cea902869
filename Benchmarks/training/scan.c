// Selective scan of Mamba-1 and its gradient, one sequence of one channel at a time.
//   h_t[n] = exp(dt_t a[n]) h_{t-1}[n] + dt_t x_t b_t[n],   y_t = sum_n c_t[n] h_t[n]
// x, dt, y are (batch, channels, length); b, c are (batch, length, N); a is (channels, N).
#include <stddef.h>
#include <stdlib.h>

#define N 16   // states per channel, one vector
typedef float vec __attribute__((vector_size(4 * N), aligned(4)));
typedef int ivec __attribute__((vector_size(4 * N)));

// exp(x) for x <= 0: 2^k from exponent bits times a degree-6 polynomial of the rest, relative error about 2e-7.
static inline vec exp_vec(vec x) {
    vec z = x * 1.44269504f;
    for (int n = 0; n < N; ++n) z[n] = z[n] < -126.0f ? -126.0f : z[n];
    const ivec k = __builtin_convertvector(z - 0.5f, ivec);
    const vec f = z - __builtin_convertvector(k, vec);
    vec p = f * 1.5403530e-4f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return p * (vec)((k + 127) << 23);
}

static inline float sum_vec(vec v) {
    float s = 0;
    for (int n = 0; n < N; ++n) s += v[n];
    return s;
}

void scan_forward(size_t batch, size_t channels, size_t length, const float *x, const float *dt, const float *a,
                  const float *b, const float *c, float *y) {
    for (size_t i = 0; i < batch; ++i) {
        const vec *bi = (const vec *)b + i * length, *ci = (const vec *)c + i * length;
        for (size_t d = 0; d < channels; ++d) {
            const size_t row = (i * channels + d) * length;
            const vec ad = ((const vec *)a)[d];
            vec h = {0};
            for (size_t t = 0; t < length; ++t) {
                h = exp_vec(ad * dt[row + t]) * h + bi[t] * (dt[row + t] * x[row + t]);
                y[row + t] = sum_vec(ci[t] * h);
            }
        }
    }
}

// Gradients of all inputs from gy; ga, gb and gc must arrive as zeros. Returns 0, or 1 when out of memory.
int scan_backward(size_t batch, size_t channels, size_t length, const float *x, const float *dt, const float *a,
                  const float *b, const float *c, const float *gy, float *gx, float *gdt, float *ga, float *gb,
                  float *gc) {
    vec *states = malloc((2 * length + 1) * sizeof *states);   // states[t] is h before step t
    if (!states) return 1;
    vec *decays = states + length + 1;
    states[0] = (vec){0};
    for (size_t i = 0; i < batch; ++i) {
        const vec *bi = (const vec *)b + i * length, *ci = (const vec *)c + i * length;
        vec *gbi = (vec *)gb + i * length, *gci = (vec *)gc + i * length;
        for (size_t d = 0; d < channels; ++d) {
            const size_t row = (i * channels + d) * length;
            const vec ad = ((const vec *)a)[d];
            for (size_t t = 0; t < length; ++t) {
                decays[t] = exp_vec(ad * dt[row + t]);
                states[t + 1] = decays[t] * states[t] + bi[t] * (dt[row + t] * x[row + t]);
            }
            vec gh = {0}, gad = {0};
            for (size_t t = length; t-- > 0;) {
                const float step = dt[row + t], value = x[row + t], g = gy[row + t];
                gh += ci[t] * g;
                gci[t] += states[t + 1] * g;
                gbi[t] += gh * (step * value);
                const float by_b = sum_vec(gh * bi[t]);
                gh *= decays[t];
                const vec through = gh * states[t];
                gx[row + t] = by_b * step;
                gdt[row + t] = by_b * value + sum_vec(through * ad);
                gad += through * step;
            }
            ((vec *)ga)[d] += gad;
        }
    }
    free(states);
    return 0;
}
