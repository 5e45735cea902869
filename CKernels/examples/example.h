/* example.h: a call of attention decode with random contents, and what its output must be. The programs beside it are
 * about how the call is run. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <longspan/longspan.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXAMPLE_HEADS 6
#define EXAMPLE_KV_HEADS 2
#define EXAMPLE_DIM 32

typedef struct example {
    lspan_attention attention;
    int64_t query_rows[2], key_rows[2];
    float *queries; /* [EXAMPLE_HEADS, EXAMPLE_DIM] */
    float *keys;    /* [tokens, EXAMPLE_KV_HEADS, EXAMPLE_DIM] */
    float *values;  /* as the keys */
    float *output;  /* as the queries */
} example;

/* Prints what failed, if it did. */
static inline int example_failed(const char *call, lspan_status status)
{
    if (status == lspan_status_ok) return 0;
    fprintf(stderr, "%s: %s (%s)\n", call, lspan_status_description(status), lspan_status_name(status));
    return 1;
}

/* `count` numbers from -1 to 1. */
static inline float *example_random(size_t count, uint32_t seed)
{
    float *numbers = (float *)malloc(count * sizeof *numbers);
    if (!numbers) {
        fprintf(stderr, "out of memory for %zu numbers\n", count);
        exit(1);
    }
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        numbers[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    return numbers;
}

/* One query token over `tokens` cached ones. The example must stay where it is: its call points into it. */
static inline void example_make(example *e, int64_t tokens, uint32_t seed)
{
    const size_t rows = (size_t)tokens * EXAMPLE_KV_HEADS * EXAMPLE_DIM;
    memset(e, 0, sizeof *e);
    e->queries = example_random(EXAMPLE_HEADS * EXAMPLE_DIM, seed);
    e->keys = example_random(rows, seed + 1);
    e->values = example_random(rows, seed + 2);
    e->output = example_random(EXAMPLE_HEADS * EXAMPLE_DIM, seed + 3);
    e->query_rows[1] = 1;
    e->key_rows[1] = tokens;
    lspan_attention *a = &e->attention;
    a->sequences = 1;
    a->query_heads = EXAMPLE_HEADS;
    a->kv_heads = EXAMPLE_KV_HEADS;
    a->head_dim = EXAMPLE_DIM;
    a->query_indptr = e->query_rows;
    a->kv_indptr = e->key_rows;
    a->queries.data = e->queries;
    a->queries.dtype = lspan_dtype_f32;
    a->queries.token_stride = EXAMPLE_HEADS * EXAMPLE_DIM;
    a->queries.head_stride = EXAMPLE_DIM;
    a->keys.data = e->keys;
    a->keys.dtype = lspan_dtype_f32;
    a->keys.token_stride = EXAMPLE_KV_HEADS * EXAMPLE_DIM;
    a->keys.head_stride = EXAMPLE_DIM;
    a->values = a->keys;
    a->values.data = e->values;
    a->output = e->output;
    a->output_token_stride = EXAMPLE_HEADS * EXAMPLE_DIM;
    a->output_head_stride = EXAMPLE_DIM;
    a->scale = 1.0f / sqrtf((float)EXAMPLE_DIM);
    a->causal = 1;
}

static inline void example_free(example *e)
{
    free(e->queries);
    free(e->keys);
    free(e->values);
    free(e->output);
}

/* Runs the call once, with memory of its own for scratch: 0 if that went well. An engine keeps that memory. */
static inline int example_run(const example *e, const lspan_context *context)
{
    size_t bytes = 0;
    if (example_failed("workspace size", lspan_attention_decode_workspace_size(context, &e->attention, &bytes))) return 1;
    char *memory = (char *)malloc(bytes + LSPAN_WORKSPACE_ALIGNMENT);
    if (!memory) return 1;
    char *workspace = memory + LSPAN_WORKSPACE_ALIGNMENT - (uintptr_t)memory % LSPAN_WORKSPACE_ALIGNMENT;
    int failed =
        example_failed("lspan_attention_decode", lspan_attention_decode(context, &e->attention, workspace, bytes));
    free(memory);
    return failed;
}

/* The largest difference of the output from softmax(scale q k^T) v in double precision. */
static inline double example_error(const example *e)
{
    const int64_t tokens = e->key_rows[1];
    double worst = 0;
    for (int64_t h = 0; h < EXAMPLE_HEADS; h++) {
        const float *query = e->queries + h * EXAMPLE_DIM;
        const int64_t first = h / (EXAMPLE_HEADS / EXAMPLE_KV_HEADS) * EXAMPLE_DIM;
        double sum = 0, output[EXAMPLE_DIM] = {0};
        for (int64_t t = 0; t < tokens; t++) {
            const int64_t row = t * EXAMPLE_KV_HEADS * EXAMPLE_DIM + first;
            double score = 0;
            for (int d = 0; d < EXAMPLE_DIM; d++) score += (double)query[d] * (double)e->keys[row + d];
            /* scores are small here: at most the scale times EXAMPLE_DIM */
            const double weight = exp(score * (double)e->attention.scale);
            sum += weight;
            for (int d = 0; d < EXAMPLE_DIM; d++) output[d] += weight * (double)e->values[row + d];
        }
        for (int d = 0; d < EXAMPLE_DIM; d++) {
            worst = fmax(worst, fabs(output[d] / sum - (double)e->output[h * EXAMPLE_DIM + d]));
        }
    }
    return worst;
}

#endif
