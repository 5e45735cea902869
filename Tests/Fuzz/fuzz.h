/* fuzz.h: what the fuzz targets of the C library share: drawing arguments, giving them memory, checking what is left.
 *
 * A call's shapes, strides and codes are drawn first, freely: mostly small, in wild calls also negative or enormous. A
 * model of this harness's own, in long double so that nothing overflows unseen, then says how many bytes each operand
 * spans, and fuzz_place gives each the memory that this calls for:
 *
 *     no valid call could have it (negative, or more than an address space)     a page that must not be touched
 *     a valid call could, but not this process                                  NULL, which has to be refused
 *     anything less                                                            exactly as many bytes, between redzones
 *
 * After the call no input may have changed, nor an output unless the call succeeded (status.h). */
#ifndef LSPAN_FUZZ_H
#define LSPAN_FUZZ_H

#include <longspan/longspan.h>
#include <stddef.h>
#include <stdint.h>

#define FUZZ_OPERANDS 64
/* A call that would touch more bytes than this in one operand, or do more steps, is not made. */
#define FUZZ_MOST_BYTES 262144
#define FUZZ_MOST_WORK 400000

/* What an operand's memory is filled with. */
typedef enum fuzz_content {
    fuzz_bytes,
    fuzz_f32,
    fuzz_f16,
    fuzz_bf16,
    fuzz_decay, /* f32, none above 0 */
    fuzz_scale  /* f32, none below 0 */
} fuzz_content;

typedef struct fuzz_operand {
    void *field; /* the pointer that gets the address */
    long double bytes;
    size_t alignment;
    fuzz_content content;
    int written;
    int alone;    /* never shares memory with others */
    char *block;  /* what was allocated, or NULL */
    char *at;     /* where the operand begins in it */
    char *before; /* its bytes before the call */
} fuzz_operand;

typedef struct fuzz {
    const uint8_t *data;
    size_t size;
    uint64_t random;
    int wild;    /* whether values out of range are drawn */
    int overlap; /* whether operands share memory */
    int too_big; /* the call is legal, but more than this process should run */
    int values;  /* of floats: 0 ordinary, 1 any bits, 2 extremes */
    fuzz_operand operands[FUZZ_OPERANDS];
    size_t operand_count;
    void *blocks[FUZZ_OPERANDS];
    size_t block_count;
} fuzz;

/* ---- Drawing ------------------------------------------------------------------------------------------- */

uint32_t fuzz_byte(fuzz *f);
uint64_t fuzz_bits(fuzz *f);
/* 0 .. below - 1 */
uint32_t fuzz_below(fuzz *f, uint32_t below);
/* 1 in `n`, in wild calls only */
int fuzz_wild(fuzz *f, uint32_t n);
/* A dimension from low to high; in wild calls sometimes any number, mostly one at which arithmetic overflows. */
int64_t fuzz_dim(fuzz *f, int64_t low, int64_t high);
/* A stride of at least `least`, sometimes more; in wild calls also less, or any number. */
int64_t fuzz_stride(fuzz *f, int64_t least);
/* An enum's code: one of those listed; in wild calls sometimes any number. */
int32_t fuzz_code(fuzz *f, const int32_t *codes, uint32_t count);
lspan_dtype fuzz_dtype(fuzz *f);
int32_t fuzz_flag(fuzz *f);
/* `usual`, in wild calls sometimes a special value. */
float fuzz_float(fuzz *f, float usual);
/* One of the contexts of every ISA variant that runs here, or in wild calls NULL. */
const lspan_context *fuzz_context(fuzz *f);
/* Whether that context's executor may fail. */
int fuzz_context_fails(const lspan_context *context);

/* ---- Memory -------------------------------------------------------------------------------------------- */

/* Bytes from the first to behind the last element of an [outer, middle, inner] view; negative where a dimension or a
 * stride is. */
long double fuzz_span(
    int64_t outer, int64_t outer_stride, int64_t middle, int64_t middle_stride, int64_t inner, size_t element);
