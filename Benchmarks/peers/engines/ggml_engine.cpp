// ggml_engine.cpp: llama.cpp's ggml, served to run.py.
//
// Variants:
//   flash          ggml_flash_attn_ext; causal masks are its f16 masks
//   flash-cache    the same on keys and values that lie token-major, as llama.cpp's cache has them
//   matmul         mul_mat, soft_max_ext, mul_mat, as llama.cpp without flash attention; V lies transposed
//   matmul-folded  the same with the query heads of a key/value head as rows of one head
// and those of ggml_sparse.cpp and ggml_ssm.cpp.
#include "ggml_engine.h"
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ggml-cpu.h>
#include <string>
#include <vector>

int thread_count = 1;

bool parse_type(const char *name, ggml_type &type)
{
    if (std::strcmp(name, "f32") == 0) type = GGML_TYPE_F32;
    else if (std::strcmp(name, "f16") == 0) type = GGML_TYPE_F16;
    else if (std::strcmp(name, "bf16") == 0) type = GGML_TYPE_BF16;
    else return false;
    return true;
}

void convert(const float *from, char *to, int64_t count, ggml_type type)
{
    if (type == GGML_TYPE_F16) ggml_fp32_to_fp16_row(from, reinterpret_cast<ggml_fp16_t *>(to), count);
    else if (type == GGML_TYPE_BF16) ggml_fp32_to_bf16_row(from, reinterpret_cast<ggml_bf16_t *>(to), count);
    else std::memcpy(to, from, static_cast<size_t>(count) * sizeof *from);
}

void Served::output(float *values) const { std::memcpy(values, result->data, ggml_nbytes(result)); }

namespace {

size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

// An operand whose copies lie one after the other; a call points the tensor, and any view of it, at one of them.
struct Operand {
    ggml_tensor *tensor = nullptr;
    ggml_tensor *view = nullptr; // what the graph reads
    std::unique_ptr<Region> memory;
    size_t stride = 0;

    void select(long copy) { tensor->data = view->data = memory->data() + stride * static_cast<size_t>(copy); }
};

struct Row : Served {
    serve_case c;
    std::unique_ptr<Region> arena; // tensor headers, intermediate results
    ggml_context *context = nullptr;
    ggml_cgraph *graph = nullptr;
    ggml_cplan plan = {};
    std::unique_ptr<Region> work;
    std::unique_ptr<Region> mask_memory;
    Operand queries, keys, values;

    explicit Row(const serve_case &from) : c(from) {}
    Row(const Row &) = delete;
    Row &operator=(const Row &) = delete;
    ~Row() override
    {
        if (context) ggml_free(context);
    }

    const char *call(long copy) override
    {
        queries.select(copy);
        keys.select(copy);
        values.select(copy);
        return ggml_graph_compute(graph, &plan) == GGML_STATUS_SUCCESS ? nullptr : "ggml_graph_compute failed";
    }

    bool folded() const { return std::strstr(c.variant, "-folded") != nullptr; }
    bool flash() const { return std::strncmp(c.variant, "flash", 5) == 0; }
    bool token_major() const { return std::strstr(c.variant, "-cache") != nullptr; }
};

// [outer, a, b, inner] as [outer, b, a, inner].
std::vector<float> swapped(const float *from, int64_t outer, int64_t a, int64_t b, int64_t inner)
{
    std::vector<float> to(static_cast<size_t>(outer * a * b * inner));
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t j = 0; j < b; j++) {
            for (int64_t i = 0; i < a; i++) {
                std::memcpy(&to[static_cast<size_t>(((o * b + j) * a + i) * inner)],
                            from + ((o * a + i) * b + j) * inner, static_cast<size_t>(inner) * sizeof *from);
            }
        }
    }
    return to;
}

enum class Layout { keep, swap_outer, swap_inner };

// Fills the copies of an operand from its file [outer, middle, D], with its outer or its inner dimensions exchanged.
bool load(Operand &operand, const serve_case &c, const char *name, int64_t outer, int64_t middle, Layout layout)
{
    ggml_tensor *tensor = operand.tensor;
    int64_t count = ggml_nelements(tensor);
    size_t bytes = static_cast<size_t>(count) * sizeof(float);
    auto *file = static_cast<const float *>(serve_map(&c, name, bytes));
    if (!file) return false;
    operand.stride = whole_lines(ggml_nbytes(tensor));
    operand.memory = std::make_unique<Region>(operand.stride * static_cast<size_t>(c.copies));
    char *first = operand.memory->data();
    if (first) {
        if (layout == Layout::keep) {
            convert(file, first, count, tensor->type);
        } else {
            bool inner = layout == Layout::swap_inner;
            auto values = inner ? swapped(file, outer, middle, c.head_dim, 1) : swapped(file, 1, outer, middle, c.head_dim);
            convert(values.data(), first, count, tensor->type);
        }
        for (long i = 1; i < c.copies; i++) {
            std::memcpy(first + operand.stride * static_cast<size_t>(i), first, ggml_nbytes(tensor));
        }
        operand.select(0);
    }
    serve_unmap(file, bytes);
    return first != nullptr;
}

// The additive mask of causal attention, and of a window; nullptr if there is no memory.
ggml_tensor *make_mask(Row &row)
{
    const serve_case &c = row.c;
    ggml_tensor *mask = ggml_new_tensor_2d(row.context, GGML_TYPE_F16, c.keys, c.tokens);
    row.mask_memory = std::make_unique<Region>(ggml_nbytes(mask));
    auto *bits = reinterpret_cast<ggml_fp16_t *>(row.mask_memory->data());
    if (!bits) return nullptr;
    const ggml_fp16_t hidden = ggml_fp32_to_fp16(-INFINITY), seen = ggml_fp32_to_fp16(0.0f);
    for (long t = 0; t < c.tokens; t++) {
        long position = c.keys - c.tokens + t;
        for (long j = 0; j < c.keys; j++) {
            bool sees = j <= position && (c.window == 0 || j > position - c.window);
            bits[t * c.keys + j] = sees ? seen : hidden;
        }
    }
    mask->data = bits;
    return mask;
}

