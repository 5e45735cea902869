/* support.c: see support.h. */
#define _GNU_SOURCE
#include "support.h"
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEFAULT_SEED UINT64_C(20260101)
#define PATTERN 0xFF
#define MAX_PRINTED_FAILURES 20
#define MAX_RATIOS 32

static char current_case[512] = "start";
static long checks_done;
static long checks_failed;

static struct {
    const char *kernel;
    double ratio;
    char where[576];
} ratios[MAX_RATIOS];

/* ---- Cases and checks ------------------------------------------------------------------------------- */

void test_case(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(current_case, sizeof current_case, format, arguments);
    va_end(arguments);
}

int test_check(int passed, const char *file, int line, const char *format, ...)
{
    checks_done++;
    if (passed) return 1;
    if (++checks_failed > MAX_PRINTED_FAILURES) return 0;
    const char *base = strrchr(file, '/');
    fprintf(stderr, "%s:%d: [%s] seed %llu: ", base ? base + 1 : file, line, current_case,
            (unsigned long long)test_seed());
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return 0;
}

int test_status(lspan_status got, lspan_status want, const char *file, int line, const char *expression)
{
    return test_check(
        got == want, file, line, "%s gave %s, not %s", expression, lspan_status_name(got), lspan_status_name(want));
}

int test_finish(const char *name)
{
    for (size_t i = 0; i < MAX_RATIOS && ratios[i].kernel; i++) {
        printf("%s: %s used at most %.3f of the allowed error (%s)\n", name, ratios[i].kernel, ratios[i].ratio,
               ratios[i].where);
    }
    printf("%s: %ld checks, %ld failed, seed %llu\n", name, checks_done, checks_failed,
           (unsigned long long)test_seed());
    return checks_failed ? 1 : 0;
}

/* ---- Random numbers --------------------------------------------------------------------------------- */

static uint64_t state[4];

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = *x += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

uint64_t test_seed(void)
{
    static uint64_t seed;
    static int known;
    if (!known) {
        const char *text = getenv("LONGSPAN_TEST_SEED");
        seed = text && *text ? strtoull(text, NULL, 10) : DEFAULT_SEED;
        known = 1;
        uint64_t x = seed;
        for (int i = 0; i < 4; i++) state[i] = splitmix(&x);
    }
    return seed;
}

static uint64_t rotate_left(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

uint64_t test_random(void)
{
    test_seed();
    uint64_t result = rotate_left(state[1] * 5, 7) * 9, t = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= t;
    state[3] = rotate_left(state[3], 45);
    return result;
}

int64_t test_random_int(int64_t low, int64_t high)
{
    return low + (int64_t)(test_random() % (uint64_t)(high - low + 1));
}

int test_one_in(int n)
{
    return test_random_int(1, n) == 1;
}

double test_random_unit(void)
{
    return ldexp((double)(test_random() >> 11), -53);
}

float test_random_normal(void)
{
    /* Box and Muller 1958 */
    double radius = sqrt(-2 * log(1 - test_random_unit()));
    return (float)(radius * cos(6.283185307179586 * test_random_unit()));
}

lspan_dtype test_random_dtype(void)
{
    return (lspan_dtype)test_random_int(0, 2);
}

/* ---- Memory ------------------------------------------------------------------------------------------ */

void *test_malloc(int64_t count, size_t element)
{
    void *memory = calloc(count > 0 ? (size_t)count : 1, element);
    if (!memory) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    return memory;
}

float *test_floats(int64_t count, float spread)
{
    float *values = test_malloc(count, sizeof *values);
    for (int64_t i = 0; i < count; i++) values[i] = spread * test_random_normal();
    return values;
}

static struct sigaction action_before;

/* A kernel touched a guard page: say in which case, and let the fault happen again as it would have. */
static void report_fault(int number)
{
    static const char text[] = "access outside a buffer in: ";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0 || write(STDERR_FILENO, current_case, strlen(current_case)) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0) {
        _exit(2);
    }
    sigaction(number, &action_before, NULL);
}

