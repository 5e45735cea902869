/* attention_support.h: attention calls made from a short description, and their comparison with the reference. */
#ifndef LSPAN_TEST_ATTENTION_SUPPORT_H
#define LSPAN_TEST_ATTENTION_SUPPORT_H

#include "support.h"

#define ATTENTION_MAX_SEQUENCES 6

typedef enum attention_special {
    attention_special_none,
    attention_special_query_infinity, /* some queries hold minus infinity against positive keys: every logit -inf */
    attention_special_key_infinity,   /* some keys hold minus infinity against positive queries */
    attention_special_nan             /* a NaN in one query, one key and one value element */
} attention_special;

typedef struct attention_spec {
    int64_t sequences;
    int64_t tokens[ATTENTION_MAX_SEQUENCES];
    int64_t keys[ATTENTION_MAX_SEQUENCES];
    int64_t kv_heads;
    int64_t group;
    int64_t head_dim;
    lspan_dtype query_dtype;
    lspan_dtype kv_dtype;
    test_layout query_layout;
    test_layout kv_layout;
    test_layout output_layout;
    int causal;
    int64_t window;
    int64_t sinks;
    float softcap;
    float spread; /* standard deviation of the logits, about */
    int want_log_sum_exp;
    attention_special special;
    int own_lengths; /* each head has a number of keys of its own */
    int rotation;    /* 0 for none; 1 by slot, 2 by random positions; 3 and 4 the same interleaved */
    int64_t pairs;   /* of the rotation; 0 for all */
} attention_spec;

/* More than any position of a rotation, and than any slot of a test that has none. */
#define ATTENTION_POSITIONS 4096

typedef struct attention_case {
    attention_spec spec;
    int64_t query_indptr[ATTENTION_MAX_SEQUENCES + 1];
    int64_t kv_indptr[ATTENTION_MAX_SEQUENCES + 1];
    test_tensor queries, keys, values;
    test_buffer kv_lengths, cosine, sine, positions;
    lspan_key_rotation rotation;
    int64_t rows; /* sum T * Hq */
    double *want, *want_log_sum_exp;
    float *simple, *simple_log_sum_exp;
} attention_case;

typedef enum attention_kernel { attention_kernel_prefill, attention_kernel_decode } attention_kernel;

static inline void attention_describe(const attention_spec *s)
{
    char lengths[256] = "";
    size_t used = 0;
    for (int64_t b = 0; b < s->sequences && used < sizeof lengths; b++) {
        int n = snprintf(
            lengths + used, sizeof lengths - used, " T%lldxS%lld", (long long)s->tokens[b], (long long)s->keys[b]);
        used += n > 0 ? (size_t)n : 0;
    }
    test_case(
        "B%lld%s Hk%lld G%lld D%lld q%d kv%d layouts %d%d%d causal%d window%lld sinks%lld softcap%g spread%g lse%d "
        "special%d lengths%d rotation%d",
        (long long)s->sequences, lengths, (long long)s->kv_heads, (long long)s->group, (long long)s->head_dim,
        (int)s->query_dtype, (int)s->kv_dtype, (int)s->query_layout, (int)s->kv_layout, (int)s->output_layout,
        s->causal, (long long)s->window, (long long)s->sinks, (double)s->softcap, (double)s->spread,
        s->want_log_sum_exp, (int)s->special, s->own_lengths, s->rotation);
}

static inline void attention_make_special(attention_case *c)
{
    test_tensor *q = &c->queries, *k = &c->keys;
    int64_t last = c->spec.head_dim - 1;
    if (q->tokens == 0 || k->tokens == 0 || c->spec.special == attention_special_none) return;
    if (c->spec.special == attention_special_nan) {
        /* The key is one that earlier causal rows do not see, and must not feel. Values stay finite: attention.h
         * lets one that is not reach rows of the same call. */
        test_set(q, test_random_int(0, q->tokens - 1), test_random_int(0, q->heads - 1), last, NAN);
        test_set(k, k->tokens - 1 - k->tokens / 7, test_random_int(0, k->heads - 1), 0, NAN);
        return;
    }
    int in_query = c->spec.special == attention_special_query_infinity;
    for (int64_t t = 0; t < q->tokens; t++) {
        for (int64_t h = 0; h < q->heads; h++) {
            float x = fabsf(test_get(q, t, h, 0)) + 0.125f;
            test_set(q, t, h, 0, in_query && test_one_in(2) ? -INFINITY : x);
        }
    }
    for (int64_t t = 0; t < k->tokens; t++) {
        for (int64_t h = 0; h < k->heads; h++) {
            float x = fabsf(test_get(k, t, h, 0)) + 0.125f;
            test_set(k, t, h, 0, !in_query && test_one_in(2) ? -INFINITY : x);
        }
    }
}

