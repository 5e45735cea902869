/* system_fuzz.c: targets of context.h, status.h, types.h, profile.h and measure.h. */
#include "fuzz.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Codes --------------------------------------------------------------------------------------------- */

static void fuzz_codes(fuzz *f)
{
    int32_t code = fuzz_below(f, 2) ? (int32_t)fuzz_below(f, 160) : (int32_t)fuzz_bad_number(f);
    size_t index = fuzz_below(f, 2) ? fuzz_below(f, 16) : (size_t)fuzz_bad_number(f);
    if (!*lspan_status_name((lspan_status)code) || !*lspan_status_description((lspan_status)code)) {
        fuzz_fail("a status without a description");
    }
    if (lspan_dtype_size((lspan_dtype)code) > 4) fuzz_fail("a dtype of more than 4 bytes");
    int64_t elements = -1, bytes = -1;
    lspan_block_type_layout((lspan_block_type)code, fuzz_below(f, 4) ? &elements : NULL, fuzz_below(f, 4) ? &bytes : NULL);
    if ((elements == 0) != (bytes == 0) && elements != -1 && bytes != -1) fuzz_fail("blocks without elements or bytes");
    int listed = index < lspan_isa_count();
    if ((lspan_isa_name(index) != NULL) != listed) fuzz_fail("a variant without a name, or a name without a variant");
    if (!listed && lspan_isa_is_supported(index)) fuzz_fail("a variant that does not exist is supported");
    if (!*lspan_profile_kernel_name((lspan_profile_kernel)code)) fuzz_fail("a kernel without a name");
    int is_kernel = code >= 0 && (size_t)code < lspan_profile_kernel_count();
    if ((strcmp(lspan_profile_kernel_name((lspan_profile_kernel)code), "unknown") != 0) != is_kernel) {
        fuzz_fail("a kernel's name is wrong");
    }
    if (!*lspan_version() || lspan_abi() != LSPAN_ABI) fuzz_fail("another version than the headers'");
    if (!*lspan_openblas_config() || lspan_openblas_parallel() < 0) fuzz_fail("OpenBLAS says nothing");
}

static void fuzz_topology(fuzz *f)
{
    lspan_topology topology;
    if (fuzz_below(f, 64)) {
        if (lspan_topology_read(NULL) != lspan_status_null_pointer) fuzz_fail("a topology was read into nothing");
        return;
    }
    if (lspan_topology_read(&topology) != lspan_status_ok) fuzz_fail("the topology was not read");
    if (topology.cores < 1 || topology.processing_units < topology.cores) fuzz_fail("a machine without cores");
}

/* ---- Contexts ------------------------------------------------------------------------------------------ */

static int run_all(void *user, size_t task_count, lspan_task_function function, void *argument)
{
    for (size_t i = 0; i < task_count; i++) function(argument, i, 0);
    (void)user;
    return 0;
}

/* The name of a variant, of none, or bytes. */
static const char *draw_isa(fuzz *f, char name[16])
{
    if (fuzz_below(f, 2)) return NULL;
    if (fuzz_below(f, 2)) return lspan_isa_name(fuzz_below(f, (uint32_t)lspan_isa_count()));
    uint32_t length = fuzz_below(f, 16);
    for (uint32_t i = 0; i < length; i++) name[i] = (char)fuzz_byte(f);
    name[length] = 0;
    return name;
}

