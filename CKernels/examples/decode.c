/* decode.c: the shortest whole program: one token's attention over a cache of bf16 keys and values.
 *
 * Keys are the unit vectors, so the softmax of the scores is known, and with it what the output must be. */
#include <longspan/longspan.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 64
#define DIM 64

static uint16_t bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static int failed(const char *call, lspan_status status)
{
    if (status == lspan_status_ok) return 0;
    fprintf(stderr, "%s: %s (%s)\n", call, lspan_status_description(status), lspan_status_name(status));
    return 1;
}

int main(void)
{
    static uint16_t keys[KEYS][DIM], values[KEYS][DIM];
    static float query[DIM], output[DIM];
    const int64_t query_rows[] = {0, 1}, key_rows[] = {0, KEYS};
    lspan_attention attention;
    lspan_context *context;
    void *memory, *workspace;
    size_t bytes;
    double sum = 0, worst = 0;
    int i, wrong;

    for (i = 0; i < DIM; i++) {
        keys[i][i] = bf16(1.0f);
        values[i][i] = bf16(1.0f);
        query[i] = (float)i / DIM;
        sum += exp((double)query[i]);
    }

    memset(&attention, 0, sizeof attention);
    attention.sequences = attention.query_heads = attention.kv_heads = 1;
    attention.head_dim = DIM;
    attention.query_indptr = query_rows;
    attention.kv_indptr = key_rows;
    attention.queries.data = query;
    attention.queries.token_stride = attention.queries.head_stride = DIM;
    attention.keys.data = keys;
    attention.keys.dtype = lspan_dtype_bf16;
    attention.keys.token_stride = attention.keys.head_stride = DIM;
    attention.values = attention.keys;
    attention.values.data = values;
    attention.output = output;
    attention.output_token_stride = attention.output_head_stride = DIM;
    attention.scale = 1.0f;
    attention.causal = 1;

    if (failed("lspan_context_create", lspan_context_create(NULL, &context))) return 1;
    if (failed("workspace size", lspan_attention_decode_workspace_size(context, &attention, &bytes))) return 1;
    memory = malloc(bytes + LSPAN_WORKSPACE_ALIGNMENT);
    if (!memory) return 1;
    workspace = (char *)memory + LSPAN_WORKSPACE_ALIGNMENT - (uintptr_t)memory % LSPAN_WORKSPACE_ALIGNMENT;
    wrong = failed("lspan_attention_decode", lspan_attention_decode(context, &attention, workspace, bytes));
    for (i = 0; i < DIM; i++) worst = fmax(worst, fabs(output[i] - exp((double)query[i]) / sum));
    printf("longspan %s, %s: largest difference %.1e\n", lspan_version(), lspan_context_isa(context), worst);
    lspan_context_destroy(context);
    free(memory);
    return wrong || !(worst < 1e-6);
}