static inline void attention_make_lengths(attention_case *c)
{
    const attention_spec *s = &c->spec;
    c->kv_lengths = test_allocate((size_t)(s->sequences * s->kv_heads) * sizeof(int64_t), sizeof(int64_t));
    int64_t *lengths = c->kv_lengths.data;
    for (int64_t i = 0; i < s->sequences * s->kv_heads; i++) {
        int64_t slots = s->keys[i / s->kv_heads];
        lengths[i] = test_one_in(4) ? slots : test_random_int(test_one_in(2) ? slots / 2 : 0, slots);
    }
}

static inline void attention_make_rotation(attention_case *c)
{
    const attention_spec *s = &c->spec;
    lspan_key_rotation *r = &c->rotation;
    int64_t keys = c->kv_indptr[s->sequences], longest = 0;
    for (int64_t b = 0; b < s->sequences; b++) longest = s->keys[b] > longest ? s->keys[b] : longest;
    r->layout = s->rotation > 2 ? lspan_rope_layout_interleaved : lspan_rope_layout_halves;
    r->pairs = s->pairs > 0 ? s->pairs : s->head_dim / 2;
    r->rows = s->rotation % 2 == 1 ? longest : ATTENTION_POSITIONS;
    c->cosine = test_allocate((size_t)(r->rows * r->pairs) * sizeof(float), sizeof(float));
    c->sine = test_allocate((size_t)(r->rows * r->pairs) * sizeof(float), sizeof(float));
    for (int64_t i = 0; i < r->rows * r->pairs; i++) {
        double angle = (double)(i / r->pairs) * pow(10000, -(double)(i % r->pairs) / (double)r->pairs);
        ((float *)c->cosine.data)[i] = (float)cos(angle);
        ((float *)c->sine.data)[i] = (float)sin(angle);
    }
    r->cosine = c->cosine.data;
    r->sine = c->sine.data;
    if (s->rotation % 2 == 1) return;
    c->positions = test_allocate((size_t)keys * sizeof(int32_t), sizeof(int32_t));
    r->positions = c->positions.data;
    for (int64_t j = 0; j < keys; j++) ((int32_t *)c->positions.data)[j] = (int32_t)test_random_int(0, r->rows - 1);
}

static inline attention_case attention_make(const attention_spec *spec)
{
    attention_case c = {.spec = *spec};
    attention_describe(spec);
    for (int64_t b = 0; b < spec->sequences; b++) {
        c.query_indptr[b + 1] = c.query_indptr[b] + spec->tokens[b];
        c.kv_indptr[b + 1] = c.kv_indptr[b] + spec->keys[b];
    }
    int64_t tokens = c.query_indptr[spec->sequences], keys = c.kv_indptr[spec->sequences];
    int64_t query_heads = spec->kv_heads * spec->group;
    c.rows = tokens * query_heads;
    /* q . k of standard normal vectors has deviation sqrt(D), which the scale takes out */
    c.queries = test_tensor_random(
        spec->query_dtype, tokens, query_heads, spec->head_dim, spec->query_layout, sqrtf(spec->spread));
    c.keys = test_tensor_random(
        spec->kv_dtype, keys, spec->kv_heads, spec->head_dim, spec->kv_layout, sqrtf(spec->spread));
    c.values = test_tensor_random(spec->kv_dtype, keys, spec->kv_heads, spec->head_dim, spec->kv_layout, 1.0f);
    attention_make_special(&c);
    if (spec->own_lengths) attention_make_lengths(&c);
    if (spec->rotation) attention_make_rotation(&c);
    c.want = test_malloc(c.rows * spec->head_dim, sizeof *c.want);
    c.want_log_sum_exp = test_malloc(c.rows, sizeof *c.want_log_sum_exp);
    c.simple = test_malloc(c.rows * spec->head_dim, sizeof *c.simple);
    c.simple_log_sum_exp = test_malloc(c.rows, sizeof *c.simple_log_sum_exp);
    return c;
}

