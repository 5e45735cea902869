/* selective_oracle_test.c: the selective scan and its update against transformers' Mamba and on what the layers of a trained
 * network give their scans; Tests/Oracles/make_selective_scan.py makes both. */
#include "json.h"
#include "selective_support.h"

#define TOLERANCE 1e-4

static char *read_file(const char *name, size_t *size)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/selective_scan/%s", LSPAN_FIXTURES, name);
    FILE *file = fopen(path, "rb");
    if (!CHECK_MESSAGE(file != NULL, "cannot open %s", path)) return NULL;
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    rewind(file);
    char *content = test_malloc(length + 1, 1);
    *size = fread(content, 1, (size_t)length, file);
    content[*size] = 0;
    fclose(file);
    return content;
}

static float *numbers;
static int64_t number_count;

/* NULL where the case has no such array, which is a check where it must. */
static float *array_of(const char *arrays, const char *name, int64_t count, int needed)
{
    const char *array = json_member(arrays, name);
    if (!array && !needed) return NULL;
    int64_t offset = (int64_t)json_number(json_member(array, "offset"));
    int fits = array && (int64_t)json_number(json_member(array, "count")) == count && offset >= 0 && offset + count <= number_count;
    return CHECK_MESSAGE(fits, "array %s is missing or has the wrong size", name) ? numbers + offset : NULL;
}

static void check_close(const char *isa, const float *got, const float *want, int64_t count)
{
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)want[i]));
        double error = fabs((double)got[i] - (double)want[i]);
        if (error > worst || isnan(error)) worst = error;
    }
    CHECK_MESSAGE(worst <= TOLERANCE * largest, "%s: error %g of %g", isa, worst, largest);
}

static void check_case(const char *a_case)
{
    const char *p = json_member(a_case, "parameters"), *arrays = json_member(a_case, "arrays");
    int64_t tokens = (int64_t)json_number(json_member(p, "tokens")), channels = (int64_t)json_number(json_member(p, "channels"));
    int64_t size = (int64_t)json_number(json_member(p, "states")), states = channels * size;
    int64_t indptr[2] = {0, tokens};
    const float *want = array_of(arrays, "y", tokens * channels, 1), *want_state = array_of(arrays, "state", states, 1);
    const float *z = array_of(arrays, "z", tokens * channels, 0);
    lspan_matrix u = {array_of(arrays, "u", tokens * channels, 1), lspan_dtype_f32, channels};
    lspan_matrix dt = {array_of(arrays, "dt", tokens * channels, 1), lspan_dtype_f32, channels};
    lspan_heads b = {array_of(arrays, "b", tokens * size, 1), lspan_dtype_f32, size, size};
    lspan_heads c = {array_of(arrays, "c", tokens * size, 1), lspan_dtype_f32, size, size};
    lspan_selective_scan call = {
        .sequences = 1, .indptr = indptr, .channels = channels, .state_size = size, .groups = 1, .input = u, .dt = dt,
        .rule = {.bias = array_of(arrays, "bias", channels, 0), .maximum = INFINITY,
                 .softplus = (int32_t)json_number(json_member(p, "softplus"))},
        .a = array_of(arrays, "a", states, 1), .b = b, .c = c, .d = array_of(arrays, "d", channels, 0),
        .gate = {z, lspan_dtype_f32, channels}, .state_stride = states};
    if (!want || !want_state || !u.data || !dt.data || !b.data || !c.data || !call.a) return;
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        for (int update = 0; update < 2; update++) {
            float *y = test_malloc(tokens * channels, sizeof *y), *state = test_malloc(states, sizeof *state);
            lspan_selective_scan k = call;
            k.output = (lspan_matrix_out){y, lspan_dtype_f32, channels};
            k.final_state = state;
            if (!update) {
                CHECK_OK(run_scan(contexts[i].context, &k));
            }
            memset(state, 0, update ? (size_t)states * sizeof *state : 0);
            /* token by token */
            for (int64_t t = 0; update && t < tokens; t++) {
                int64_t one[2] = {0, 1};
                k.indptr = one;
                k.initial_state = state;
                k.input.data = (const float *)u.data + t * channels;
                k.dt.data = (const float *)dt.data + t * channels;
                k.b.data = (const float *)b.data + t * size;
                k.c.data = (const float *)c.data + t * size;
                if (z) k.gate.data = z + t * channels;
                k.output.data = y + t * channels;
                CHECK_OK(lspan_selective_update(contexts[i].context, &k));
            }
            check_close(contexts[i].name, y, want, tokens * channels);
            check_close(contexts[i].name, state, want_state, states);
            free(y), free(state);
        }
    }
}

int main(void)
{
    size_t bytes = 0, length = 0;
    numbers = (float *)(void *)read_file("selective_scan.f32", &bytes);
    char *text = read_file("selective_scan.json", &length);
    number_count = (int64_t)(bytes / sizeof(float));
    const char *cases = json_member(json_space(text), "cases");
    CHECK(json_count(cases) == 7);
    for (int64_t i = 0; i < json_count(cases); i++) {
        const char *a_case = json_item(cases, i);
        test_case("oracle case %.40s", json_member(a_case, "name"));
        check_case(a_case);
    }
    free(text), free(numbers);
    return test_finish("selective_oracle_test");
}
