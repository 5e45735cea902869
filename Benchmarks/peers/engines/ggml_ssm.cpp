// ggml_ssm.cpp: ggml's state-space operators. They are f32, and the scans apply the softplus to dt but have no skip
// D * u, which is added to what is compared and not timed.
//
// Variants:
//   scan           ggml_ssm_scan; the new state lies behind the output
//   scan-copied    one token: and is copied back to where it was read, as llama.cpp does
//   scan-in-place  one token: the state is read from where the new one is written
//   conv           ggml_ssm_conv, then ggml_silu over its result; channel-major input, W - 1 zeros before each channel
#include "ggml_engine.h"
#include <cstring>
#include <ggml-cpu.h>
#include <vector>

namespace {

struct StateRow : Served {
    serve_case c;
    std::unique_ptr<Region> arena; // everything but the work space
    std::unique_ptr<Region> work;
    ggml_context *context = nullptr;
    ggml_cgraph *graph = nullptr;
    ggml_cplan plan = {};
    ggml_tensor *inputs = nullptr; // u [P, H, T, B], of scans
    ggml_tensor *skip = nullptr;   // D [H], of scans
    std::vector<ggml_tensor *> nodes;

    explicit StateRow(const serve_case &from) : c(from) {}
    StateRow(const StateRow &) = delete;
    StateRow &operator=(const StateRow &) = delete;
    ~StateRow() override
    {
        if (context) ggml_free(context);
    }

    const char *call(long) override
    {
        return ggml_graph_compute(graph, &plan) == GGML_STATUS_SUCCESS ? nullptr : "ggml_graph_compute failed";
    }

    void output(float *values) const override
    {
        const float *y = static_cast<const float *>(result->data);
        int64_t count = outputs();
        for (int64_t i = 0; i < count; i++) {
            values[i] = y[i];
            if (skip) {
                int64_t head = i / c.head_dim % c.query_heads;
                values[i] += static_cast<const float *>(skip->data)[head] * static_cast<const float *>(inputs->data)[i];
            }
        }
    }