/* Bytes of a contiguous array. */
long double fuzz_count(int64_t a, int64_t b, int64_t c, size_t element);
/* a * b, the greatest number where that is too much, -1 where a factor is negative. */
int64_t fuzz_product(int64_t a, int64_t b);
/* Counts steps that a call takes though its operands are small: stride 0 repeats rows. */
void fuzz_work(fuzz *f, int64_t a, int64_t b, int64_t c, int64_t d);

fuzz_content fuzz_content_of(lspan_dtype dtype);
size_t fuzz_element(lspan_dtype dtype);

/* An operand whose pointer, at `field`, is set by fuzz_place. */
void fuzz_operand_at(fuzz *f, void *field, long double bytes, size_t alignment, fuzz_content content, int written);
void fuzz_input(fuzz *f, void *field, long double bytes, fuzz_content content);
void fuzz_output(fuzz *f, void *field, long double bytes, fuzz_content content);
/* The operand registered last is one that the library counts or points with: it never shares memory. */
void fuzz_alone(fuzz *f);
/* The same as an input or output, but in one call of two the pointer is NULL. */
void fuzz_optional(fuzz *f, void *field, long double bytes, fuzz_content content, int written);
/* Registers the data of a view with the strides drawn. */
void fuzz_heads_input(fuzz *f, lspan_heads *view, int64_t tokens, int64_t heads, int64_t head_dim);
void fuzz_heads_output(fuzz *f, lspan_heads_out *view, int64_t tokens, int64_t heads, int64_t head_dim);
void fuzz_matrix_input(fuzz *f, lspan_matrix *view, int64_t rows, int64_t columns);
void fuzz_matrix_output(fuzz *f, lspan_matrix_out *view, int64_t rows, int64_t columns);

/* An array that the library reads as numbers of places, never shared with other operands: exactly `count` elements of
 * `element` bytes, zeroed; NULL where that is too much or, in wild calls, sometimes. */
void *fuzz_indices(fuzz *f, int64_t count, size_t element);
/* Whether an array may be read. */
int fuzz_usable(const void *array, size_t element);
/* indptr of `sequences` with steps of 0 .. most; in wild calls sometimes with a wrong entry. *total: its last entry, 0
 * without one. */
const int64_t *fuzz_indptr(fuzz *f, int64_t sequences, int64_t most, int64_t *total);
/* What fuzz_indptr and the like put in place of good entries, in wild calls. */
int64_t fuzz_bad_number(fuzz *f);

/* Gives every operand its memory. */
void fuzz_place(fuzz *f);
/* Workspace of `bytes` bytes, or something else that has to be refused; *given: the count to pass. */
void *fuzz_workspace(fuzz *f, lspan_status query, size_t bytes, size_t *given);
/* Checks and frees all memory of a call that returned `status`. */
void fuzz_finish(fuzz *f, const lspan_context *context, lspan_status status);
/* Ends the process, as a finding. */
void fuzz_fail(const char *what);

/* Asks for workspace, runs, and finishes. */
#define FUZZ_RUN(f, context, call, size, run) \
    do { \
        size_t bytes_ = 0, given_; \
        lspan_status query_ = size(context, call, fuzz_wild(f, 64) ? NULL : &bytes_); \
        if (query_ != lspan_status_ok && bytes_ != 0) fuzz_fail("a refused query wrote a size"); \
        query_ = size(context, call, &bytes_); \
        void *workspace_ = fuzz_workspace(f, query_, bytes_, &given_); \
        lspan_status status_ = run(context, call, workspace_, given_); \
        if (query_ != lspan_status_ok && status_ == lspan_status_ok) fuzz_fail("a call that has no workspace ran"); \
        fuzz_finish(f, context, status_); \
    } while (0)

/* ---- Targets ------------------------------------------------------------------------------------------- */

typedef struct fuzz_target {
    const char *name;
    void (*run)(fuzz *f);
    const char *entries; /* the functions it calls, separated by blanks */
} fuzz_target;

extern const fuzz_target fuzz_attention_targets[];
extern const fuzz_target fuzz_dense_targets[];
extern const fuzz_target fuzz_kv_targets[];
extern const fuzz_target fuzz_product_targets[];
extern const fuzz_target fuzz_ssm_targets[];
extern const fuzz_target fuzz_system_targets[];

#endif