// Keys or values [D, S, Hk] for the graph: a tensor of its own, or a view of one that lies token-major.
void declare_kv(Row &row, Operand &operand, ggml_type type)
{
    const serve_case &c = row.c;
    if (row.token_major()) {
        operand.tensor = ggml_new_tensor_3d(row.context, type, c.head_dim, c.kv_heads, c.keys);
        operand.view = ggml_permute(row.context, operand.tensor, 0, 2, 1, 3);
    } else {
        operand.tensor = operand.view = ggml_new_tensor_3d(row.context, type, c.head_dim, c.keys, c.kv_heads);
    }
}

// Declares and fills the operands; their memory is their own, not the context's.
const char *make_operands(Row &row, ggml_type type, ggml_tensor *&mask)
{
    const serve_case &c = row.c;
    long rows = row.folded() ? c.query_heads / c.kv_heads : c.tokens;
    long heads = row.folded() ? c.kv_heads : c.query_heads;
    ggml_set_no_alloc(row.context, true);
    row.queries.tensor = row.queries.view = ggml_new_tensor_3d(row.context, GGML_TYPE_F32, c.head_dim, rows, heads);
    declare_kv(row, row.keys, type);
    if (row.flash()) {
        declare_kv(row, row.values, type);
    } else {
        row.values.tensor = row.values.view = ggml_new_tensor_3d(row.context, type, c.keys, c.head_dim, c.kv_heads);
    }
    mask = c.tokens > 1 ? make_mask(row) : nullptr;
    ggml_set_no_alloc(row.context, false);
    if (c.tokens > 1 && !mask) return "out of memory";
    Layout kv = row.token_major() ? Layout::swap_outer : Layout::keep;
    bool loaded = load(row.queries, c, "q", c.tokens, c.query_heads, Layout::swap_outer) &&
                  load(row.keys, c, "k", c.kv_heads, c.keys, kv) &&
                  load(row.values, c, "v", c.kv_heads, c.keys, row.flash() ? kv : Layout::swap_inner);
    return loaded ? nullptr : "no operand files or no memory";
}

const char *build(Row &row)
{
    const serve_case &c = row.c;
    ggml_type type;
    if (!parse_type(c.dtype, type)) return "unknown dtype";
    if (!row.flash() && c.tokens != 1) return "matmul variants take one query token";

    // the logits, which become their weights, are the only large intermediate result
    size_t logits = row.flash() ? 0 : static_cast<size_t>(c.query_heads * c.keys) * sizeof(float);
    size_t result = static_cast<size_t>(c.query_heads * c.tokens * c.head_dim) * sizeof(float);
    size_t bytes = logits + result + (size_t(1) << 20);
    row.arena = std::make_unique<Region>(bytes);
    if (!row.arena->data()) return "out of memory";
    row.context = ggml_init({bytes, row.arena->data(), false});
    if (!row.context) return "ggml_init failed";
    ggml_tensor *mask = nullptr;
    if (const char *failure = make_operands(row, type, mask)) return failure;

    float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    ggml_tensor *q = row.queries.view, *k = row.keys.view, *v = row.values.view;
    if (row.flash()) {
        row.result = ggml_flash_attn_ext(row.context, q, k, v, mask, scale, 0.0f, 0.0f);
    } else {
        ggml_tensor *weights = ggml_soft_max_ext_inplace(
            row.context, ggml_mul_mat(row.context, k, q), nullptr, scale, 0.0f);
        row.result = ggml_mul_mat(row.context, v, weights);
    }
    row.graph = ggml_new_graph(row.context);
    ggml_build_forward_expand(row.graph, row.result);
    row.plan = ggml_graph_plan(row.graph, thread_count, nullptr);
    row.work = std::make_unique<Region>(row.plan.work_size + 1);
    row.plan.work_data = reinterpret_cast<uint8_t *>(row.work->data());
    return row.plan.work_data ? nullptr : "out of memory";
}

const char *about()
{
    static std::string text;
    text = std::string("ggml ") + ggml_version() + ", " + std::to_string(thread_count) + " threads, bf16 dot products " +
           (ggml_cpu_has_avx512_bf16() ? "yes" : "no");
    return text.c_str();
}

const char *prepare(const serve_case *c, void **memory)
{
    std::unique_ptr<Served> served;
    const char *failure;
    if (c->state) {
        failure = prepare_ssm(*c, served);
    } else if (c->entries) {
        failure = prepare_sparse(*c, served);
    } else {
        auto row = std::make_unique<Row>(*c);
        failure = build(*row);
        served = std::move(row);
    }
    if (!failure) *memory = served.release();
    return failure;
}

const char *call(void *memory, long copy) { return static_cast<Served *>(memory)->call(copy); }

const char *output(void *memory, float *values)
{
    static_cast<Served *>(memory)->output(values);
    return nullptr;
}

void drop(void *memory) { delete static_cast<Served *>(memory); }

} // namespace

int main(int argc, char **argv)
{
    if (argc > 1) thread_count = std::atoi(argv[1]);
    ggml_cpu_init();
    const serve_engine engine = {about, prepare, call, output, drop};
    return serve(&engine);
}
