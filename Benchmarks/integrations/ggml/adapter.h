/* adapter.h: what the operators share. */
#ifndef LSPAN_GGML_ADAPTER_H
#define LSPAN_GGML_ADAPTER_H

#include "gang.h"
#include "lspan_ggml.h"

/* What an operator needs when it runs; the first member of the record of each kind. */
typedef struct adapter_op {
    struct adapter_op *next;
    lspan_ggml *adapter;
    /* Runs on thread 0. Operands are dst->src, in the order of adapter_node. */
    lspan_status (*run)(const struct adapter_op *op, const struct ggml_tensor *dst);
} adapter_op;

struct lspan_ggml {
    gang gang;
    lspan_context *context;
    void *workspace;
    size_t workspace_bytes;
    adapter_op *ops;
    lspan_status status;
    char refusal[160];
};

/* Says why a builder refuses; returns NULL for it to return. */
void *adapter_refuse(lspan_ggml *adapter, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* NULL if `status` is ok, else a refusal that names `what`. Returns whether to go on. */
bool adapter_accepts(lspan_ggml *adapter, lspan_status status, const char *what);

/* A zeroed record of `bytes`, which the adapter owns; NULL after a refusal. */
void *adapter_new_op(
    lspan_ggml *adapter, size_t bytes, lspan_status (*run)(const adapter_op *op, const struct ggml_tensor *dst));

/* Has the workspace hold at least so much; false after a refusal. */
bool adapter_reserve(lspan_ggml *adapter, size_t bytes);

/* The node of a record. */
struct ggml_tensor *adapter_node(
    struct ggml_context *ctx, adapter_op *op, const int64_t ne[4], struct ggml_tensor **operands, int count);

/* f32, f16 and bf16; false for another type. */
bool adapter_dtype(enum ggml_type type, lspan_dtype *dtype);

/* Of dimension i, in elements. */
static inline int64_t adapter_stride(const struct ggml_tensor *tensor, int i)
{
    return (int64_t)(tensor->nb[i] / tensor->nb[0]);
}

/* Whether rows are contiguous and every stride is a whole number of elements. */
bool adapter_strided(const struct ggml_tensor *tensor);

#endif
