/* loss.c: negative log-likelihood and entropy of logit rows, streamed. */
#include "../simd/vmath.h"
#include "variants.h"

/* Elements between two looks at the running maximum: one rescaling a block, and f32 partial sums short enough
 * that f64 totals keep their accuracy over any vocabulary. */
#define BLOCK 512

/* Elements index .. index+lanes-1, with minus infinity in the lanes above them. */
V_INLINE v_f32 load_row(lspan_matrix m, int64_t index, int64_t count)
{
    if (count >= V_WIDTH) return v_load_as(m.data, index, m.dtype);
    float lanes[V_WIDTH];
    v_store(lanes, v_set1(-INFINITY));
    v_store_n(lanes, v_load_as_n(m.data, index, m.dtype, (int)count), (int)count);
    return v_load(lanes);
}

V_INLINE float element(lspan_matrix m, int64_t index)
{
    return v_reduce_max(load_row(m, index, 1));
}

typedef struct stream {
    float maximum;
    double sum;      /* of exp(x - maximum) */
    double weighted; /* of exp(x - maximum) * (x - maximum) */
} stream;

V_INLINE void stream_block(stream *s, lspan_matrix m, int64_t base, int64_t count)
{
    v_f32 top = v_set1(s->maximum);
    for (int64_t i = 0; i < count; i += V_WIDTH) top = v_max(top, load_row(m, base + i, count - i));
    float highest = v_reduce_max(top);
    v_f32 shift = v_set1(highest == -INFINITY ? 0.0f : highest);
    /* exp(-200) is 0, so this floor changes only 0 * -inf, which must be 0 */
    v_f32 floor = v_set1(-200.0f);
    v_f32 sum = v_zero(), weighted = v_zero();
    for (int64_t i = 0; i < count; i += V_WIDTH) {
        v_f32 offset = v_sub(load_row(m, base + i, count - i), shift);
        v_f32 p = v_exp(offset);
        sum = v_add(sum, p);
        weighted = v_fma(p, v_max(floor, offset), weighted);
    }
    if (s->maximum != -INFINITY && s->maximum != highest) {
        double shifted = (double)s->maximum - (double)highest, factor = exp(shifted);
        s->weighted = factor * (s->weighted + shifted * s->sum);
        s->sum *= factor;
    }
    s->maximum = highest;
    s->sum += (double)v_reduce_add(sum);
    s->weighted += (double)v_reduce_add(weighted);
}

void LSPAN_VARIANT(log_softmax_gather)(const lspan_loss *loss, int64_t first, int64_t end)
{
    for (int64_t row = first; row < end; row++) {
        int64_t base = row * loss->logits.row_stride;
        stream s = {-INFINITY, 0.0, 0.0};
        for (int64_t i = 0; i < loss->vocabulary; i += BLOCK) {
            stream_block(&s, loss->logits, base + i, loss->vocabulary - i < BLOCK ? loss->vocabulary - i : BLOCK);
        }
        /* a row that is all minus infinity has sum 0: 0/0 and inf - inf give the documented NaN */
        double log_sum = log(s.sum);
        if (loss->nll) {
            double target = (double)element(loss->logits, base + loss->targets[row]);
            loss->nll[row] = (float)(s.sum == 0.0 ? NAN : log_sum - (target - (double)s.maximum));
        }
        if (loss->entropy) loss->entropy[row] = (float)(log_sum - s.weighted / s.sum);
    }
}
