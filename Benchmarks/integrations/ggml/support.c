/* support.c: operands and reference masks that check.c and bench.c share. */
#include "support.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *required(void *memory)
{
    if (memory) return memory;
    fprintf(stderr, "out of memory\n");
    exit(1);
}

struct ggml_context *new_context(size_t mebibytes)
{
    void *memory = NULL;
    size_t bytes = mebibytes << 20;
    if (lspan_kv_reserve(bytes, &memory) != lspan_status_ok) memory = NULL;
    return required(ggml_init((struct ggml_init_params){bytes, required(memory), false}));
}

void free_context(struct ggml_context *ctx)
{
    void *memory = ggml_get_mem_buffer(ctx);
    size_t bytes = ggml_get_mem_size(ctx);
    ggml_free(ctx);
    lspan_kv_release(memory, bytes);
}

float uniform(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (float)(state >> 40) * 0x1p-24f;
}

static float normal(void)
{
    float radius = sqrtf(-2.0f * logf(1.0f - uniform()));
    return radius * cosf(6.2831853f * uniform());
}

static void store(struct ggml_tensor *tensor, int64_t i, float value)
{
    if (tensor->type == GGML_TYPE_F16) ((ggml_fp16_t *)tensor->data)[i] = ggml_fp32_to_fp16(value);
    else if (tensor->type == GGML_TYPE_BF16) ((ggml_bf16_t *)tensor->data)[i] = ggml_fp32_to_bf16(value);
    else ((float *)tensor->data)[i] = value;
}

void fill_normal(struct ggml_tensor *tensor, float scale)
{
    for (int64_t i = 0; i < ggml_nelements(tensor); i++) store(tensor, i, scale * normal());
}

void fill_uniform(struct ggml_tensor *tensor, float low, float high)
{
    for (int64_t i = 0; i < ggml_nelements(tensor); i++) store(tensor, i, low + (high - low) * uniform());
}

struct ggml_tensor *copied_as_f32(struct ggml_context *ctx, struct ggml_tensor *tensor)
{
    struct ggml_tensor *copy = ggml_new_tensor(ctx, GGML_TYPE_F32, GGML_MAX_DIMS, tensor->ne);
    int64_t count = ggml_nelements(tensor);
    if (tensor->type == GGML_TYPE_F16) ggml_fp16_to_fp32_row(tensor->data, copy->data, count);
    else if (tensor->type == GGML_TYPE_BF16) ggml_bf16_to_fp32_row(tensor->data, copy->data, count);
    else memcpy(copy->data, tensor->data, ggml_nbytes(tensor));
    return copy;
}

struct ggml_tensor *new_heads(
    struct ggml_context *ctx, enum ggml_type type, const int64_t ne[4], int64_t capacity, bool token_major,
    struct ggml_tensor **whole)
{
    int64_t tokens = ne[1], heads = ne[2];
    struct ggml_tensor *memory = token_major ? ggml_new_tensor_4d(ctx, type, ne[0], heads, capacity, ne[3])
                                             : ggml_new_tensor_4d(ctx, type, ne[0], capacity, heads, ne[3]);
    size_t token = memory->nb[token_major ? 2 : 1], head = memory->nb[token_major ? 1 : 2];
    *whole = memory;
    return ggml_view_4d(ctx, memory, ne[0], tokens, heads, ne[3], token, head, memory->nb[3], 0);
}

struct ggml_tensor *new_mask(
    struct ggml_context *ctx, const int64_t ne[4], lspan_ggml_visibility visibility, listed_function *listed,
    const void *lists)
{
    struct ggml_tensor *mask = ggml_new_tensor(ctx, GGML_TYPE_F16, GGML_MAX_DIMS, ne);
    const int32_t *lengths = visibility.lengths ? visibility.lengths->data : NULL;
    ggml_fp16_t *bits = mask->data;
    const ggml_fp16_t hidden = ggml_fp32_to_fp16(-INFINITY), seen = ggml_fp32_to_fp16(0.0f);
    for (int64_t b = 0; b < ne[3]; b++) {
        int64_t keys = lengths ? lengths[b] : ne[0];
        for (int64_t h = 0; h < ne[2]; h++) {
            for (int64_t t = 0; t < ne[1]; t++) {
                int64_t position = keys - ne[1] + t;
                for (int64_t j = 0; j < ne[0]; j++) {
                    bool sees = j < keys && (!visibility.causal || j <= position);
                    if (visibility.window > 0) sees &= j > position - visibility.window || j < visibility.sinks;
                    if (sees && listed) sees = listed(lists, b, h, t, j);
                    *bits++ = sees ? seen : hidden;
                }
            }
        }
    }
    return mask;
}

void draw(int32_t *numbers, int64_t count, int64_t limit)
{
    int32_t *all = required(malloc((size_t)limit * sizeof *all));
    for (int64_t i = 0; i < limit; i++) all[i] = (int32_t)i;
    for (int64_t i = 0; i < count; i++) {
        int64_t pick = i + (int64_t)(uniform() * (float)(limit - i));
        numbers[i] = all[pick];
        all[pick] = all[i];
    }
    free(all);
}

struct ggml_cgraph *graph_of(struct ggml_context *ctx, struct ggml_tensor *node)
{
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, node);
    return graph;
}

planned_graph plan_graph(struct ggml_cgraph *graph, int threads, lspan_ggml *adapter)
{
    planned_graph planned = {graph, ggml_graph_plan(graph, threads, NULL)};
    planned.plan.work_data = required(malloc(planned.plan.work_size + 1));
    if (adapter) {
        planned.plan.abort_callback = lspan_ggml_failed;
        planned.plan.abort_callback_data = adapter;
    }
    return planned;
}

void free_plan(planned_graph *planned) { free(planned->plan.work_data); }

enum ggml_status compute_graph(planned_graph *planned) { return ggml_graph_compute(planned->graph, &planned->plan); }
