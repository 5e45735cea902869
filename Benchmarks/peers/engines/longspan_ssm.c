/* longspan_ssm.c: this library's state-space layers, served to run.py.
 *
 * Scans start from a state of zeros and give the final one; updates have theirs in place. dt gets its softplus and
 * there is the skip D * u, but neither a bias nor a gate. Outputs have the case's dtype.
 */
#include "longspan_engine.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum ssm_kind { selective_scan, selective_update, ssd_scan, ssd_update, conv } ssm_kind;

/* u, dt, a, b, c and d; the state, both initial and final; the weights; y */
enum { operand_count = 9 };

typedef struct ssm_row {
    served base;
    ssm_kind kind;
    lspan_selective_scan selective;
    lspan_ssd_scan ssd;
    lspan_causal_conv conv;
    int64_t *indptr; /* [B + 1] */
    size_t outputs;  /* elements of y */
    lspan_dtype dtype;
    void *operands[operand_count];
    size_t bytes[operand_count];
    int used; /* of the operands */
    void *workspace;
    size_t workspace_bytes;
} ssm_row;

static int parse_kind(const char *variant, ssm_kind *kind)
{
    static const char *names[] = {"selective-scan", "selective-update", "ssd-scan", "ssd-update", "conv"};
    for (int i = 0; i < 5; i++) {
        if (strcmp(variant, names[i]) == 0) {
            *kind = (ssm_kind)i;
            return 1;
        }
    }
    return 0;
}

/* Zeroed memory that lives as long as the row; NULL if there is none. */
static void *allocate(ssm_row *r, size_t count, lspan_dtype dtype)
{
    size_t bytes = count * lspan_dtype_size(dtype);
    void *memory = serve_allocate(bytes);
    if (!memory) return NULL;
    r->operands[r->used] = memory;
    r->bytes[r->used++] = bytes;
    return memory;
}

/* An operand in the dtype; NULL if its file or the memory is missing. */
static void *load(ssm_row *r, const serve_case *c, const char *name, int64_t count, lspan_dtype dtype)
{
    size_t elements = (size_t)count;
    const float *from = serve_map(c, name, elements * sizeof *from);
    void *to = from ? allocate(r, elements, dtype) : NULL;
    if (to) convert(to, from, elements, dtype);
    serve_unmap(from, elements * sizeof *from);
    return to;
}

static lspan_status call_ssm(served *base, long copy)
{
    ssm_row *r = (ssm_row *)base;
    (void)copy; /* there is one */
    switch (r->kind) {
    case selective_scan: return lspan_selective_scan_run(context, &r->selective, r->workspace, r->workspace_bytes);
    case selective_update: return lspan_selective_update(context, &r->selective);
    case ssd_scan: return lspan_ssd_scan_run(context, &r->ssd, r->workspace, r->workspace_bytes);
    case ssd_update: return lspan_ssd_update(context, &r->ssd);
    default: return lspan_causal_conv_run(context, &r->conv);
    }
}

static lspan_status find_workspace_size(ssm_row *r)
{
    switch (r->kind) {
    case selective_scan: return lspan_selective_scan_workspace_size(context, &r->selective, &r->workspace_bytes);
    case ssd_scan: return lspan_ssd_scan_workspace_size(context, &r->ssd, &r->workspace_bytes);
    default: return lspan_status_ok;
    }
}

static void output_ssm(served *base, float *values)
{
    ssm_row *r = (ssm_row *)base;
    const void *y = r->operands[r->used - 1];
    if (r->dtype == lspan_dtype_f32) {
        memcpy(values, y, r->outputs * sizeof *values);
        return;
    }
    const uint16_t *halves = y; /* bf16: other dtypes are refused */
    for (size_t i = 0; i < r->outputs; i++) {
        uint32_t word = (uint32_t)halves[i] << 16;
        memcpy(values + i, &word, sizeof word);
    }
}

static void drop_ssm(served *base)
{
    ssm_row *r = (ssm_row *)base;
    for (int i = 0; i < r->used; i++) serve_free(r->operands[i], r->bytes[i]);
    serve_free(r->workspace, r->workspace_bytes);
    free(r->indptr);
    free(r);
}