static void watch_faults(void)
{
    static int watching;
    if (watching++) return;
    struct sigaction action = {0};
    action.sa_handler = report_fault;
    sigaction(SIGSEGV, &action, &action_before);
}

test_buffer test_allocate(size_t bytes, size_t alignment)
{
    test_buffer b;
    watch_faults();
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t used = (bytes + alignment + page - 1) / page * page;
    b.map_bytes = used + page;
    b.map = mmap(NULL, b.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b.map == MAP_FAILED || mprotect(b.map + used, page, PROT_NONE) != 0) {
        perror("mmap");
        exit(2);
    }
    memset(b.map, PATTERN, used);
    b.bytes = bytes;
    b.data = b.map + (used - bytes) / alignment * alignment;
    return b;
}

int test_is_untouched(const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++) {
        if (p[i] != PATTERN) return 0;
    }
    return 1;
}

void test_release(test_buffer *b)
{
    if (!b->map) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const char *data = b->data, *end = b->map + b->map_bytes - page;
    CHECK_MESSAGE(test_is_untouched(b->map, (size_t)(data - b->map)), "bytes before a buffer were written");
    CHECK_MESSAGE(
        test_is_untouched(data + b->bytes, (size_t)(end - data) - b->bytes), "bytes after a buffer were written");
    munmap(b->map, b->map_bytes);
    memset(b, 0, sizeof *b);
}

/* ---- Tensors ----------------------------------------------------------------------------------------- */

test_layout test_random_layout(void)
{
    return (test_layout)test_random_int(0, test_layout_count - 1);
}

test_tensor test_tensor_make(lspan_dtype dtype, int64_t tokens, int64_t heads, int64_t columns, test_layout layout)
{
    test_tensor t = {.dtype = dtype, .tokens = tokens, .heads = heads, .columns = columns};
    int padded = layout == test_layout_padded_token_major || layout == test_layout_padded_head_major;
    int64_t row = columns + (padded ? 3 : 0), extra = padded ? 5 : 0;
    if (layout == test_layout_head_major || layout == test_layout_padded_head_major) {
        t.token_stride = row;
        t.head_stride = tokens * row + extra;
    } else {
        t.head_stride = row;
        t.token_stride = heads * row + extra;
    }
    int64_t count = 0;
    if (tokens > 0 && heads > 0) count = (tokens - 1) * t.token_stride + (heads - 1) * t.head_stride + columns;
    size_t element = lspan_dtype_size(dtype);
    t.buffer = test_allocate((size_t)count * element, element);
    return t;
}

test_tensor test_tensor_random(
    lspan_dtype dtype, int64_t tokens, int64_t heads, int64_t columns, test_layout layout, float spread)
{
    test_tensor t = test_tensor_make(dtype, tokens, heads, columns, layout);
    for (int64_t i = 0; i < tokens; i++) {
        for (int64_t h = 0; h < heads; h++) {
            for (int64_t c = 0; c < columns; c++) test_set(&t, i, h, c, spread * test_random_normal());
        }
    }
    return t;
}

test_tensor test_tensor_copy(const test_tensor *tensor)
{
    test_tensor copy = *tensor;
    copy.buffer = test_allocate(tensor->buffer.bytes, lspan_dtype_size(tensor->dtype));
    memcpy(copy.buffer.data, tensor->buffer.data, tensor->buffer.bytes);
    return copy;
}

void test_tensor_release(test_tensor *tensor)
{
    test_release(&tensor->buffer);
}

static int64_t offset_of(const test_tensor *t, int64_t token, int64_t head, int64_t column)
{
    return token * t->token_stride + head * t->head_stride + column;
}

float test_get(const test_tensor *tensor, int64_t token, int64_t head, int64_t column)
{
    return (float)lspan_reference_element(tensor->buffer.data, tensor->dtype, offset_of(tensor, token, head, column));
}

