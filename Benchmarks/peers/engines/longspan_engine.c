/* longspan_engine.c: this library, served to run.py: its attention here, its state-space layers in longspan_ssm.c. */
#include "longspan_engine.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum row_kind { prefill, decode, sparse } row_kind;

typedef struct row {
    served base;
    row_kind kind;
    lspan_attention attention;
    lspan_sparse_attention sparse;
    int32_t *lists; /* [selections, Hk, entries], where the kind is sparse */
    int64_t *list_indptr;
    int64_t query_indptr[2], kv_indptr[2];
    size_t query_elements, kv_elements, element_bytes;
    long copies;
    char *queries, *keys, *values; /* the copies, one after the other */
    size_t query_stride, kv_stride; /* bytes from one copy to the next */
    float *output;
    void *workspace;
    size_t workspace_bytes;
} row;

lspan_context *context;

static const char *about(void)
{
    static char text[160];
    snprintf(text, sizeof text, "longspan %s, variant %s, %zu threads", lspan_version(), lspan_context_isa(context),
             lspan_context_workers(context));
    return text;
}

int parse_dtype(const char *name, lspan_dtype *dtype)
{
    static const char *names[] = {"f32", "f16", "bf16"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *dtype = (lspan_dtype)i;
            return 1;
        }
    }
    return 0;
}

static int parse_kind(const char *variant, row_kind *kind)
{
    static const char *names[] = {"prefill", "decode", "sparse"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(variant, names[i]) == 0) {
            *kind = (row_kind)i;
            return 1;
        }
    }
    return 0;
}

void convert(char *to, const float *from, size_t count, lspan_dtype dtype)
{
    if (dtype == lspan_dtype_f32) {
        memcpy(to, from, count * sizeof *from);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        if (dtype == lspan_dtype_bf16) {
            uint32_t word;
            memcpy(&word, from + i, sizeof word);
            bits = (uint16_t)(word >> 16);
        } else {
            _Float16 half = (_Float16)from[i];
            memcpy(&bits, &half, sizeof bits);
        }
        memcpy(to + 2 * i, &bits, sizeof bits);
    }
}

/* A sparse case has selections instead. */
static long operand_copies(const serve_case *c)
{
    return c->entries ? 1 : c->copies;
}

/* The copies of one operand; NULL if its file or the memory is missing. */
static char *load(const serve_case *c, const char *name, size_t count, size_t stride, lspan_dtype dtype)
{
    const float *from = serve_map(c, name, count * sizeof *from);
    if (!from) return NULL;
    long copies = operand_copies(c);
    char *to = serve_allocate(stride * (size_t)copies);
    if (to) {
        convert(to, from, count, dtype);
        for (long i = 1; i < copies; i++) memcpy(to + stride * (size_t)i, to, count * lspan_dtype_size(dtype));
    }
    serve_unmap(from, count * sizeof *from);
    return to;
}

/* The lists of all selections, and the row's call over the first; nothing where the case is dense. */
static const char *fill_lists(row *r, const serve_case *c)
{
    if (!c->entries) return NULL;
    size_t bytes = (size_t)(c->copies * c->kv_heads * c->entries) * sizeof *r->lists;
    const void *file = serve_map(c, "lists", bytes);
    r->lists = file ? malloc(bytes) : NULL;
    if (r->lists) memcpy(r->lists, file, bytes);
    serve_unmap(file, bytes);
    r->list_indptr = calloc((size_t)c->kv_heads + 1, sizeof *r->list_indptr);
    if (!r->lists || !r->list_indptr) return "no lists or no memory";
    for (long head = 0; head <= c->kv_heads; head++) r->list_indptr[head] = head * c->entries;
    r->sparse = (lspan_sparse_attention){
        .attention = r->attention, .block = c->block, .list_heads = c->kv_heads, .indptr = r->list_indptr,
        .indices = r->lists};
    return NULL;
}

static lspan_status find_workspace_size(row *r)
{
    switch (r->kind) {
    case prefill: return lspan_attention_prefill_workspace_size(context, &r->attention, &r->workspace_bytes);
    case decode: return lspan_attention_decode_workspace_size(context, &r->attention, &r->workspace_bytes);
    default: return lspan_sparse_decode_workspace_size(context, &r->sparse, &r->workspace_bytes);
    }
}

static void drop_row(served *base)
{
    row *r = (row *)base;
    serve_free(r->queries, r->query_stride * (size_t)r->copies);
    serve_free(r->keys, r->kv_stride * (size_t)r->copies);
    serve_free(r->values, r->kv_stride * (size_t)r->copies);
    serve_free(r->output, r->query_elements * sizeof *r->output);
    serve_free(r->workspace, r->workspace_bytes);
    free(r->lists);
    free(r->list_indptr);
    free(r);
}