/* A valid causal call of `sequences` sequences with all its outputs, for tests that then change something. */
static inline lspan_attention attention_valid_call(
    int64_t sequences, const int64_t *query_indptr, const int64_t *kv_indptr, const test_tensor *queries,
    const test_tensor *keys, const test_tensor *values, const test_tensor *output, float *log_sum_exp)
{
    lspan_attention a = {0};
    a.sequences = sequences;
    a.query_heads = queries->heads;
    a.kv_heads = keys->heads;
    a.head_dim = keys->columns;
    a.query_indptr = query_indptr;
    a.kv_indptr = kv_indptr;
    a.queries = test_heads(queries);
    a.keys = test_heads(keys);
    a.values = test_heads(values);
    a.output = output->buffer.data;
    a.output_token_stride = output->token_stride;
    a.output_head_stride = output->head_stride;
    a.log_sum_exp = log_sum_exp;
    a.scale = 0.25f;
    a.causal = 1;
    return a;
}

/* The call without its outputs; it points into the case, which must not move afterwards. */
static inline lspan_attention attention_call(const attention_case *c)
{
    const attention_spec *s = &c->spec;
    lspan_attention a = {0};
    a.sequences = s->sequences;
    a.query_heads = s->kv_heads * s->group;
    a.kv_heads = s->kv_heads;
    a.head_dim = s->head_dim;
    a.query_indptr = c->query_indptr;
    a.kv_indptr = c->kv_indptr;
    a.queries = test_heads(&c->queries);
    a.keys = test_heads(&c->keys);
    a.values = test_heads(&c->values);
    a.scale = 1.0f / sqrtf((float)s->head_dim);
    a.softcap = s->softcap;
    a.causal = s->causal;
    a.window = s->window;
    a.sinks = s->sinks;
    a.kv_lengths = s->own_lengths ? c->kv_lengths.data : NULL;
    a.key_rotation = s->rotation ? &c->rotation : NULL;
    return a;
}

static inline void attention_refer_over(attention_case *c, const lspan_reference_keys *chosen)
{
    lspan_attention a = attention_call(c);
    lspan_reference_attention_over_f64(&a, chosen, c->want, c->want_log_sum_exp);
    lspan_reference_attention_over_f32(&a, chosen, c->simple, c->simple_log_sum_exp);
}

static inline void attention_refer(attention_case *c)
{
    attention_refer_over(c, NULL);
}

static inline void attention_release(attention_case *c)
{
    test_tensor_release(&c->queries);
    test_tensor_release(&c->keys);
    test_tensor_release(&c->values);
    if (c->spec.own_lengths) test_release(&c->kv_lengths);
    if (c->spec.rotation) {
        test_release(&c->cosine);
        test_release(&c->sine);
        if (c->rotation.positions) test_release(&c->positions);
    }
    free(c->want);
    free(c->want_log_sum_exp);
    free(c->simple);
    free(c->simple_log_sum_exp);
}

static inline lspan_status attention_run(
    attention_kernel kernel, const lspan_context *context, const lspan_attention *call)
{
    size_t bytes = 0;
    lspan_status status = kernel == attention_kernel_prefill
        ? lspan_attention_prefill_workspace_size(context, call, &bytes)
        : lspan_attention_decode_workspace_size(context, call, &bytes);
    if (status != lspan_status_ok) return status;
    test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    status = kernel == attention_kernel_prefill ? lspan_attention_prefill(context, call, workspace.data, bytes)
                                                : lspan_attention_decode(context, call, workspace.data, bytes);
    test_release(&workspace);
    return status;
}