void test_set(test_tensor *tensor, int64_t token, int64_t head, int64_t column, float value)
{
    int64_t index = offset_of(tensor, token, head, column);
    switch (tensor->dtype) {
    case lspan_dtype_f16:
        ((uint16_t *)tensor->buffer.data)[index] = lspan_reference_to_f16((double)value);
        break;
    case lspan_dtype_bf16:
        ((uint16_t *)tensor->buffer.data)[index] = lspan_reference_to_bf16((double)value);
        break;
    default:
        ((float *)tensor->buffer.data)[index] = value;
        break;
    }
}

float *test_gather(const test_tensor *tensor)
{
    float *values = test_malloc(tensor->tokens * tensor->heads * tensor->columns, sizeof *values);
    float *next = values;
    for (int64_t t = 0; t < tensor->tokens; t++) {
        for (int64_t h = 0; h < tensor->heads; h++) {
            for (int64_t c = 0; c < tensor->columns; c++) *next++ = test_get(tensor, t, h, c);
        }
    }
    return values;
}

void test_check_gaps(const test_tensor *tensor)
{
    size_t element = lspan_dtype_size(tensor->dtype), count = tensor->buffer.bytes / element;
    char *used = test_malloc((int64_t)count, 1);
    for (int64_t t = 0; t < tensor->tokens; t++) {
        for (int64_t h = 0; h < tensor->heads; h++) {
            memset(used + offset_of(tensor, t, h, 0), 1, (size_t)tensor->columns);
        }
    }
    int clean = 1;
    for (size_t i = 0; i < count && clean; i++) {
        clean = used[i] || test_is_untouched((const char *)tensor->buffer.data + i * element, element);
    }
    CHECK_MESSAGE(clean, "an element between the rows of an output was written");
    free(used);
}

lspan_heads test_heads(const test_tensor *t)
{
    lspan_heads view = {t->buffer.data, t->dtype, t->token_stride, t->head_stride};
    return view;
}

lspan_heads_out test_heads_out(const test_tensor *t)
{
    lspan_heads_out view = {t->buffer.data, t->dtype, t->token_stride, t->head_stride};
    return view;
}

lspan_matrix test_matrix(const test_tensor *t)
{
    lspan_matrix view = {t->buffer.data, t->dtype, t->token_stride};
    return view;
}

lspan_matrix_out test_matrix_out(const test_tensor *t)
{
    lspan_matrix_out view = {t->buffer.data, t->dtype, t->token_stride};
    return view;
}

/* ---- Contexts ---------------------------------------------------------------------------------------- */

/* Whether a comma-separated list has a name. */
static int lists(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == 0)) return 1;
    }
    return 0;
}

const char *const *test_isas(size_t *count)
{
    static const char *names[16];
    static size_t known;
    const char *wanted = getenv("LONGSPAN_TEST_ISA");
    size_t isas = known == 0 ? lspan_isa_count() : 0;
    for (size_t i = 0; i < isas && known < 16; i++) {
        const char *name = lspan_isa_name(i);
        if (lspan_isa_is_supported(i) && (!wanted || !*wanted || lists(wanted, name))) names[known++] = name;
    }
    if (known == 0) {
        fprintf(stderr, "LONGSPAN_TEST_ISA '%s' has no variant that this CPU runs\n", wanted);
        exit(2);
    }
    *count = known;
    return names;
}

