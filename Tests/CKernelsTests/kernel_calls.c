/* kernel_calls.c: see kernel_calls.h. */
#include "kernel_calls.h"
#include <stdarg.h>

#define MAX_CALLS 128

static kernel_call calls[MAX_CALLS];
static size_t made;

const kernel_call *kernel_calls(size_t *count)
{
    if (made == 0) {
        kernel_calls_attention();
        kernel_calls_cache();
        kernel_calls_dense();
        kernel_calls_ssm();
    }
    *count = made;
    return calls;
}

kernel_call *kernel_call_add(kernel_size size, kernel_run run, const void *arguments, const char *format, ...)
{
    if (made == MAX_CALLS) {
        fprintf(stderr, "more than %d kernel calls\n", MAX_CALLS);
        exit(2);
    }
    kernel_call *call = &calls[made++];
    *call = (kernel_call){.size = size, .run = run, .arguments = arguments};
    va_list arguments_of_format;
    va_start(arguments_of_format, format);
    vsnprintf(call->name, sizeof call->name, format, arguments_of_format);
    va_end(arguments_of_format);
    return call;
}

static kernel_output *add_output(kernel_call *call, void *data, size_t bytes)
{
    if (call->output_count == KERNEL_CALL_OUTPUTS) {
        fprintf(stderr, "%s: more than %d outputs\n", call->name, KERNEL_CALL_OUTPUTS);
        exit(2);
    }
    kernel_output *output = &call->outputs[call->output_count++];
    *output = (kernel_output){data, bytes, NULL};
    return output;
}

void *kernel_call_output(kernel_call *call, int64_t count, size_t element)
{
    void *data = test_malloc(count, element);
    add_output(call, data, (size_t)count * element);
    return data;
}

void kernel_call_in_place(kernel_call *call, void *data, size_t bytes)
{
    kernel_output *output = add_output(call, data, bytes);
    output->before = test_malloc((int64_t)bytes, 1);
    memcpy(output->before, data, bytes);
}

size_t kernel_call_bytes(const kernel_call *call, const lspan_context *context)
{
    size_t bytes = 0;
    if (call->size) CHECK_OK(call->size(context, call->arguments, &bytes));
    return bytes;
}

void kernel_call_reset(const kernel_call *call, int fill)
{
    for (int i = 0; i < call->output_count; i++) {
        const kernel_output *output = &call->outputs[i];
        if (output->before) memcpy(output->data, output->before, output->bytes);
        else memset(output->data, fill, output->bytes);
    }
}

lspan_status kernel_call_run(const kernel_call *call, const lspan_context *context, int fill)
{
    size_t bytes = kernel_call_bytes(call, context);
    test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    memset(workspace.data, fill, bytes);
    kernel_call_reset(call, fill);
    lspan_status status = call->run(context, call->arguments, workspace.data, bytes);
    test_release(&workspace);
    return status;
}

unsigned char *kernel_call_results(const kernel_call *call)
{
    size_t bytes = 0, at = 0;
    for (int i = 0; i < call->output_count; i++) bytes += call->outputs[i].bytes;
    unsigned char *results = test_malloc((int64_t)bytes, 1);
    for (int i = 0; i < call->output_count; i++) {
        memcpy(results + at, call->outputs[i].data, call->outputs[i].bytes);
        at += call->outputs[i].bytes;
    }
    return results;
}

int kernel_call_equals(const kernel_call *call, const unsigned char *results)
{
    int equal = 1;
    for (int i = 0; i < call->output_count; i++) {
        equal = equal && memcmp(results, call->outputs[i].data, call->outputs[i].bytes) == 0;
        results += call->outputs[i].bytes;
    }
    return equal;
}