/* The floors. A dot product of D terms collects D roundings at the size of its partial sums, a random walk whose
 * standard deviation is about 0.4 sqrt(D) 2^-24 times the logits' own deviation; a shape with few rows may have a
 * straightforward version that was lucky, so five deviations of one logit are always granted. A logit that is off
 * by e moves an output by at most e/2 times the distance of two values. Four roundings of the result come on top, or
 * those of the sum over the keys that a query sees, another random walk, where it is longer. */
static inline double attention_sum_roundings(const attention_spec *s)
{
    int64_t most = 0;
    for (int64_t i = 0; i < s->sequences; i++) {
        int64_t seen = s->keys[i];
        if (s->window > 0 && s->window < seen && s->sinks < seen - s->window) seen = s->window + s->sinks;
        if (seen > most) most = seen;
    }
    return fmax(4, 0.4 * sqrt((double)most));
}

/* Prefill in bf16 throughout, on CPUs with bf16 dot products, rounds each probability to bf16: at most 2^-8 of it, so
 * an output moves by at most 2^-8 of the largest value. */
static inline double attention_rounding(const attention_case *c, attention_kernel kernel, const char *context)
{
    int narrow = kernel == attention_kernel_prefill && strstr(context, "bf16") &&
        c->spec.query_dtype == lspan_dtype_bf16 && c->spec.kv_dtype == lspan_dtype_bf16 && !c->spec.rotation;
    if (!narrow) return 0;
    double largest = 0;
    for (int64_t t = 0; t < c->values.tokens; t++) {
        for (int64_t h = 0; h < c->values.heads; h++) {
            for (int64_t d = 0; d < c->spec.head_dim; d++) {
                largest = fmax(largest, fabs((double)test_get(&c->values, t, h, d)));
            }
        }
    }
    return ldexp(largest, -8);
}

static inline void attention_compare(
    const attention_case *c, double rounding, const char *kernel, const char *kernel_log_sum_exp, const char *context,
    const test_tensor *output, const float *log_sum_exp)
{
    double epsilon = test_epsilon(lspan_dtype_f32);
    double logit = 2 * sqrt((double)c->spec.head_dim) * (double)c->spec.spread;
    double largest = test_largest(c->want, c->rows * c->spec.head_dim);
    double largest_log_sum_exp = fmax(1, test_largest(c->want_log_sum_exp, c->rows));
    float *got = test_gather(output);
    test_check_errors(
        kernel, context, lspan_dtype_f32, got, c->want, c->simple, c->rows * c->spec.head_dim,
        epsilon * largest * (attention_sum_roundings(&c->spec) + logit / 2) + rounding);
    free(got);
    test_check_gaps(output);
    if (!log_sum_exp) return;
    test_check_errors(
        kernel_log_sum_exp, context, lspan_dtype_f32, log_sum_exp, c->want_log_sum_exp, c->simple_log_sum_exp, c->rows,
        epsilon * (4 * largest_log_sum_exp + logit));
}

/* A row that sees nothing is exactly zero and minus infinity, whatever the tolerance. */
static inline void attention_check_empty_rows(
    const attention_case *c, const test_tensor *output, const float *log_sum_exp)
{
    int64_t heads = output->heads;
    for (int64_t r = 0; r < c->rows; r++) {
        if (!(isinf(c->want_log_sum_exp[r]) && c->want_log_sum_exp[r] < 0)) continue;
        int zero = 1;
        for (int64_t d = 0; d < c->spec.head_dim; d++) zero = zero && test_get(output, r / heads, r % heads, d) == 0;
        if (!CHECK_MESSAGE(zero, "row %lld sees nothing but is not zero", (long long)r)) return;
        if (log_sum_exp && !CHECK(isinf(log_sum_exp[r]) && log_sum_exp[r] < 0)) return;
    }
}

/* A call whose outputs are set, by kernel or by another function that `user` is for. */
typedef lspan_status (*attention_runner)(const void *user, const lspan_context *context, const lspan_attention *call);