const test_context *test_contexts(size_t *count)
{
    static test_context contexts[16 * TEST_THREAD_COUNTS];
    static size_t made;
    size_t isas;
    const char *const *names = test_isas(&isas);
    for (size_t i = 0; i < isas && made < isas * TEST_THREAD_COUNTS; i++) {
        for (int threads = 1; threads <= TEST_THREAD_COUNTS; threads++) {
            lspan_context_options options = {threads, names[i], NULL, 0};
            lspan_context *context = NULL;
            /* kept until the process ends: the address is static, so leak checkers find it */
            lspan_status status = lspan_context_create(&options, &context);
            if (status != lspan_status_ok) {
                fprintf(stderr, "no context for %s: %s\n", names[i], lspan_status_name(status));
                exit(2);
            }
            contexts[made].context = context;
            contexts[made].isa = names[i];
            contexts[made].threads = threads;
            snprintf(contexts[made].name, sizeof contexts[made].name, "%s with %d threads", names[i], threads);
            made++;
        }
    }
    *count = made;
    return contexts;
}

/* ---- The error rule ---------------------------------------------------------------------------------- */

double test_epsilon(lspan_dtype dtype)
{
    return dtype == lspan_dtype_f16 ? 0x1p-11 : dtype == lspan_dtype_bf16 ? 0x1p-8 : 0x1p-24;
}

double test_largest(const double *values, int64_t count)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(values[i]) && fabs(values[i]) > largest) largest = fabs(values[i]);
    }
    return largest;
}

static void remember_ratio(const char *kernel, const char *context, double ratio)
{
    size_t i = 0;
    while (i < MAX_RATIOS && ratios[i].kernel && strcmp(ratios[i].kernel, kernel) != 0) i++;
    if (i == MAX_RATIOS || (ratios[i].kernel && ratios[i].ratio >= ratio)) return;
    ratios[i].kernel = kernel;
    ratios[i].ratio = ratio;
    snprintf(ratios[i].where, sizeof ratios[i].where, "%s, %s", context, current_case);
}

void test_check_errors(
    const char *kernel, const char *context, lspan_dtype dtype, const float *got, const double *want,
    const float *simple, int64_t count, double floor)
{
    double error = 0, allowed = 0;
    int64_t worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double x = (double)got[i], y = lspan_reference_round((double)simple[i], dtype);
        double exact = want[i], rounded = lspan_reference_round(exact, dtype);
        if (!isfinite(rounded) || !isfinite(x)) {
            int same = isnan(rounded) ? isnan(x) : x == rounded;
            if (!CHECK_MESSAGE(same, "%s %s: element %lld is %g, not %g", kernel, context, (long long)i, x, exact)) return;
            continue;
        }
        if (fabs(x - exact) > error) {
            error = fabs(x - exact);
            worst = i;
        }
        if (isfinite(y) && fabs(y - exact) > allowed) allowed = fabs(y - exact);
    }
    allowed = 2 * allowed + floor;
    if (error > 0) remember_ratio(kernel, context, error / allowed);
    CHECK_MESSAGE(
        error <= allowed, "%s %s: error %g exceeds %g (floor %g); element %lld is %.9g, not %.9g", kernel, context,
        error, allowed, floor, (long long)worst, (double)(count ? got[worst] : 0), count ? want[worst] : 0);
}

void test_check_bounds(
    const char *kernel, const char *context, const float *got, const double *want, const double *bounds, int64_t count)
{
    double ratio = 0;
    int64_t worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double x = (double)got[i], rounded = (double)(float)want[i];
        if (!isfinite(rounded) || !isfinite(x)) {
            int same = isnan(rounded) ? isnan(x) : x == rounded;
            if (!CHECK_MESSAGE(same, "%s %s: element %lld is %g, not %g", kernel, context, (long long)i, x, want[i])) return;
            continue;
        }
        double error = fabs(x - want[i]);
        if (error > ratio * bounds[i]) {
            ratio = bounds[i] > 0 ? error / bounds[i] : (double)INFINITY;
            worst = i;
        }
    }
    if (ratio > 0) remember_ratio(kernel, context, ratio);
    CHECK_MESSAGE(
        ratio <= 1, "%s %s: element %lld is %.9g, not %.9g, which is %.3g of the error allowed", kernel, context,
        (long long)worst, (double)(count ? got[worst] : 0), count ? want[worst] : 0, ratio);
}