    bool is(const char *variant) const { return std::strcmp(c.variant, variant) == 0; }
    int64_t outputs() const { return c.sequences * c.tokens * c.query_heads * c.head_dim; }
    int64_t states() const { return c.sequences * c.query_heads * c.head_dim * c.state; }
};

// Fills a tensor from an operand file.
bool load(const StateRow &row, const char *name, ggml_tensor *tensor)
{
    size_t bytes = ggml_nbytes(tensor);
    const void *file = serve_map(&row.c, name, bytes);
    if (file) std::memcpy(tensor->data, file, bytes);
    serve_unmap(file, bytes);
    return file != nullptr;
}

ggml_tensor *new_tensor(const StateRow &row, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return ggml_new_tensor_4d(row.context, GGML_TYPE_F32, a, b, c, d);
}

const char *build_scan(StateRow &row)
{
    const serve_case &c = row.c;
    bool per_state_decay = c.head_dim == 1; // Mamba's, where Mamba-2's is one value a head
    ggml_tensor *state = new_tensor(row, c.state, c.head_dim, c.query_heads, c.sequences);
    row.inputs = new_tensor(row, c.head_dim, c.query_heads, c.tokens, c.sequences);
    ggml_tensor *dt = ggml_new_tensor_3d(row.context, GGML_TYPE_F32, c.query_heads, c.tokens, c.sequences);
    ggml_tensor *a = ggml_new_tensor_2d(row.context, GGML_TYPE_F32, per_state_decay ? c.state : 1, c.query_heads);
    ggml_tensor *b = new_tensor(row, c.state, c.kv_heads, c.tokens, c.sequences);
    ggml_tensor *cc = new_tensor(row, c.state, c.kv_heads, c.tokens, c.sequences);
    row.skip = ggml_new_tensor_1d(row.context, GGML_TYPE_F32, c.query_heads);
    ggml_tensor *sequences = ggml_new_tensor_1d(row.context, GGML_TYPE_I32, c.sequences);
    for (int32_t i = 0; i < c.sequences; i++) static_cast<int32_t *>(sequences->data)[i] = i;
    bool loaded = load(row, "u", row.inputs) && load(row, "dt", dt) && load(row, "a", a) && load(row, "b", b) &&
                  load(row, "c", cc) && load(row, "d", row.skip);
    if (!loaded) return "no operand files";

    row.result = ggml_ssm_scan(row.context, state, row.inputs, dt, a, b, cc, sequences, 1);
    row.nodes = {row.result};
    size_t behind = static_cast<size_t>(row.outputs()) * sizeof(float);
    if (row.is("scan-in-place")) state->data = static_cast<char *>(row.result->data) + behind;
    if (row.is("scan-copied")) {
        ggml_tensor *after = ggml_view_1d(row.context, row.result, row.states(), behind);
        row.nodes.push_back(ggml_cpy(row.context, after, ggml_view_1d(row.context, state, row.states(), 0)));
    }
    // a prompt's scan starts from the zeros that the memory has
    return c.tokens > 1 || load(row, "state", state) ? nullptr : "no state file";
}

const char *build_conv(StateRow &row)
{
    const serve_case &c = row.c;
    int64_t channels = c.query_heads, length = c.state + c.tokens;
    if (c.sequences != 1) return "the convolution takes one sequence";
    ggml_tensor *weights = ggml_new_tensor_2d(row.context, GGML_TYPE_F32, c.state + 1, channels);
    ggml_tensor *padded = ggml_new_tensor_3d(row.context, GGML_TYPE_F32, length, channels, 1);
    size_t bytes = static_cast<size_t>(c.tokens * channels) * sizeof(float);
    auto *file = static_cast<const float *>(serve_map(&c, "u", bytes));
    if (!file) return "no operand files";
    for (int64_t t = 0; t < c.tokens; t++) {
        for (int64_t e = 0; e < channels; e++) {
            static_cast<float *>(padded->data)[e * length + c.state + t] = file[t * channels + e];
        }
    }
    serve_unmap(file, bytes);
    if (!load(row, "w", weights)) return "no operand files";
    row.result = ggml_silu_inplace(row.context, ggml_ssm_conv(row.context, padded, weights));
    row.nodes = {row.result};
    return nullptr;
}

// What the tensors of a row take, with room for their headers.
size_t arena_bytes(const StateRow &row)
{
    const serve_case &c = row.c;
    int64_t inputs = row.outputs() + c.state * c.query_heads, rows = c.sequences * c.tokens;
    int64_t others = rows * (c.query_heads + 2 * c.kv_heads * c.state) + c.query_heads * (c.state + 2);
    // inputs and outputs, states before and after
    return static_cast<size_t>(inputs + row.outputs() + others + 2 * row.states()) * sizeof(float) + (size_t(2) << 20);
}

const char *build(StateRow &row)
{
    if (std::strcmp(row.c.dtype, "f32") != 0) return "ggml's state-space operators are f32";
    bool one_token = row.is("scan-copied") || row.is("scan-in-place");
    if (!one_token && !row.is("scan") && !row.is("conv")) return "unknown variant";
    if (one_token && row.c.tokens != 1) return "that variant is for one token";
    size_t bytes = arena_bytes(row);
    row.arena = std::make_unique<Region>(bytes);
    if (!row.arena->data()) return "out of memory";
    row.context = ggml_init({bytes, row.arena->data(), false});
    if (!row.context) return "ggml_init failed";
    if (const char *failure = row.is("conv") ? build_conv(row) : build_scan(row)) return failure;

    row.graph = ggml_new_graph(row.context);
    for (ggml_tensor *node : row.nodes) ggml_build_forward_expand(row.graph, node);
    row.plan = ggml_graph_plan(row.graph, thread_count, nullptr);
    row.work = std::make_unique<Region>(row.plan.work_size + 1);
    row.plan.work_data = reinterpret_cast<uint8_t *>(row.work->data());
    return row.plan.work_data ? nullptr : "out of memory";
}

} // namespace

const char *prepare_ssm(const serve_case &c, std::unique_ptr<Served> &served)
{
    auto row = std::make_unique<StateRow>(c);
    const char *failure = build(*row);
    served = std::move(row);
    return failure;
}