static inline void attention_check_run(
    const attention_case *c, const test_context *context, attention_runner run, const void *user, double rounding,
    const char *name, const char *name_log_sum_exp)
{
    const attention_spec *s = &c->spec;
    int64_t tokens = c->query_indptr[s->sequences];
    test_tensor output =
        test_tensor_make(lspan_dtype_f32, tokens, s->kv_heads * s->group, s->head_dim, s->output_layout);
    test_buffer log_sum_exp = test_allocate((size_t)c->rows * sizeof(float), sizeof(float));
    lspan_attention a = attention_call(c);
    a.output = output.buffer.data;
    a.output_token_stride = output.token_stride;
    a.output_head_stride = output.head_stride;
    a.log_sum_exp = s->want_log_sum_exp ? log_sum_exp.data : NULL;
    if (CHECK_OK(run(user, context->context, &a))) {
        attention_compare(c, rounding, name, name_log_sum_exp, context->name, &output, a.log_sum_exp);
        attention_check_empty_rows(c, &output, a.log_sum_exp);
    }
    test_tensor_release(&output);
    test_release(&log_sum_exp);
}

static inline lspan_status attention_run_kernel(
    const void *kernel, const lspan_context *context, const lspan_attention *call)
{
    return attention_run(*(const attention_kernel *)kernel, context, call);
}

static inline void attention_check(const attention_case *c, attention_kernel kernel, const test_context *context)
{
    int prefill = kernel == attention_kernel_prefill;
    attention_check_run(
        c, context, attention_run_kernel, &kernel, attention_rounding(c, kernel, context->name),
        prefill ? "prefill" : "decode", prefill ? "prefill lse" : "decode lse");
}

/* One shape under every variant; with all thread counts, or with one drawn at random. */
static inline void attention_check_all(const attention_spec *spec, attention_kernel kernel, int every_team)
{
    if (!test_sampled()) return;
    attention_case c = attention_make(spec);
    attention_refer(&c);
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i += TEST_THREAD_COUNTS) {
        if (every_team) {
            for (size_t t = 0; t < TEST_THREAD_COUNTS; t++) attention_check(&c, kernel, &contexts[i + t]);
        } else {
            attention_check(&c, kernel, &contexts[i + (size_t)test_random_int(0, TEST_THREAD_COUNTS - 1)]);
        }
    }
    attention_release(&c);
}

/* f32 keys that turn as they are read give what lspan_rope on them and a call without rotation gives. */
static inline void attention_check_rope(const attention_spec *spec, attention_kernel kernel)
{
    attention_case c = attention_make(spec);
    attention_refer(&c);
    const lspan_key_rotation *r = &c.rotation;
    int64_t keys = c.keys.tokens;
    float *cosine = test_malloc(keys * r->pairs, sizeof *cosine), *sine = test_malloc(keys * r->pairs, sizeof *sine);
    for (int64_t b = 0; b < spec->sequences; b++) {
        for (int64_t j = c.kv_indptr[b]; j < c.kv_indptr[b + 1]; j++) {
            int64_t row = r->positions ? r->positions[j] : j - c.kv_indptr[b];
            memcpy(cosine + j * r->pairs, r->cosine + row * r->pairs, (size_t)r->pairs * sizeof *cosine);
            memcpy(sine + j * r->pairs, r->sine + row * r->pairs, (size_t)r->pairs * sizeof *sine);
        }
    }
    attention_case turned = c;
    turned.keys = test_tensor_copy(&c.keys);
    turned.spec.rotation = 0;
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i += TEST_THREAD_COUNTS) {
        test_tensor_release(&turned.keys);
        turned.keys = test_tensor_copy(&c.keys);
        CHECK_OK(lspan_rope(
            contexts[i].context, r->layout, keys, spec->kv_heads, spec->head_dim, r->pairs, cosine, sine,
            test_heads(&c.keys), test_heads_out(&turned.keys)));
        attention_check(&turned, kernel, &contexts[i]);
        attention_check(&c, kernel, &contexts[i]);
    }
    test_tensor_release(&turned.keys);
    free(cosine);
    free(sine);
    attention_release(&c);
}

