/* support.h: what every kernel test uses: seeded random tensors behind guard pages, contexts of every variant,
 * and the error rule.
 *
 * Failures are counted and printed with the current case (test_case) and the seed; test_finish prints a summary
 * line and gives main's exit code. Only the main thread may call these functions, except where noted. */
#ifndef LSPAN_TEST_SUPPORT_H
#define LSPAN_TEST_SUPPORT_H

#include "reference.h"
#include <longspan/longspan.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEST_PRINTF(string, first) __attribute__((format(printf, string, first)))

/* ---- Cases and checks ------------------------------------------------------------------------------- */

/* Describes what runs now, for failure messages. */
void test_case(const char *format, ...) TEST_PRINTF(1, 2);
/* Counts a check; if it failed, prints where and what. Returns passed. */
int test_check(int passed, const char *file, int line, const char *format, ...) TEST_PRINTF(4, 5);
#define CHECK(condition) test_check((condition) ? 1 : 0, __FILE__, __LINE__, "%s", #condition)
#define CHECK_MESSAGE(condition, ...) test_check((condition) ? 1 : 0, __FILE__, __LINE__, __VA_ARGS__)
/* The expression's status is the expected one. */
int test_status(lspan_status got, lspan_status want, const char *file, int line, const char *expression);
#define CHECK_STATUS(expression, want) test_status((expression), (want), __FILE__, __LINE__, #expression)
#define CHECK_OK(expression) CHECK_STATUS(expression, lspan_status_ok)
/* Prints the summary and returns 0 if every check passed, else 1. */
int test_finish(const char *name);

/* ---- Random numbers: xoshiro256** (Blackman and Vigna 2018), seeded by LONGSPAN_TEST_SEED or a constant -- */

uint64_t test_seed(void);
uint64_t test_random(void);
/* Uniform in low .. high, both included. */
int64_t test_random_int(int64_t low, int64_t high);
/* True once in n times. */
int test_one_in(int n);
/* Uniform in [0, 1). */
double test_random_unit(void);
/* Standard normal. */
float test_random_normal(void);
lspan_dtype test_random_dtype(void);

/* ---- Memory ------------------------------------------------------------------------------------------ */

/* `bytes` bytes that end at a page that cannot be touched (or less than `alignment` bytes before it), filled with
 * the pattern 0xFF, which is a NaN in every dtype. */
typedef struct test_buffer {
    void *data;
    size_t bytes;
    char *map;
    size_t map_bytes;
} test_buffer;

test_buffer test_allocate(size_t bytes, size_t alignment);
/* Frees; a write outside the buffer but inside its pages is a failure. */
void test_release(test_buffer *buffer);
/* Every byte still holds the pattern. */
int test_is_untouched(const void *data, size_t bytes);

/* ---- Tensors ----------------------------------------------------------------------------------------- */

typedef enum test_layout {
    test_layout_token_major,
    test_layout_head_major,
    test_layout_padded_token_major,
    test_layout_padded_head_major,
    test_layout_count
} test_layout;

/* [tokens, heads, columns]; a matrix is one with a single head. Elements between the rows hold the pattern. */
typedef struct test_tensor {
    test_buffer buffer;
    lspan_dtype dtype;
    int64_t tokens;
    int64_t heads;
    int64_t columns;
    int64_t token_stride;
    int64_t head_stride;
} test_tensor;

test_tensor test_tensor_make(lspan_dtype dtype, int64_t tokens, int64_t heads, int64_t columns, test_layout layout);
test_tensor test_tensor_random(
    lspan_dtype dtype, int64_t tokens, int64_t heads, int64_t columns, test_layout layout, float spread);
/* Same layout and contents, memory of its own. */
test_tensor test_tensor_copy(const test_tensor *tensor);
void test_tensor_release(test_tensor *tensor);
test_layout test_random_layout(void);

float test_get(const test_tensor *tensor, int64_t token, int64_t head, int64_t column);
/* Rounds to the tensor's dtype. */
void test_set(test_tensor *tensor, int64_t token, int64_t head, int64_t column, float value);
/* Contiguous f32 copy; free() it. */
float *test_gather(const test_tensor *tensor);
/* Elements outside the view still hold the pattern. */
void test_check_gaps(const test_tensor *tensor);

lspan_heads test_heads(const test_tensor *tensor);
lspan_heads_out test_heads_out(const test_tensor *tensor);
lspan_matrix test_matrix(const test_tensor *tensor);
lspan_matrix_out test_matrix_out(const test_tensor *tensor);

/* malloc of `count` elements, at least one; ends the test where there is no memory. */
void *test_malloc(int64_t count, size_t element);
float *test_floats(int64_t count, float spread);

/* ---- Contexts ---------------------------------------------------------------------------------------- */

typedef struct test_context {
    const lspan_context *context;
    const char *isa;
    int threads;
    char name[48]; /* both, for messages */
} test_context;

/* Supported ISA variants, best first: all, or those that the environment's LONGSPAN_TEST_ISA lists ("avx2,scalar"). */
const char *const *test_isas(size_t *count);

#define TEST_THREAD_COUNTS 3
/* Every such variant with 1, 2 and 3 threads, in that order of threads within a variant. */
const test_context *test_contexts(size_t *count);

/* ---- The error rule ---------------------------------------------------------------------------------- */

/* f32 and narrower rounding: half the spacing of values in [1, 2). */
double test_epsilon(lspan_dtype dtype);
/* The largest magnitude among finite values. */
double test_largest(const double *values, int64_t count);

/* Passes if max |got - want| <= 2 max |simple - want| + floor, with `simple` the straightforward f32 result after
 * rounding to `dtype`; NaN must meet NaN, and an infinity the same infinity. Remembers the worst ratio of the two
 * sides for each `kernel` name. */
void test_check_errors(
    const char *kernel, const char *context, lspan_dtype dtype, const float *got, const double *want,
    const float *simple, int64_t count, double floor);

/* Passes if each |got - want| <= bound of its own; NaN must meet NaN, and an infinity the same infinity. */
void test_check_bounds(
    const char *kernel, const char *context, const float *got, const double *want, const double *bounds, int64_t count);

#endif
