/* attention_body.h: attention and merge in the precision that precision_*.h chose. */
#define REAL LSPAN_REFERENCE_REAL
#define NAME LSPAN_REFERENCE_NAME
#define MATH LSPAN_REFERENCE_MATH

static REAL *NAME(copy_head)(lspan_heads view, int64_t first, int64_t tokens, int64_t head, int64_t head_dim)
{
    REAL *copy = malloc((size_t)(tokens * head_dim + 1) * sizeof(REAL));
    if (!copy) abort();
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t d = 0; d < head_dim; d++) {
            int64_t index = (first + t) * view.token_stride + head * view.head_stride + d;
            copy[t * head_dim + d] = (REAL)lspan_reference_element(view.data, view.dtype, index);
        }
    }
    return copy;
}

/* Turns the keys of a head as lspan_rope does. */
static void NAME(rotate_keys)(const lspan_key_rotation *r, int64_t first, int64_t keys, int64_t head_dim, REAL *k)
{
    for (int64_t j = 0; j < keys; j++, k += head_dim) {
        int64_t row = (r->positions ? r->positions[first + j] : j) * r->pairs;
        for (int64_t i = 0; i < r->pairs; i++) {
            REAL *x = k + (r->layout == lspan_rope_layout_halves ? i : 2 * i);
            REAL *y = r->layout == lspan_rope_layout_halves ? x + r->pairs : x + 1;
            REAL c = (REAL)r->cosine[row + i], s = (REAL)r->sine[row + i], old = *x;
            *x = old * c - *y * s;
            *y = old * s + *y * c;
        }
    }
}

/* One query row over S keys: two passes, with the maximum subtracted. times [S] says how often the row counts a key;
 * scores [S] is scratch. */
static void NAME(attend_row)(
    const lspan_attention *a, int64_t keys, const int64_t *times, const REAL *q, const REAL *k, const REAL *v, REAL *scores,
    REAL *output, REAL *log_sum_exp)
{
    REAL maximum = -(REAL)INFINITY;
    for (int64_t j = 0; j < keys; j++) {
        if (times[j] == 0) continue;
        REAL s = 0;
        for (int64_t d = 0; d < a->head_dim; d++) s += q[d] * k[j * a->head_dim + d];
        s *= (REAL)a->scale;
        if (a->softcap > 0) s = (REAL)a->softcap * MATH(tanh)(s / (REAL)a->softcap);
        scores[j] = s;
        if (s > maximum || isnan(s)) maximum = s;
    }
    for (int64_t d = 0; d < a->head_dim; d++) output[d] = 0;
    *log_sum_exp = -(REAL)INFINITY;
    if (isinf(maximum) && maximum < 0) return;

    REAL sum = 0;
    for (int64_t j = 0; j < keys; j++) {
        if (times[j] == 0) continue;
        REAL p = (REAL)times[j] * MATH(exp)(scores[j] - maximum);
        sum += p;
        for (int64_t d = 0; d < a->head_dim; d++) output[d] += p * v[j * a->head_dim + d];
    }
    for (int64_t d = 0; d < a->head_dim; d++) output[d] /= sum;
    *log_sum_exp = maximum + MATH(log)(sum);
}

void NAME(attention_over)(const lspan_attention *a, const lspan_reference_keys *chosen, REAL *output, REAL *log_sum_exp)
{
    int64_t group = a->query_heads / a->kv_heads;
    for (int64_t b = 0; b < a->sequences; b++) {
        int64_t query0 = a->query_indptr[b], tokens = a->query_indptr[b + 1] - query0;
        int64_t key0 = a->kv_indptr[b], slots = a->kv_indptr[b + 1] - key0;
        REAL *scores = malloc((size_t)(slots + 1) * sizeof(REAL));
        int64_t *times = malloc((size_t)(slots + 1) * sizeof *times);
        if (!scores || !times) abort();
        for (int64_t g = 0; g < a->kv_heads; g++) {
            int64_t keys = a->kv_lengths ? a->kv_lengths[b * a->kv_heads + g] : slots;
            REAL *k = NAME(copy_head)(a->keys, key0, keys, g, a->head_dim);
            REAL *v = NAME(copy_head)(a->values, key0, keys, g, a->head_dim);
            if (a->key_rotation) NAME(rotate_keys)(a->key_rotation, key0, keys, a->head_dim, k);
            for (int64_t h = g * group; h < (g + 1) * group; h++) {
                REAL *q = NAME(copy_head)(a->queries, query0, tokens, h, a->head_dim);
                for (int64_t i = 0; i < tokens; i++) {
                    int64_t at = (query0 + i) * a->query_heads + h;
                    for (int64_t j = 0; j < keys; j++) {
                        times[j] = sees(a, i, j, tokens, keys) ? 1 : 0;
                        if (chosen) times[j] *= chosen->times(chosen->user, b, i, g, j);
                    }
                    NAME(attend_row)(
                        a, keys, times, q + i * a->head_dim, k, v, scores, output + at * a->head_dim, log_sum_exp + at);
                }
                free(q);
            }
            free(k);
            free(v);
        }
        free(scores);
        free(times);
    }
}

void NAME(attention)(const lspan_attention *a, REAL *output, REAL *log_sum_exp)
{
    NAME(attention_over)(a, NULL, output, log_sum_exp);
}

void NAME(attention_merge)(
    int64_t parts, int64_t rows, int64_t head_dim, const float *outputs, const float *log_sum_exps, REAL *output,
    REAL *log_sum_exp)
{
    for (int64_t r = 0; r < rows; r++) {
        REAL maximum = -(REAL)INFINITY;
        for (int64_t p = 0; p < parts; p++) {
            REAL x = (REAL)log_sum_exps[p * rows + r];
            if (x > maximum || isnan(x)) maximum = x;
        }
        for (int64_t d = 0; d < head_dim; d++) output[r * head_dim + d] = 0;
        log_sum_exp[r] = -(REAL)INFINITY;
        if (isinf(maximum) && maximum < 0) continue;
        REAL sum = 0;
        for (int64_t p = 0; p < parts; p++) {
            REAL weight = MATH(exp)((REAL)log_sum_exps[p * rows + r] - maximum);
            sum += weight;
            for (int64_t d = 0; d < head_dim; d++) {
                output[r * head_dim + d] += weight * (REAL)outputs[(p * rows + r) * head_dim + d];
            }
        }
        for (int64_t d = 0; d < head_dim; d++) output[r * head_dim + d] /= sum;
        log_sum_exp[r] = maximum + MATH(log)(sum);
    }
}

#undef REAL
#undef NAME
#undef MATH