static void fuzz_context_create(fuzz *f)
{
    char name[16];
    lspan_executor executor = {fuzz_wild(f, 8) ? NULL : run_all, f, (size_t)fuzz_dim(f, 1, 64)};
    /* without threads hwloc is asked, which takes milliseconds */
    lspan_context_options options = {.threads = fuzz_below(f, 32) ? (int32_t)fuzz_dim(f, 1, 4) : 0,
        .isa = draw_isa(f, name), .executor = fuzz_below(f, 2) ? &executor : NULL,
        .fixed_split = fuzz_below(f, 2) ? 0 : (int32_t)fuzz_dim(f, 1, 4096)};
    int32_t abi = fuzz_wild(f, 8) ? (int32_t)fuzz_bad_number(f) : LSPAN_ABI;
    lspan_context *context = (lspan_context *)(void *)f;
    lspan_status status = lspan_context_create_abi(
        abi, fuzz_below(f, 64) ? &options : NULL, fuzz_wild(f, 32) ? NULL : &context);
    if (abi != LSPAN_ABI && status != lspan_status_abi_mismatch) fuzz_fail("another binary interface was accepted");
    if (status != lspan_status_ok) {
        if (context != (lspan_context *)(void *)f) fuzz_fail("a refused context was written");
        return;
    }
    size_t workers = lspan_context_workers(context);
    if (workers < 1 || workers > 4096) fuzz_fail("a context without workers");
    if (!*lspan_context_isa(context)) fuzz_fail("a context without a variant");
    float numbers[70], converted[70];
    for (int i = 0; i < 70; i++) numbers[i] = (float)i;
    lspan_heads input = {numbers, lspan_dtype_f32, 7, 7};
    lspan_heads_out output = {converted, lspan_dtype_f32, 7, 7};
    if (lspan_convert(context, 10, 1, 7, input, output) != lspan_status_ok || converted[69] != 69.0f) {
        fuzz_fail("a context does not work");
    }
    lspan_context_destroy(context);
    if (lspan_context_workers(NULL) != 0 || strcmp(lspan_context_isa(NULL), "scalar") != 0) fuzz_fail("NULL has workers");
    lspan_context_destroy(NULL);
}

/* ---- Profiles ------------------------------------------------------------------------------------------ */

static void record_calls(fuzz *f, const lspan_context *context, uint32_t calls)
{
    float number = 1;
    for (uint32_t i = 0; i < calls; i++) {
        lspan_profile_set_tag((int32_t)fuzz_bad_number(f));
        lspan_matrix input = {&number, lspan_dtype_f32, 1};
        lspan_matrix_out output = {&number, lspan_dtype_f32, 1};
        if (lspan_rms_norm(context, 1, 1, input, NULL, 0, output) != lspan_status_ok) fuzz_fail("a norm was refused");
    }
}

static void check_counts(fuzz *f, const lspan_context *context, size_t capacity, uint32_t calls)
{
    size_t stored = 99, lost = 99;
    lspan_status status = lspan_profile_count(
        fuzz_wild(f, 16) ? NULL : context, fuzz_wild(f, 16) ? NULL : &stored, fuzz_wild(f, 16) ? NULL : &lost);
    if (status == lspan_status_ok ? stored + lost != calls || stored > capacity : stored != 99 || lost != 99) {
        fuzz_fail("the counts of a profile are wrong");
    }
    lspan_profile_totals totals = {.calls = -1};
    int32_t kernel = fuzz_below(f, 2) ? lspan_profile_kernel_rms_norm : (int32_t)fuzz_bad_number(f);
    status = lspan_profile_read(context, (lspan_profile_kernel)kernel, fuzz_wild(f, 16) ? NULL : &totals);
    if (status != lspan_status_ok ? totals.calls != -1
                                  : totals.calls != (kernel == lspan_profile_kernel_rms_norm ? calls : 0)) {
        fuzz_fail("the totals of a profile are wrong");
    }
}

static void fuzz_profile(fuzz *f)
{
    lspan_context *context;
    if (lspan_context_create(&(lspan_context_options){.threads = 1}, &context) != lspan_status_ok) fuzz_fail("no context");
    uint64_t before = lspan_profile_clock();
    for (uint32_t round = 1 + fuzz_below(f, 3); round > 0; round--) {
        size_t capacity = fuzz_below(f, 8), given = capacity;
        lspan_profile_event *events = fuzz_indices(f, (int64_t)capacity, sizeof *events);
        /* more than memory holds, which is refused, or no array */
        if (fuzz_wild(f, 8)) given = SIZE_MAX / sizeof *events + 1 + fuzz_below(f, 100);
        if (!events) given = fuzz_below(f, 2) ? (size_t)fuzz_bad_number(f) : 0;
        if (!events && given == 0) capacity = 0;
        lspan_status status = lspan_profile_start(fuzz_wild(f, 32) ? NULL : context, events, given);
        if ((status == lspan_status_ok) != lspan_profile_is_on(context)) fuzz_fail("a profile is on, or is not");
        uint32_t calls = fuzz_below(f, 10);
        if (status == lspan_status_ok) {
            if (lspan_profile_start(context, events, given) != lspan_status_bad_value) fuzz_fail("a second profile began");
            record_calls(f, context, calls);
            check_counts(f, context, capacity, calls);
        }
        if (lspan_profile_stop(fuzz_wild(f, 32) ? NULL : context) == lspan_status_ok) record_calls(f, context, 1);
        lspan_profile_stop(context);
        if (lspan_profile_is_on(context) || lspan_profile_is_on(NULL)) fuzz_fail("a profile did not stop");
        if (status == lspan_status_ok && calls > 0 && capacity > 0 && events[0].start_ns < before) {
            fuzz_fail("an event from before its profile");
        }
    }
    lspan_context_destroy(context);
    fuzz_finish(f, NULL, lspan_status_ok);
}

