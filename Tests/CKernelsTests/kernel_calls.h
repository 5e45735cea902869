/* kernel_calls.h: at least one call of every kernel of the library, for tests of what holds for them all: the bits that
 * they give, what they ask of the system, and that they may run on any thread.
 *
 * Shapes are such that every call is cut into several tasks where its kernel ever is, in another way for each number of
 * workers. Calls are made once and kept until the process ends. */
#ifndef LSPAN_TEST_KERNEL_CALLS_H
#define LSPAN_TEST_KERNEL_CALLS_H

#include "support.h"

#define KERNEL_CALL_OUTPUTS 6

/* Memory that a call writes. */
typedef struct kernel_output {
    void *data;
    size_t bytes;
    void *before; /* what is there before a call that works in place; NULL: anything */
} kernel_output;

typedef lspan_status (*kernel_size)(const lspan_context *context, const void *arguments, size_t *bytes);
typedef lspan_status (*kernel_run)(
    const lspan_context *context, const void *arguments, void *workspace, size_t workspace_bytes);

typedef struct kernel_call {
    char name[80];
    kernel_size size; /* NULL: there is no workspace */
    kernel_run run;
    const void *arguments;
    kernel_output outputs[KERNEL_CALL_OUTPUTS];
    int output_count;
    /* It runs OpenBLAS, which decides in what order it adds, allocates at its first calls and has one lock. */
    int uses_openblas;
} kernel_call;

const kernel_call *kernel_calls(size_t *count);

/* Bytes of the workspace that a call asks for, 0 where it has none. */
size_t kernel_call_bytes(const kernel_call *call, const lspan_context *context);
/* Gives what the call changes in place its old content, and other outputs the byte `fill`. */
void kernel_call_reset(const kernel_call *call, int fill);
/* Resets, and runs with a workspace of just the size asked for that holds the byte `fill`. */
lspan_status kernel_call_run(const kernel_call *call, const lspan_context *context, int fill);
/* A copy of the outputs; free() it. */
unsigned char *kernel_call_results(const kernel_call *call);
/* Whether the outputs are those, bit for bit. */
int kernel_call_equals(const kernel_call *call, const unsigned char *results);

/* ---- For the files that make the calls ----------------------------------------------------------------- */

kernel_call *kernel_call_add(kernel_size size, kernel_run run, const void *arguments, const char *format, ...)
    TEST_PRINTF(4, 5);
/* Memory of an output, and of one that holds something beforehand. */
void *kernel_call_output(kernel_call *call, int64_t count, size_t element);
void kernel_call_in_place(kernel_call *call, void *data, size_t bytes);

void kernel_calls_attention(void);
void kernel_calls_cache(void);
void kernel_calls_dense(void);
void kernel_calls_ssm(void);

/* Defines size_KERNEL and run_KERNEL for a kernel that takes one struct and a workspace, and for one without. */
#define KERNEL_WITH_WORKSPACE(kernel, function, type) \
    static lspan_status size_##kernel(const lspan_context *context, const void *arguments, size_t *bytes) \
    { \
        return lspan_##kernel##_workspace_size(context, (const type *)arguments, bytes); \
    } \
    static lspan_status run_##kernel(const lspan_context *context, const void *arguments, void *memory, size_t bytes) \
    { \
        return function(context, (const type *)arguments, memory, bytes); \
    }
#define KERNEL_WITHOUT_WORKSPACE(kernel, function, type) \
    static lspan_status run_##kernel(const lspan_context *context, const void *arguments, void *memory, size_t bytes) \
    { \
        (void)memory; \
        (void)bytes; \
        return function(context, (const type *)arguments); \
    }
/* The same for a kernel with several parameters: `call` points to a struct that holds them. */
#define KERNEL_WITH_PARAMETERS(kernel, type, ...) \
    static lspan_status run_##kernel(const lspan_context *context, const void *arguments, void *memory, size_t bytes) \
    { \
        const type *call = arguments; \
        (void)memory; \
        (void)bytes; \
        return lspan_##kernel(context, __VA_ARGS__); \
    }

/* A copy of a struct that lives on. */
#define KERNEL_KEEP(type, ...) ((type *)memcpy(test_malloc(1, sizeof(type)), &(type)__VA_ARGS__, sizeof(type)))

#endif
