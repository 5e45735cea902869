/* support.h: operands and reference masks that check.c and bench.c share. */
#ifndef LSPAN_GGML_SUPPORT_H
#define LSPAN_GGML_SUPPORT_H

#include "lspan_ggml.h"
#include <ggml-cpu.h>
#include <stddef.h>

/* A context whose tensors have memory, in huge pages and of up to so many MiB; ends the program if there is none. */
struct ggml_context *new_context(size_t mebibytes);
void free_context(struct ggml_context *ctx);

/* Uniform in 0 .. 1, from a generator that starts anew in every program. */
float uniform(void);

/* Fills a contiguous f32, f16 or bf16 tensor with `scale` times standard normal numbers, or with numbers from low to high. */
void fill_normal(struct ggml_tensor *tensor, float scale);
void fill_uniform(struct ggml_tensor *tensor, float low, float high);

/* The numbers of a contiguous tensor in a new one of f32. */
struct ggml_tensor *copied_as_f32(struct ggml_context *ctx, struct ggml_tensor *tensor);

/* [D, tokens, heads, batch] over new memory: token-major [D, heads, tokens, batch] as llama.cpp's cache, with room for
 * `capacity` tokens in each batch entry, or head-major. `whole` is the contiguous memory. */
struct ggml_tensor *new_heads(
    struct ggml_context *ctx, enum ggml_type type, const int64_t ne[4], int64_t capacity, bool token_major,
    struct ggml_tensor **whole);

/* The f16 mask [keys, tokens, heads, batch] of a visibility; `listed` is NULL, or says whether a key is listed. */
typedef bool listed_function(const void *lists, int64_t batch, int64_t head, int64_t token, int64_t key);
struct ggml_tensor *new_mask(
    struct ggml_context *ctx, const int64_t ne[4], lspan_ggml_visibility visibility, listed_function *listed,
    const void *lists);

/* `count` different numbers below `limit`, in random order. */
void draw(int32_t *numbers, int64_t count, int64_t limit);

/* A graph of one node. */
struct ggml_cgraph *graph_of(struct ggml_context *ctx, struct ggml_tensor *node);

/* A graph planned for so many threads, with its work buffer; it stops behind an operator of the adapter that fails. */
typedef struct planned_graph {
    struct ggml_cgraph *graph;
    struct ggml_cplan plan;
} planned_graph;
planned_graph plan_graph(struct ggml_cgraph *graph, int threads, lspan_ggml *adapter);
void free_plan(planned_graph *planned);
enum ggml_status compute_graph(planned_graph *planned);

#endif
