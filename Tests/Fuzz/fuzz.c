/* fuzz.c: drawing of arguments and memory for them. */
#include "fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GUARD_BYTES ((size_t)1 << 24)

void fuzz_fail(const char *what)
{
    fprintf(stderr, "FINDING: %s\n", what);
    abort();
}

/* ---- Drawing ------------------------------------------------------------------------------------------- */

uint32_t fuzz_byte(fuzz *f)
{
    if (f->size > 0) {
        f->size--;
        return *f->data++;
    }
    return (uint32_t)(fuzz_bits(f) >> 56);
}

uint64_t fuzz_bits(fuzz *f)
{
    /* SplitMix64 (Steele et al. 2014) */
    uint64_t z = f->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint32_t fuzz_below(fuzz *f, uint32_t below)
{
    if (below <= 1) return 0;
    return (below <= 256 ? fuzz_byte(f) : fuzz_byte(f) << 8 | fuzz_byte(f)) % below;
}

int fuzz_wild(fuzz *f, uint32_t n)
{
    return f->wild && fuzz_below(f, n) == 0;
}

int64_t fuzz_bad_number(fuzz *f)
{
    static const int64_t numbers[] = {-1, INT64_MIN, INT64_MAX, INT64_MIN + 1, INT64_MAX - 1, INT32_MAX, INT64_C(1) << 31,
        INT64_C(1) << 32, INT64_C(1) << 61, INT64_C(1) << 62, INT64_MAX / 4, INT64_MAX / 8, INT64_MAX / 16, INT32_MIN,
        INT64_C(3037000500), INT64_C(1) << 40, INT64_C(1) << 20, 0, 1, 4097};
    uint32_t pick = fuzz_below(f, 64);
    if (pick < sizeof numbers / sizeof *numbers) return numbers[pick];
    int64_t bits = (int64_t)(fuzz_bits(f) >> fuzz_below(f, 64));
    return pick % 2 == 0 ? bits : -1 - (bits & INT64_MAX);
}

int64_t fuzz_dim(fuzz *f, int64_t low, int64_t high)
{
    if (fuzz_wild(f, 12)) return fuzz_bad_number(f);
    return low + (int64_t)fuzz_below(f, (uint32_t)(high - low + 1));
}

int64_t fuzz_stride(fuzz *f, int64_t least)
{
    if (fuzz_wild(f, 8)) return fuzz_below(f, 2) ? fuzz_bad_number(f) : (int64_t)fuzz_below(f, 16);
    if (least < 0 || least > FUZZ_MOST_BYTES) return least;
    return fuzz_below(f, 4) == 0 ? least + (int64_t)fuzz_below(f, 9) : least;
}

int32_t fuzz_code(fuzz *f, const int32_t *codes, uint32_t count)
{
    if (fuzz_wild(f, 24)) return (int32_t)fuzz_bad_number(f);
    return codes[fuzz_below(f, count)];
}

lspan_dtype fuzz_dtype(fuzz *f)
{
    static const int32_t codes[] = {lspan_dtype_f32, lspan_dtype_f16, lspan_dtype_bf16};
    return (lspan_dtype)fuzz_code(f, codes, 3);
}

int32_t fuzz_flag(fuzz *f)
{
    static const int32_t codes[] = {0, 1};
    return fuzz_code(f, codes, 2);
}

static float special_float(fuzz *f)
{
    static const uint32_t specials[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x7f7fffff, 0xff7fffff, 1, 0x80000001, 0,
        0x80000000, 0x00800000, 0x7f800001, 0x3f800000, 0xbf800000, 0x5f000000, 0xdf000000, 0x4f000000};
    uint32_t bits = specials[fuzz_bits(f) >> 60];
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float fuzz_float(fuzz *f, float usual)
{
    return fuzz_wild(f, 8) ? special_float(f) : usual;
}

/* ---- Contexts ------------------------------------------------------------------------------------------ */

/* Runs tasks on the calling thread, the last first, as different workers. `user`: how many, or NULL for all. */
static int run_backwards(void *user, size_t task_count, lspan_task_function function, void *argument)
{
    for (size_t i = task_count; i-- > 0;) {
        if (user && i < task_count / 2) return 1;
        function(argument, i, i % 3);
    }
    return 0;
}

static lspan_context *contexts[64];
static int fails[64];
static uint32_t context_count;
static char *guard;

static void make_context(const lspan_context_options *options, int failing, int profiled)
{
    lspan_context **made = &contexts[context_count];
    if (lspan_context_create(options, made) != lspan_status_ok) fuzz_fail("a context could not be made");
    if (profiled && lspan_profile_start(*made, NULL, 0) != lspan_status_ok) fuzz_fail("a profile did not start");
    fails[context_count++] = failing;
}

static void make_contexts(void)
{
    static int failing = 1;
    static const lspan_executor whole = {run_backwards, NULL, 3};
    static const lspan_executor partial = {run_backwards, &failing, 3};
    for (size_t i = 0; i < lspan_isa_count(); i++) {
        if (!lspan_isa_is_supported(i)) continue;
        make_context(&(lspan_context_options){.threads = 1, .isa = lspan_isa_name(i)}, 0, 0);
        make_context(&(lspan_context_options){.isa = lspan_isa_name(i), .executor = &whole}, 0, 1);
        make_context(&(lspan_context_options){.isa = lspan_isa_name(i), .executor = &whole, .fixed_split = 7}, 0, 1);
        make_context(&(lspan_context_options){.isa = lspan_isa_name(i), .executor = &partial}, 1, 1);
    }
    guard = mmap(NULL, GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (guard == MAP_FAILED) fuzz_fail("no address space");
}

const lspan_context *fuzz_context(fuzz *f)
{
    if (fuzz_wild(f, 64)) return NULL;
    return contexts[fuzz_below(f, context_count)];
}

int fuzz_context_fails(const lspan_context *context)
{
    for (uint32_t i = 0; i < context_count; i++) {
        if (contexts[i] == context) return fails[i];
    }
    return 0;
}

/* ---- The model of memory --------------------------------------------------------------------------------- */

long double fuzz_span(
    int64_t outer, int64_t outer_stride, int64_t middle, int64_t middle_stride, int64_t inner, size_t element)
{
    if (outer < 0 || middle < 0 || inner < 0 || outer_stride < 0 || middle_stride < 0) return -1;
    if (outer == 0 || middle == 0) return 0;
    long double last = (long double)(outer - 1) * outer_stride + (long double)(middle - 1) * middle_stride;
    return (last + inner) * element;
}

long double fuzz_count(int64_t a, int64_t b, int64_t c, size_t element)
{
    if (a < 0 || b < 0 || c < 0) return -1;
    return (long double)a * b * c * element;
}

int64_t fuzz_product(int64_t a, int64_t b)
{
    int64_t product;
    if (a < 0 || b < 0) return -1;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

void fuzz_work(fuzz *f, int64_t a, int64_t b, int64_t c, int64_t d)
{
    if (a < 0 || b < 0 || c < 0 || d < 0) return;
    if ((long double)a * b * c * d > FUZZ_MOST_WORK) f->too_big = 1;
}

fuzz_content fuzz_content_of(lspan_dtype dtype)
{
    return dtype == lspan_dtype_f32 ? fuzz_f32 : dtype == lspan_dtype_f16 ? fuzz_f16 : fuzz_bf16;
}

size_t fuzz_element(lspan_dtype dtype)
{
    return dtype == lspan_dtype_f32 ? 4 : 2;
}

/* ---- Operands ------------------------------------------------------------------------------------------ */

void fuzz_operand_at(fuzz *f, void *field, long double bytes, size_t alignment, fuzz_content content, int written)
{
    if (f->operand_count == FUZZ_OPERANDS) fuzz_fail("too many operands for the harness");
    f->operands[f->operand_count++] = (fuzz_operand){
        .field = field, .bytes = bytes, .alignment = alignment, .content = content, .written = written};
}

void fuzz_alone(fuzz *f)
{
    f->operands[f->operand_count - 1].alone = 1;
}

static size_t alignment_of(fuzz_content content)
{
    return content == fuzz_bytes ? 1 : content == fuzz_f16 || content == fuzz_bf16 ? 2 : 4;
}

void fuzz_input(fuzz *f, void *field, long double bytes, fuzz_content content)
{
    fuzz_operand_at(f, field, bytes, alignment_of(content), content, 0);
}

void fuzz_output(fuzz *f, void *field, long double bytes, fuzz_content content)
{
    fuzz_operand_at(f, field, bytes, alignment_of(content), content, 1);
}

static void set_pointer(void *field, void *pointer)
{
    memcpy(field, &pointer, sizeof pointer);
}

void fuzz_optional(fuzz *f, void *field, long double bytes, fuzz_content content, int written)
{
    if (fuzz_below(f, 2)) fuzz_operand_at(f, field, bytes, alignment_of(content), content, written);
    else set_pointer(field, NULL);
}

/* Strides of a view: packed heads in tokens, or tokens in heads. */
static void draw_strides(
    fuzz *f, int64_t tokens, int64_t heads, int64_t head_dim, int64_t *token_stride, int64_t *head_stride)
{
    int64_t span;
    int heads_inside = fuzz_below(f, 2) != 0;
    int64_t *inner = heads_inside ? head_stride : token_stride, *outer = heads_inside ? token_stride : head_stride;
    *inner = fuzz_stride(f, head_dim);
    if (__builtin_mul_overflow(heads_inside ? heads : tokens, *inner, &span)) span = INT64_MAX;
    *outer = fuzz_stride(f, span);
}

void fuzz_heads_input(fuzz *f, lspan_heads *view, int64_t tokens, int64_t heads, int64_t head_dim)
{
    draw_strides(f, tokens, heads, head_dim, &view->token_stride, &view->head_stride);
    if (fuzz_below(f, 16) == 0) view->token_stride = 0;
    long double bytes = fuzz_span(
        tokens, view->token_stride, heads, view->head_stride, head_dim, fuzz_element(view->dtype));
    fuzz_work(f, tokens, heads, head_dim, 1);
    fuzz_input(f, &view->data, bytes, fuzz_content_of(view->dtype));
}

void fuzz_heads_output(fuzz *f, lspan_heads_out *view, int64_t tokens, int64_t heads, int64_t head_dim)
{
    draw_strides(f, tokens, heads, head_dim, &view->token_stride, &view->head_stride);
    long double bytes = fuzz_span(
        tokens, view->token_stride, heads, view->head_stride, head_dim, fuzz_element(view->dtype));
    fuzz_work(f, tokens, heads, head_dim, 1);
    fuzz_output(f, &view->data, bytes, fuzz_content_of(view->dtype));
}

void fuzz_matrix_input(fuzz *f, lspan_matrix *view, int64_t rows, int64_t columns)
{
    view->row_stride = fuzz_below(f, 16) ? fuzz_stride(f, columns) : 0;
    fuzz_work(f, rows, columns, 1, 1);
    fuzz_input(
        f, &view->data, fuzz_span(rows, view->row_stride, 1, 0, columns, fuzz_element(view->dtype)),
        fuzz_content_of(view->dtype));
}

void fuzz_matrix_output(fuzz *f, lspan_matrix_out *view, int64_t rows, int64_t columns)
{
    view->row_stride = fuzz_stride(f, columns);
    fuzz_work(f, rows, columns, 1, 1);
    fuzz_output(
        f, &view->data, fuzz_span(rows, view->row_stride, 1, 0, columns, fuzz_element(view->dtype)),
        fuzz_content_of(view->dtype));
}

/* ---- Index arrays -------------------------------------------------------------------------------------- */

static void *keep_block(fuzz *f, void *block)
{
    if (f->block_count == FUZZ_OPERANDS) fuzz_fail("too many blocks for the harness");
    return f->blocks[f->block_count++] = block;
}

void *fuzz_indices(fuzz *f, int64_t count, size_t element)
{
    long double bytes = (long double)count * element;
    if (count < 0 || bytes > 18446744073709551615.0L) return guard;
    if (bytes > FUZZ_MOST_BYTES || fuzz_wild(f, 40)) return NULL;
    if (fuzz_wild(f, 40)) return (char *)keep_block(f, calloc((size_t)count * element + 1, 1)) + 1;
    return keep_block(f, calloc((size_t)count, element));
}

int fuzz_usable(const void *array, size_t element)
{
    return array && array != guard && (uintptr_t)array % element == 0;
}

const int64_t *fuzz_indptr(fuzz *f, int64_t sequences, int64_t most, int64_t *total)
{
    int64_t *indptr = fuzz_indices(f, sequences == INT64_MAX ? sequences : sequences + 1, sizeof *indptr);
    *total = 0;
    if (sequences < 0) return (const int64_t *)(void *)guard;
    if (!fuzz_usable(indptr, sizeof *indptr)) return indptr;
    for (int64_t b = 0; b < sequences; b++) {
        indptr[b + 1] = indptr[b] + (int64_t)fuzz_below(f, (uint32_t)most + 1);
    }
    if (fuzz_wild(f, 12)) indptr[fuzz_bits(f) % (uint64_t)(sequences + 1)] = fuzz_bad_number(f);
    *total = indptr[sequences];
    return indptr;
}

/* ---- Placing ------------------------------------------------------------------------------------------- */

static void fill_floats(fuzz *f, char *at, size_t bytes, fuzz_content content)
{
    size_t element = alignment_of(content);
    for (size_t i = 0; i + element <= bytes; i += element) {
        uint64_t bits = fuzz_bits(f);
        float value = (float)((double)(bits >> 40) / 8388608.0 - 1.0);
        if (content == fuzz_decay) value = -(value * value);
        if (content == fuzz_scale) value = value * value;
        if (f->values == 2 && bits % 4 == 0) value = special_float(f);
        uint32_t raw;
        memcpy(&raw, &value, sizeof raw);
        if (content == fuzz_bf16) raw >>= 16;
        /* of the same sign and about the same size: exponents of f16 are 112 lower */
        if (content == fuzz_f16) raw = (raw >> 16 & 0x8000) | ((raw >> 13) & 0x7fff);
        if (content == fuzz_f16 && f->values == 0) raw = (raw & 0x8000) | (raw & 0x3bff);
        memcpy(at + i, &raw, element);
    }
}

static void fill(fuzz *f, char *at, size_t bytes, fuzz_content content)
{
    if (content != fuzz_bytes && f->values != 1) {
        fill_floats(f, at, bytes, content);
        return;
    }
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t bits = fuzz_bits(f);
        memcpy(at + i, &bits, bytes - i < 8 ? bytes - i : 8);
    }
}

static char *allocate(size_t alignment, size_t bytes)
{
    void *block;
    if (posix_memalign(&block, alignment < 16 ? 16 : alignment, bytes) != 0) fuzz_fail("out of memory");
    return block;
}

static void place_one(fuzz *f, fuzz_operand *o)
{
    if (o->bytes < 0 || o->bytes > 18446744073709551615.0L) {
        set_pointer(o->field, guard + GUARD_BYTES / 2);
        return;
    }
    if (o->bytes > FUZZ_MOST_BYTES || f->too_big || fuzz_wild(f, 32)) {
        set_pointer(o->field, NULL);
        return;
    }
    size_t shift = fuzz_wild(f, 32) ? 1 + fuzz_below(f, 3) : 0;
    if (o->bytes == 0 && shift == 0 && fuzz_below(f, 2)) {
        set_pointer(o->field, fuzz_below(f, 2) ? guard + GUARD_BYTES / 2 : NULL);
        return;
    }
    size_t bytes = (size_t)o->bytes;
    o->block = allocate(o->alignment, bytes + shift);
    o->at = o->block + shift;
    fill(f, o->at, bytes, o->content);
    set_pointer(o->field, o->at);
}

/* All operands but those that stay alone in one block, at places of their own choice. */
static void place_overlapping(fuzz *f)
{
    size_t most = 0;
    for (size_t i = 0; i < f->operand_count; i++) {
        const fuzz_operand *o = &f->operands[i];
        if (o->bytes < 0 || o->bytes > FUZZ_MOST_BYTES) f->overlap = 0;
        else if ((size_t)o->bytes > most) most = (size_t)o->bytes;
    }
    if (!f->overlap || f->too_big) return;
    size_t size = most + 64 * (size_t)fuzz_below(f, 8);
    char *block = keep_block(f, allocate(64, size));
    fill(f, block, size, fuzz_f32);
    for (size_t i = 0; i < f->operand_count; i++) {
        fuzz_operand *o = &f->operands[i];
        if (o->alone) {
            place_one(f, o);
            continue;
        }
        size_t places = (size - (size_t)o->bytes) / o->alignment + 1;
        set_pointer(o->field, block + (fuzz_byte(f) << 8 | fuzz_byte(f)) % places * o->alignment);
    }
}

void fuzz_place(fuzz *f)
{
    if (f->overlap) place_overlapping(f);
    if (f->overlap && !f->too_big) return;
    f->overlap = 0;
    for (size_t i = 0; i < f->operand_count; i++) {
        fuzz_operand *o = &f->operands[i];
        place_one(f, o);
        if (!o->block) continue;
        o->before = malloc((size_t)o->bytes + 1);
        memcpy(o->before, o->at, (size_t)o->bytes);
    }
}

void *fuzz_workspace(fuzz *f, lspan_status query, size_t bytes, size_t *given)
{
    *given = bytes;
    if (query != lspan_status_ok || bytes > (size_t)1 << 26) {
        *given = fuzz_below(f, 2) ? SIZE_MAX : 0;
        return query == lspan_status_ok ? NULL : guard;
    }
    if (fuzz_wild(f, 24)) return NULL;
    size_t shift = fuzz_wild(f, 24) ? 1 + fuzz_below(f, 63) : 0;
    char *block = keep_block(f, allocate(LSPAN_WORKSPACE_ALIGNMENT, bytes + shift));
    if (bytes > 0 && fuzz_wild(f, 24)) *given = bytes - 1;
    /* what a call finds there must not matter */
    memset(block, 0xff, bytes + shift);
    return block + shift;
}

void fuzz_finish(fuzz *f, const lspan_context *context, lspan_status status)
{
    if (strcmp(lspan_status_name(status), "unknown") == 0) fuzz_fail("a status without a name");
    if (status == lspan_status_executor_failed && !fuzz_context_fails(context)) fuzz_fail("an executor did not fail");
    int kept = status != lspan_status_ok && status != lspan_status_executor_failed;
    for (size_t i = 0; i < f->operand_count; i++) {
        fuzz_operand *o = &f->operands[i];
        if (o->before && (!o->written || kept) && memcmp(o->before, o->at, (size_t)o->bytes) != 0) {
            fuzz_fail(o->written ? "an output was written by a call that was refused" : "an input was written");
        }
        free(o->before);
        free(o->block);
    }
    for (size_t i = 0; i < f->block_count; i++) free(f->blocks[i]);
}

/* ---- Entry --------------------------------------------------------------------------------------------- */

static const fuzz_target *const families[] = {fuzz_attention_targets, fuzz_dense_targets, fuzz_kv_targets,
    fuzz_product_targets, fuzz_ssm_targets, fuzz_system_targets};

static const fuzz_target *chosen;

static const fuzz_target *find_target(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        for (const fuzz_target *t = families[i]; t->name; t++) {
            if (strcmp(t->name, name) == 0) return t;
        }
    }
    return NULL;
}

/* LSPAN_FUZZ_TARGET names the target; "list" prints all of them with their functions. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    const char *name = getenv("LSPAN_FUZZ_TARGET");
    if (name && strcmp(name, "list") == 0) {
        for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
            for (const fuzz_target *t = families[i]; t->name; t++) printf("%s %s\n", t->name, t->entries);
        }
        exit(0);
    }
    chosen = name ? find_target(name) : NULL;
    if (!chosen) {
        fprintf(stderr, "LSPAN_FUZZ_TARGET must name a target; \"list\" lists them\n");
        exit(2);
    }
    make_contexts();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {.data = data, .size = size, .random = 1};
    for (size_t i = 0; i < size; i++) f.random = (f.random ^ data[i]) * UINT64_C(0x100000001b3);
    uint32_t mode = fuzz_byte(&f);
    f.wild = (mode & 3) == 0;
    f.overlap = (mode & 28) == 4;
    f.values = (int)(mode >> 5) % 3;
    chosen->run(&f);
    return 0;
}