/* A spec with everything but lengths drawn at random. */
static inline attention_spec attention_random_spec(void)
{
    static const int64_t dims[] = {8, 16, 24, 40, 64, 72, 80, 96, 128, 184, 256};
    static const int64_t groups[] = {1, 1, 2, 3, 4, 5, 8, 17};
    static const float spreads[] = {0.1f, 1.0f, 1.0f, 4.0f, 30.0f};
    attention_spec s = {0};
    s.sequences = test_one_in(3) ? test_random_int(0, ATTENTION_MAX_SEQUENCES) : 1;
    s.kv_heads = test_random_int(1, 3);
    s.group = groups[test_random_int(0, 7)];
    s.head_dim = dims[test_random_int(0, 10)];
    s.query_dtype = test_random_dtype();
    s.kv_dtype = test_random_dtype();
    s.query_layout = test_random_layout();
    s.kv_layout = test_random_layout();
    s.output_layout = test_random_layout();
    s.causal = test_one_in(2);
    s.window = test_one_in(2) ? 0 : test_random_int(1, test_one_in(2) ? 10 : 300);
    s.sinks = test_one_in(2) ? 0 : test_random_int(0, test_one_in(2) ? 5 : 200);
    if (test_one_in(40)) s.window = INT64_MAX;
    if (test_one_in(40)) s.sinks = INT64_MAX;
    s.softcap = test_one_in(3) ? (test_one_in(2) ? 30.0f : 2.5f) : 0.0f;
    s.spread = spreads[test_random_int(0, 4)];
    s.want_log_sum_exp = !test_one_in(4);
    s.special = test_one_in(6) ? (attention_special)test_random_int(1, 3) : attention_special_none;
    s.own_lengths = test_one_in(4);
    /* infinities and zeros of a rotation make NaN, in the reference and elsewhere, but not in the same elements */
    s.rotation = s.special == attention_special_none && test_one_in(4) ? (int)test_random_int(1, 4) : 0;
    s.pairs = test_one_in(2) ? 0 : test_random_int(1, s.head_dim / 2);
    return s;
}

/* Heads with numbers of keys of their own, and keys that turn as they are read, in every dtype and layout. */
static inline void attention_check_lengths_and_rotation(attention_kernel kernel)
{
    for (int i = 0; i < 24; i++) {
        attention_spec s = {.sequences = 2, .kv_heads = 3, .group = 2, .spread = 1, .want_log_sum_exp = 1};
        s.head_dim = i % 3 == 0 ? 128 : i % 3 == 1 ? 40 : 64;
        s.tokens[0] = kernel == attention_kernel_decode ? 1 + i % 8 : 51 + i;
        s.keys[0] = 40 + (kernel == attention_kernel_decode ? 67 : 23) * i;
        s.tokens[1] = 3;
        s.keys[1] = 70;
        s.causal = i % 2;
        s.window = i % 5 == 0 ? 50 : 0;
        s.sinks = 6;
        s.own_lengths = i % 4 != 0;
        s.rotation = i / 4 % 5;
        s.pairs = i % 7 == 0 ? 13 : 0;
        s.kv_dtype = (lspan_dtype)(i % 3);
        s.query_dtype = (lspan_dtype)(i / 3 % 3);
        s.kv_layout = s.output_layout = (test_layout)(i % test_layout_count);
        attention_check_all(&s, kernel, 1);
    }
}

/* Rotation at read is lspan_rope on f32 keys, then attention. */
static inline void attention_check_rotation_is_rope(attention_kernel kernel)
{
    for (int mode = 1; mode <= 4; mode++) {
        attention_spec s = {.sequences = 2, .kv_heads = 2, .group = 3, .head_dim = 80, .spread = 1, .want_log_sum_exp = 1};
        s.tokens[0] = 5;
        s.keys[0] = 333;
        s.tokens[1] = 2;
        s.keys[1] = 41;
        s.causal = 1;
        s.rotation = mode;
        s.pairs = mode % 2 ? 0 : 21;
        attention_check_rope(&s, kernel);
    }
}

#endif