/* ---- Measuring ----------------------------------------------------------------------------------------- */

/* Rounds of a loop: none that would take long, unless it has to be refused. */
static int64_t draw_rounds(fuzz *f)
{
    int64_t rounds = fuzz_dim(f, 0, 20);
    return rounds > 20 && rounds < INT64_C(1) << 61 ? 20 : rounds;
}

static void fuzz_measure_read(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    int64_t lines = fuzz_dim(f, 0, 40), count = fuzz_product(lines, LSPAN_MEASURE_LINE);
    int64_t passes = fuzz_dim(f, 0, 10);
    if (fuzz_wild(f, 8)) count = fuzz_bad_number(f);
    if (passes > 10 && count != 0) passes = 10;
    if (passes > 10) f->too_big = 1;
    const float *data;
    double *checksum;
    fuzz_operand_at(f, &data, fuzz_count(count, 1, 1, 4), 64, fuzz_f32, 0);
    fuzz_operand_at(f, &checksum, sizeof *checksum, 8, fuzz_bytes, 1);
    fuzz_place(f);
    if ((uintptr_t)checksum % 8 != 0) checksum = NULL;
    fuzz_finish(f, context, lspan_measure_read(context, data, count, passes, checksum));
}

static void fuzz_measure_fma(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    lspan_dtype dtype = fuzz_dtype(f);
    int64_t iterations = draw_rounds(f), flops = -1;
    double checksum = -1;
    lspan_status status = lspan_measure_fma(
        context, dtype, iterations, fuzz_wild(f, 16) ? NULL : &flops, fuzz_wild(f, 16) ? NULL : &checksum);
    if (status == lspan_status_ok ? flops < 0 || checksum * 2 != (double)flops * (dtype == lspan_dtype_bf16 ? 0.5 : 1)
                                  : status != lspan_status_executor_failed && (flops != -1 || checksum != -1)) {
        fuzz_fail("the operations of multiply-adds are not what was done");
    }
    fuzz_finish(f, context, status);
}

static void fuzz_measure_exp(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    int64_t passes = draw_rounds(f), elements = -1;
    double checksum = -1;
    lspan_status status = lspan_measure_exp(
        context, passes, fuzz_wild(f, 16) ? NULL : &elements, fuzz_wild(f, 16) ? NULL : &checksum);
    if (status == lspan_status_ok ? elements < 0 || !(checksum >= 0)
                                  : status != lspan_status_executor_failed && (elements != -1 || checksum != -1)) {
        fuzz_fail("the exponentials are not what was done");
    }
    fuzz_finish(f, context, status);
}

const fuzz_target fuzz_system_targets[] = {
    {"codes", fuzz_codes,
        "lspan_status_name lspan_status_description lspan_dtype_size lspan_block_type_layout lspan_isa_count "
        "lspan_isa_name lspan_isa_is_supported lspan_profile_kernel_count lspan_profile_kernel_name lspan_version "
        "lspan_abi lspan_openblas_config lspan_openblas_parallel"},
    {"topology", fuzz_topology, "lspan_topology_read"},
    {"context", fuzz_context_create,
        "lspan_context_create_abi lspan_context_destroy lspan_context_isa lspan_context_workers"},
    {"profile", fuzz_profile,
        "lspan_profile_start lspan_profile_stop lspan_profile_is_on lspan_profile_read lspan_profile_count "
        "lspan_profile_set_tag lspan_profile_clock"},
    {"measure_read", fuzz_measure_read, "lspan_measure_read"},
    {"measure_fma", fuzz_measure_fma, "lspan_measure_fma"},
    {"measure_exp", fuzz_measure_exp, "lspan_measure_exp"},
    {NULL, NULL, NULL}};