static const char *fill(row *r, const serve_case *c)
{
    lspan_dtype dtype;
    if (!parse_dtype(c->dtype, &dtype)) return "unknown dtype";
    if (!parse_kind(c->variant, &r->kind) || (r->kind == sparse) != (c->entries != 0)) return "unknown variant";
    r->copies = operand_copies(c);
    r->query_elements = (size_t)(c->tokens * c->query_heads * c->head_dim);
    r->kv_elements = (size_t)(c->keys * c->kv_heads * c->head_dim);
    /* copies start on cache lines of their own */
    r->query_stride = (r->query_elements * lspan_dtype_size(dtype) + 63) / 64 * 64;
    r->kv_stride = (r->kv_elements * lspan_dtype_size(dtype) + 63) / 64 * 64;
    r->queries = load(c, "q", r->query_elements, r->query_stride, dtype);
    r->keys = load(c, "k", r->kv_elements, r->kv_stride, dtype);
    r->values = load(c, "v", r->kv_elements, r->kv_stride, dtype);
    r->output = serve_allocate(r->query_elements * sizeof *r->output);
    if (!r->queries || !r->keys || !r->values || !r->output) return "no operand files or no memory";
    r->query_indptr[1] = c->tokens;
    r->kv_indptr[1] = c->keys;
    int64_t dim = c->head_dim;
    r->attention = (lspan_attention){
        .sequences = 1, .query_heads = c->query_heads, .kv_heads = c->kv_heads, .head_dim = dim,
        .query_indptr = r->query_indptr, .kv_indptr = r->kv_indptr,
        .queries = {r->queries, dtype, c->query_heads * dim, dim},
        .keys = {r->keys, dtype, dim, c->keys * dim}, .values = {r->values, dtype, dim, c->keys * dim},
        .output = r->output, .output_token_stride = c->query_heads * dim, .output_head_stride = dim,
        .scale = 1.0f / sqrtf((float)dim), .causal = 1, .window = c->window};
    const char *failure = fill_lists(r, c);
    if (failure) return failure;
    lspan_status status = find_workspace_size(r);
    if (status != lspan_status_ok) return lspan_status_name(status);
    r->workspace = serve_allocate(r->workspace_bytes);
    return r->workspace ? NULL : "out of memory";
}

static lspan_status call_row(served *base, long copy)
{
    row *r = (row *)base;
    if (r->kind == sparse) {
        lspan_sparse_attention s = r->sparse;
        s.indices = r->lists + copy * r->list_indptr[s.list_heads];
        return lspan_sparse_decode(context, &s, r->workspace, r->workspace_bytes);
    }
    lspan_attention a = r->attention;
    a.queries.data = r->queries + r->query_stride * (size_t)copy;
    a.keys.data = r->keys + r->kv_stride * (size_t)copy;
    a.values.data = r->values + r->kv_stride * (size_t)copy;
    return (r->kind == decode ? lspan_attention_decode : lspan_attention_prefill)(
        context, &a, r->workspace, r->workspace_bytes);
}

static void row_output(served *base, float *values)
{
    row *r = (row *)base;
    memcpy(values, r->output, r->query_elements * sizeof *values);
}

static const char *prepare_attention(const serve_case *c, served **made)
{
    row *r = calloc(1, sizeof *r);
    if (!r) return "out of memory";
    r->base = (served){call_row, row_output, drop_row};
    const char *failure = fill(r, c);
    if (failure) drop_row(&r->base);
    else *made = &r->base;
    return failure;
}

static const char *prepare(const serve_case *c, void **memory)
{
    served *made = NULL;
    const char *failure = (c->state ? prepare_ssm : prepare_attention)(c, &made);
    *memory = made;
    return failure;
}

static const char *call(void *memory, long copy)
{
    served *made = memory;
    lspan_status status = made->call(made, copy);
    return status == lspan_status_ok ? NULL : lspan_status_name(status);
}

static const char *output(void *memory, float *values)
{
    served *made = memory;
    made->output(made, values);
    return NULL;
}

static void drop(void *memory)
{
    served *made = memory;
    made->drop(made);
}

int main(int argc, char **argv)
{
    lspan_context_options options = {.threads = argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : 0};
    lspan_status status = lspan_context_create(&options, &context);
    if (status != lspan_status_ok) {
        fprintf(stderr, "longspan-engine: %s\n", lspan_status_name(status));
        return 1;
    }
    serve_engine engine = {about, prepare, call, output, drop};
    int result = serve(&engine);
    lspan_context_destroy(context);
    return result;
}
