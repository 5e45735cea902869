/* ssd.c: the SSD scan of Mamba-2 as a recurrence, and once more in chunks with the roundings of its bf16 form. */
#include "reference.h"
#include <math.h>
#include <stdlib.h>

#include "precision_f64.h"
#include "ssd_body.h"

#include "precision_f32.h"
#include "ssd_body.h"

/* ---- In chunks of bf16 operands ------------------------------------------------------------------------ */

#define CHUNK 64

static float bf16(float x)
{
    return (float)lspan_reference_round((double)x, lspan_dtype_bf16);
}

/* Tokens first .. first+count-1 of a head, whose state [P, N] goes on to the next chunk. */
static void scan_chunk(
    const lspan_ssd_scan *s, int64_t sequence, int64_t head, int64_t first, int64_t count, float *state, float *output)
{
    int64_t rows = s->head_dim, size = s->state_size, group = head / (s->heads / s->groups);
    float steps[CHUNK], until[CHUNK], weights[CHUNK][CHUNK];
    float *b = malloc((size_t)(2 * CHUNK * size) * sizeof *b), *c = b + CHUNK * size;
    for (int64_t t = 0; t < count; t++) {
        steps[t] = lspan_reference_step_f32(s, sequence, first + t, head);
        until[t] = (t > 0 ? until[t - 1] : 0) + steps[t] * s->a[head];
        for (int64_t n = 0; n < size; n++) {
            b[t * size + n] = lspan_reference_in_heads_f32(s->b, first + t, group, n);
            c[t * size + n] = lspan_reference_in_heads_f32(s->c, first + t, group, n);
        }
    }
    for (int64_t t = 0; t < count; t++) {
        for (int64_t i = 0; i <= t; i++) {
            float product = 0;
            for (int64_t n = 0; n < size; n++) product += c[t * size + n] * b[i * size + n];
            weights[t][i] = steps[i] != 0 ? bf16(product * expf(until[t] - until[i]) * steps[i]) : 0;
        }
    }
    for (int64_t p = 0; p < rows; p++) {
        float x[CHUNK], *row = state + p * size;
        for (int64_t t = 0; t < count; t++) {
            float carried = 0, inside = 0;
            x[t] = lspan_reference_in_heads_f32(s->input, first + t, head, p);
            for (int64_t n = 0; n < size; n++) carried += c[t * size + n] * bf16(row[n]);
            for (int64_t i = 0; i <= t; i++) inside += weights[t][i] * (steps[i] != 0 ? x[i] : 0);
            output[((first + t) * s->heads + head) * rows + p] =
                lspan_reference_gated_f32(s, first + t, head, p, expf(until[t]) * carried + inside);
        }
        for (int64_t n = 0; n < size; n++) row[n] *= expf(until[count - 1]);
        for (int64_t t = 0; t < count; t++) {
            if (steps[t] == 0) continue;
            float taken = bf16(expf(until[count - 1] - until[t]) * steps[t] * x[t]);
            for (int64_t n = 0; n < size; n++) row[n] += taken * b[t * size + n];
        }
    }
    free(b);
}

void lspan_reference_ssd_bf16(const lspan_ssd_scan *s, float *output, float *final_state)
{
    int64_t states = s->head_dim * s->state_size;
    for (int64_t b = 0; b < s->sequences; b++) {
        for (int64_t h = 0; h < s->heads; h++) {
            float *state = final_state + (b * s->heads + h) * states;
            for (int64_t i = 0; i < states; i++) {
                state[i] = s->initial_state ? s->initial_state[b * s->state_stride + h * states + i] : 0;
            }
            for (int64_t t = s->indptr[b]; t < s->indptr[b + 1]; t += CHUNK) {
                int64_t left = s->indptr[b + 1] - t;
                scan_chunk(s, b, h, t, left < CHUNK ? left : CHUNK, state, output);
            }
        }
    }
}
