/* kv_body.h: lag-relative scores and shifted keys in the precision that precision_*.h chose. */
#define REAL LSPAN_REFERENCE_REAL
#define NAME LSPAN_REFERENCE_NAME
#define MATH LSPAN_REFERENCE_MATH

static REAL NAME(channel)(lspan_heads view, int64_t token, int64_t head, int64_t d)
{
    int64_t index = token * view.token_stride + head * view.head_stride + d;
    return (REAL)lspan_reference_element(view.data, view.dtype, index);
}

/* Lowest and highest value of each channel in the window that begins at token first. */
static void NAME(ranges)(
    const lspan_lag_scores *c, lspan_heads view, int64_t head, int64_t first, REAL *low, REAL *high)
{
    for (int64_t d = 0; d < c->head_dim; d++) {
        low[d] = high[d] = NAME(channel)(view, first, head, d);
        for (int64_t t = first; t < first + c->window; t++) {
            REAL x = NAME(channel)(view, t, head, d);
            if (x < low[d]) low[d] = x;
            if (x > high[d]) high[d] = x;
        }
    }
}

/* Standard deviation over the normalized channels of token t. */
static REAL NAME(deviation)(
    const lspan_lag_scores *c, lspan_heads view, int64_t head, int64_t t, const REAL *low, const REAL *high)
{
    REAL *normalized = calloc((size_t)c->head_dim, sizeof *normalized), sum = 0, squares = 0;
    int64_t count = 0;
    if (!normalized) abort();
    for (int64_t d = 0; d < c->head_dim; d++) {
        /* subtracted in f32, as kv.h asks: which channels take part does not depend on the precision */
        if ((float)high[d] - (float)low[d] < FLT_MIN) continue;
        normalized[count++] = (NAME(channel)(view, t, head, d) - low[d]) / (high[d] - low[d]);
    }
    for (int64_t i = 0; i < count; i++) sum += normalized[i];
    for (int64_t i = 0; i < count; i++) {
        REAL x = normalized[i] - sum / (REAL)count;
        squares += x * x;
    }
    free(normalized);
    return count < 2 ? 0 : MATH(sqrt)(squares / (REAL)(count - 1));
}

/* Adds weight times the window's softmax to scores. */
static void NAME(add_shares)(
    const lspan_lag_scores *c, lspan_heads view, int64_t head, int64_t first, REAL weight, REAL *scores)
{
    REAL *sigma = calloc((size_t)(c->window + 2 * c->head_dim), sizeof *sigma), largest = 0, sum = 0;
    if (!sigma) abort();
    REAL *low = sigma + c->window, *high = low + c->head_dim;
    NAME(ranges)(c, view, head, first + c->window, low, high);
    for (int64_t t = 0; t < c->window; t++) {
        sigma[t] = NAME(deviation)(c, view, head, first + t, low, high);
        if (sigma[t] > largest) largest = sigma[t];
    }
    for (int64_t t = 0; t < c->window; t++) sum += MATH(exp)(sigma[t] - largest);
    for (int64_t t = 0; t < c->window; t++) scores[t] += weight * (MATH(exp)(sigma[t] - largest) / sum);
    free(sigma);
}

void NAME(lag_scores)(const lspan_lag_scores *c, REAL *scores)
{
    int64_t tokens = c->windows * c->window;
    for (int64_t h = 0; h < c->heads; h++) {
        for (int64_t t = 0; t < tokens; t++) scores[h * tokens + t] = 0;
        for (int64_t first = 0; first < tokens; first += c->window) {
            NAME(add_shares)(c, c->keys, h, first, 1, scores + h * tokens + first);
            NAME(add_shares)(c, c->values, h, first, (REAL)c->value_weight, scores + h * tokens + first);
        }
    }
}

void NAME(rope_shift)(const lspan_rope_shifting *s, REAL *output)
{
    lspan_heads keys = {s->keys.data, s->keys.dtype, s->keys.token_stride, s->keys.head_stride};
    for (int64_t t = 0; t < s->tokens; t++) {
        for (int64_t h = 0; h < s->heads; h++) {
            REAL *out = output + (t * s->heads + h) * s->head_dim;
            int64_t entry = (s->shifts[h * s->shift_head_stride + t] - s->table_first) * s->pairs;
            for (int64_t d = 0; d < s->head_dim; d++) out[d] = NAME(channel)(keys, t, h, d);
            for (int64_t i = 0; i < s->pairs; i++) {
                int64_t first = s->layout == lspan_rope_layout_halves ? i : 2 * i;
                int64_t second = s->layout == lspan_rope_layout_halves ? i + s->pairs : 2 * i + 1;
                REAL cosine = (REAL)s->cosine[entry + i], sine = (REAL)s->sine[entry + i];
                REAL x = out[first], y = out[second];
                if (s->inverse) sine = -sine;
                out[first] = x * cosine - y * sine;
                out[second] = x * sine + y * cosine;
            }
        }
    }
}

#undef REAL
#undef NAME
#undef MATH
