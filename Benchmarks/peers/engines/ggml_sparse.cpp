// ggml_sparse.cpp: ggml on listed keys, one query token, a list for each key/value head, entries of tokens or blocks.
//
// get_rows copies what is listed, and gives f32 whatever the cache's type is. Variants:
//   rows-flash         then ggml_flash_attn_ext
//   rows-flash-folded  the same with the query heads of a key/value head as rows of one head
//   rows-matmul        then mul_mat, soft_max_ext, mul_mat, folded; the copied values are transposed
//   rows-product       the same with out_prod, which takes values as they are
#include "ggml_engine.h"
#include <cmath>
#include <cstring>
#include <ggml-cpu.h>
#include <map>
#include <string>

namespace {

// Keys and values [D, S, Hk]; the rows of a case share one copy.
struct Cache {
    Region keys, values;
    explicit Cache(size_t bytes) : keys(bytes), values(bytes) {}
};

std::map<std::string, std::weak_ptr<Cache>> caches;

// Fills memory from an operand file.
bool load(const serve_case &c, const char *name, char *to, int64_t count, ggml_type type)
{
    size_t bytes = static_cast<size_t>(count) * sizeof(float);
    auto *file = static_cast<const float *>(serve_map(&c, name, bytes));
    if (file && to) convert(file, to, count, type);
    serve_unmap(file, bytes);
    return file && to;
}

// nullptr if a file or memory is missing.
std::shared_ptr<Cache> shared_cache(const serve_case &c, ggml_type type)
{
    std::weak_ptr<Cache> &known = caches[std::string(c.folder) + " " + c.dtype];
    if (auto cache = known.lock()) return cache;
    int64_t count = c.head_dim * c.keys * c.kv_heads;
    auto cache = std::make_shared<Cache>(static_cast<size_t>(count) * ggml_type_size(type));
    bool loaded = load(c, "k", cache->keys.data(), count, type) && load(c, "v", cache->values.data(), count, type);
    if (!loaded) return nullptr;
    known = cache;
    return cache;
}

struct SparseRow : Served {
    serve_case c;
    std::shared_ptr<Cache> cache;
    std::unique_ptr<Region> arena; // tensor headers, the query, what is copied and other intermediate results
    std::unique_ptr<Region> lists; // [selections, Hk, entries]
    std::unique_ptr<Region> work;
    ggml_context *context = nullptr;
    ggml_cgraph *graph = nullptr;
    ggml_tensor *list = nullptr;
    ggml_cplan plan = {};

    explicit SparseRow(const serve_case &from) : c(from) {}
    SparseRow(const SparseRow &) = delete;
    SparseRow &operator=(const SparseRow &) = delete;
    ~SparseRow() override
    {
        if (context) ggml_free(context);
    }

    const char *call(long selection) override
    {
        list->data = lists->data() + ggml_nbytes(list) * static_cast<size_t>(selection);
        return ggml_graph_compute(graph, &plan) == GGML_STATUS_SUCCESS ? nullptr : "ggml_graph_compute failed";
    }

    void output(float *values) const override
    {
        if (!is("rows-flash-folded")) return Served::output(values);
        // flash_attn_ext puts heads inside tokens, so folded heads come as [G, Hk, D]
        int64_t group = c.query_heads / c.kv_heads, dim = c.head_dim;
        const float *from = ggml_get_data_f32(result);
        for (int64_t h = 0; h < c.query_heads; h++) {
            int64_t row = h % group * c.kv_heads + h / group;
            std::memcpy(values + h * dim, from + row * dim, static_cast<size_t>(dim) * sizeof *from);
        }
    }