/* Fills the row's call but for the workspace. */
static const char *fill(ssm_row *r, const serve_case *c)
{
    static const char missing[] = "no operand files or no memory";
    const lspan_dtype f32 = lspan_dtype_f32;
    if (!parse_dtype(c->dtype, &r->dtype) || r->dtype == lspan_dtype_f16) return "unknown dtype";
    if (!parse_kind(c->variant, &r->kind)) return "unknown variant";
    int64_t rows = c->sequences * c->tokens, heads = c->query_heads, channels = heads * c->head_dim;
    int64_t groups = c->kv_heads, state = c->state;
    r->indptr = calloc((size_t)c->sequences + 1, sizeof *r->indptr);
    if (!r->indptr) return missing;
    for (long b = 0; b <= c->sequences; b++) r->indptr[b] = b * c->tokens;
    r->outputs = (size_t)(rows * channels);

    const void *u = load(r, c, "u", rows * channels, r->dtype);
    if (!u) return missing;
    if (r->kind == conv) {
        const float *w = load(r, c, "w", channels * (state + 1), f32);
        float *final = allocate(r, (size_t)(c->sequences * state * channels), f32);
        void *y = allocate(r, r->outputs, r->dtype);
        if (!w || !final || !y) return missing;
        r->conv = (lspan_causal_conv){
            .sequences = c->sequences, .indptr = r->indptr, .channels = channels, .width = state + 1,
            .input = {u, r->dtype, channels}, .weight = w, .silu = 1, .final_state = final,
            .state_stride = state * channels, .output = {y, r->dtype, channels}};
        return NULL;
    }

    int update = r->kind == selective_update || r->kind == ssd_update;
    int scalar_decay = r->kind == ssd_scan || r->kind == ssd_update;
    const float *dt = load(r, c, "dt", rows * heads, f32);
    const float *a = load(r, c, "a", scalar_decay ? heads : heads * state, f32);
    const void *b = load(r, c, "b", rows * groups * state, r->dtype);
    const void *cc = load(r, c, "c", rows * groups * state, r->dtype);
    const float *d = load(r, c, "d", heads, f32);
    int64_t states = c->sequences * channels * state;
    float *h = update ? load(r, c, "state", states, f32) : allocate(r, (size_t)states, f32);
    void *y = allocate(r, r->outputs, r->dtype);
    if (!dt || !a || !b || !cc || !d || !h || !y) return missing;

    lspan_dt_rule rule = {.softplus = 1, .maximum = INFINITY};
    lspan_heads b_view = {b, r->dtype, groups * state, state}, c_view = {cc, r->dtype, groups * state, state};
    if (scalar_decay) {
        int64_t dim = c->head_dim;
        r->ssd = (lspan_ssd_scan){
            .sequences = c->sequences, .indptr = r->indptr, .heads = heads, .head_dim = dim, .state_size = state,
            .groups = groups, .input = {u, r->dtype, channels, dim}, .dt = {dt, f32, heads}, .rule = rule, .a = a,
            .b = b_view, .c = c_view, .d = d, .initial_state = update ? h : NULL, .final_state = h,
            .state_stride = channels * state, .output = {y, r->dtype, channels, dim}};
    } else {
        r->selective = (lspan_selective_scan){
            .sequences = c->sequences, .indptr = r->indptr, .channels = channels, .state_size = state,
            .groups = groups, .input = {u, r->dtype, channels}, .dt = {dt, f32, heads}, .rule = rule, .a = a,
            .b = b_view, .c = c_view, .d = d, .initial_state = update ? h : NULL, .final_state = h,
            .state_stride = channels * state, .output = {y, r->dtype, channels}};
    }
    return NULL;
}

static const char *complete(ssm_row *r, const serve_case *c)
{
    const char *failure = fill(r, c);
    if (failure) return failure;
    lspan_status status = find_workspace_size(r);
    if (status != lspan_status_ok) return lspan_status_name(status);
    r->workspace = r->workspace_bytes ? serve_allocate(r->workspace_bytes) : NULL;
    return r->workspace || !r->workspace_bytes ? NULL : "out of memory";
}

const char *prepare_ssm(const serve_case *c, served **made)
{
    ssm_row *r = calloc(1, sizeof *r);
    if (!r) return "out of memory";
    r->base = (served){call_ssm, output_ssm, drop_ssm};
    const char *failure = complete(r, c);
    if (failure) drop_ssm(&r->base);
    else *made = &r->base;
    return failure;
}
