/* adapter.c: adapters, their memory, and how ggml calls an operator. */
#include "adapter.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(size_t bytes)
{
    size_t line = LSPAN_WORKSPACE_ALIGNMENT;
    return aligned_alloc(line, (bytes + line - 1) / line * line);
}

lspan_status lspan_ggml_create(int threads, lspan_ggml **adapter)
{
    if (!adapter) return lspan_status_null_pointer;
    if (threads < 1 || threads > 4096) return lspan_status_bad_value;
    lspan_ggml *made = allocate(sizeof *made);
    if (!made) return lspan_status_out_of_memory;
    memset(made, 0, sizeof *made);
    made->gang.workers = (size_t)threads;
    made->gang.members = allocate(made->gang.workers * sizeof *made->gang.members);
    lspan_status status = lspan_status_out_of_memory;
    if (made->gang.members) {
        memset(made->gang.members, 0, made->gang.workers * sizeof *made->gang.members);
        const lspan_executor executor = {gang_run, &made->gang, made->gang.workers};
        const lspan_context_options options = {.executor = &executor};
        status = lspan_context_create(&options, &made->context);
    }
    if (status == lspan_status_ok) *adapter = made;
    else lspan_ggml_destroy(made);
    return status;
}

void lspan_ggml_clear(lspan_ggml *adapter)
{
    while (adapter->ops) {
        adapter_op *op = adapter->ops;
        adapter->ops = op->next;
        free(op);
    }
    adapter->status = lspan_status_ok;
    adapter->refusal[0] = '\0';
}

void lspan_ggml_destroy(lspan_ggml *adapter)
{
    if (!adapter) return;
    lspan_ggml_clear(adapter);
    lspan_context_destroy(adapter->context);
    free(adapter->workspace);
    free(adapter->gang.members);
    free(adapter);
}

const char *lspan_ggml_refusal(const lspan_ggml *adapter) { return adapter->refusal; }

lspan_status lspan_ggml_status(const lspan_ggml *adapter) { return adapter->status; }

bool lspan_ggml_failed(void *adapter) { return ((const lspan_ggml *)adapter)->status != lspan_status_ok; }

void *adapter_refuse(lspan_ggml *adapter, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(adapter->refusal, sizeof adapter->refusal, format, values);
    va_end(values);
    return NULL;
}

bool adapter_accepts(lspan_ggml *adapter, lspan_status status, const char *what)
{
    if (status == lspan_status_ok) return true;
    adapter_refuse(adapter, "%s: %s (%s)", what, lspan_status_description(status), lspan_status_name(status));
    return false;
}

void *adapter_new_op(
    lspan_ggml *adapter, size_t bytes, lspan_status (*run)(const adapter_op *op, const struct ggml_tensor *dst))
{
    adapter_op *op = calloc(1, bytes);
    if (!op) return adapter_refuse(adapter, "no memory for an operator's record of %zu bytes", bytes);
    op->adapter = adapter;
    op->run = run;
    op->next = adapter->ops;
    adapter->ops = op;
    return op;
}

bool adapter_reserve(lspan_ggml *adapter, size_t bytes)
{
    if (bytes <= adapter->workspace_bytes) return true;
    void *workspace = allocate(bytes);
    if (!workspace) return adapter_refuse(adapter, "no memory for a workspace of %zu bytes", bytes);
    free(adapter->workspace);
    adapter->workspace = workspace;
    adapter->workspace_bytes = bytes;
    return true;
}

/* What ggml calls, on each of its threads. */
static void compute(struct ggml_tensor *dst, int ith, int nth, void *userdata)
{
    const adapter_op *op = userdata;
    lspan_ggml *adapter = op->adapter;
    if (ith > 0) {
        gang_help(&adapter->gang, (size_t)ith);
        return;
    }
    gang_open(&adapter->gang, (size_t)nth);
    lspan_status status = op->run(op, dst);
    gang_close(&adapter->gang);
    if (status != lspan_status_ok && adapter->status == lspan_status_ok) adapter->status = status;
}

struct ggml_tensor *adapter_node(
    struct ggml_context *ctx, adapter_op *op, const int64_t ne[4], struct ggml_tensor **operands, int count)
{
    return ggml_custom_4d(
        ctx, GGML_TYPE_F32, ne[0], ne[1], ne[2], ne[3], operands, count, compute, GGML_N_TASKS_MAX, op);
}

bool adapter_dtype(enum ggml_type type, lspan_dtype *dtype)
{
    if (type == GGML_TYPE_F32) *dtype = lspan_dtype_f32;
    else if (type == GGML_TYPE_F16) *dtype = lspan_dtype_f16;
    else if (type == GGML_TYPE_BF16) *dtype = lspan_dtype_bf16;
    else return false;
    return true;
}

bool adapter_strided(const struct ggml_tensor *tensor)
{
    size_t element = ggml_type_size(tensor->type);
    if (tensor->nb[0] != element) return false;
    for (int i = 1; i < GGML_MAX_DIMS; i++) {
        if (tensor->nb[i] % element != 0) return false;
    }
    return true;
}
