// ggml_engine.h: what ggml's rows of dense attention (ggml_engine.cpp), of sparse attention (ggml_sparse.cpp) and of
// state-space layers (ggml_ssm.cpp) share.
#ifndef GGML_ENGINE_H
#define GGML_ENGINE_H

#include "serve.h"
#include <ggml.h>
#include <memory>

extern int thread_count;

// Memory in huge pages.
class Region {
public:
    explicit Region(size_t bytes) : bytes_(bytes), data_(static_cast<char *>(serve_allocate(bytes))) {}
    Region(const Region &) = delete;
    Region &operator=(const Region &) = delete;
    ~Region() { serve_free(data_, bytes_); }
    char *data() const { return data_; }

private:
    size_t bytes_;
    char *data_;
};

// A row of run.py's table.
struct Served {
    // [T, Hq, D] from flash_attn_ext, and [Hq, D] from compositions, whose T is 1, unless `output` says otherwise
    ggml_tensor *result = nullptr;

    virtual ~Served() = default;
    // with a copy of the operands, or a selection; returns what went wrong
    virtual const char *call(long copy) = 0;
    // copies the last call's result
    virtual void output(float *values) const;
};

bool parse_type(const char *name, ggml_type &type);
void convert(const float *from, char *to, int64_t count, ggml_type type);

const char *prepare_sparse(const serve_case &c, std::unique_ptr<Served> &served);
const char *prepare_ssm(const serve_case &c, std::unique_ptr<Served> &served);

#endif