    bool is(const char *variant) const { return std::strcmp(c.variant, variant) == 0; }
    int64_t listed() const { return c.entries * c.block; }
};

// A tensor whose memory is not the context's.
ggml_tensor *tensor_over(SparseRow &row, char *data, ggml_type type, int64_t a, int64_t b, int64_t c)
{
    ggml_set_no_alloc(row.context, true);
    ggml_tensor *tensor = ggml_new_tensor_3d(row.context, type, a, b, c);
    ggml_set_no_alloc(row.context, false);
    tensor->data = data;
    return tensor;
}

// What is listed of the cache, [D, n, Hk] in f32: entries are rows of block * D elements.
ggml_tensor *listed_rows(SparseRow &row, char *data, ggml_type type)
{
    const serve_case &c = row.c;
    ggml_tensor *all = tensor_over(row, data, type, c.head_dim * c.block, c.keys / c.block, c.kv_heads);
    ggml_tensor *rows = ggml_get_rows(row.context, all, row.list);
    return ggml_reshape_3d(row.context, rows, c.head_dim, row.listed(), c.kv_heads);
}

// Attention of q over k and v [D, n, Hk]; q is [D, G, Hk] where heads are folded, else [D, 1, Hq].
ggml_tensor *attention(SparseRow &row, ggml_tensor *q, ggml_tensor *k, ggml_tensor *v)
{
    ggml_context *context = row.context;
    float scale = 1.0f / std::sqrt(static_cast<float>(row.c.head_dim));
    if (row.is("rows-flash") || row.is("rows-flash-folded")) {
        return ggml_flash_attn_ext(context, q, k, v, nullptr, scale, 0.0f, 0.0f);
    }
    ggml_tensor *weights = ggml_soft_max_ext_inplace(context, ggml_mul_mat(context, k, q), nullptr, scale, 0.0f);
    if (row.is("rows-product")) return ggml_out_prod(context, v, ggml_transpose(context, weights));
    return ggml_mul_mat(context, ggml_cont(context, ggml_transpose(context, v)), weights);
}

// Bytes of what a call writes: copied keys and values, transposed values, logits, the result, headers.
size_t arena_bytes(const SparseRow &row)
{
    const serve_case &c = row.c;
    auto copied = static_cast<size_t>(row.listed() * c.kv_heads * c.head_dim);
    auto logits = static_cast<size_t>(row.listed() * c.query_heads);
    return (3 * copied + logits) * sizeof(float) + (size_t(1) << 20);
}

const char *load_lists(SparseRow &row)
{
    const serve_case &c = row.c;
    size_t bytes = static_cast<size_t>(c.copies * c.kv_heads * c.entries) * sizeof(int32_t);
    const void *file = serve_map(&c, "lists", bytes);
    row.lists = std::make_unique<Region>(bytes);
    bool there = file && row.lists->data();
    if (there) std::memcpy(row.lists->data(), file, bytes);
    serve_unmap(file, bytes);
    return there ? nullptr : "no lists or no memory";
}

const char *build(SparseRow &row)
{
    const serve_case &c = row.c;
    ggml_type type;
    if (!parse_type(c.dtype, type)) return "unknown dtype";
    if (std::strncmp(c.variant, "rows-", 5) != 0) return "unknown variant";
    if (c.tokens != 1) return "sparse variants take one query token";
    row.cache = shared_cache(c, type);
    if (!row.cache) return "no operand files or no memory";
    if (const char *failure = load_lists(row)) return failure;
    size_t bytes = arena_bytes(row);
    row.arena = std::make_unique<Region>(bytes);
    if (!row.arena->data()) return "out of memory";
    row.context = ggml_init({bytes, row.arena->data(), false});
    if (!row.context) return "ggml_init failed";

    bool folded = !row.is("rows-flash");
    ggml_tensor *q = folded
        ? ggml_new_tensor_3d(row.context, GGML_TYPE_F32, c.head_dim, c.query_heads / c.kv_heads, c.kv_heads)
        : ggml_new_tensor_3d(row.context, GGML_TYPE_F32, c.head_dim, 1, c.query_heads);
    if (!load(c, "q", static_cast<char *>(q->data), ggml_nelements(q), GGML_TYPE_F32)) return "no queries";
    row.list = tensor_over(row, row.lists->data(), GGML_TYPE_I32, c.entries, c.kv_heads, 1);
    ggml_tensor *k = listed_rows(row, row.cache->keys.data(), type);
    ggml_tensor *v = listed_rows(row, row.cache->values.data(), type);
    row.result = attention(row, q, k, v);
    row.graph = ggml_new_graph(row.context);
    ggml_build_forward_expand(row.graph, row.result);
    row.plan = ggml_graph_plan(row.graph, thread_count, nullptr);
    row.work = std::make_unique<Region>(row.plan.work_size + 1);
    row.plan.work_data = reinterpret_cast<uint8_t *>(row.work->data());
    return row.plan.work_data ? nullptr : "out of memory";
}

} // namespace

const char *prepare_sparse(const serve_case &c, std::unique_ptr<Served> &served)
{
    auto row = std::make_unique<SparseRow>(c);
    const char *failure = build(*row);
    served = std::move(row);
    return failure;
}
