/* ssd_oracle_test.c: the SSD scan and its update against transformers' Mamba-2, whose values Tests/Oracles/make_ssd.py makes. */
#include "json.h"
#include "ssd_support.h"

#define TOLERANCE 1e-4

static float *numbers;
static int64_t number_count;

static char *read_file(const char *name, size_t *size)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/ssd/%s", LSPAN_FIXTURES, name);
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

/* NULL where the case has no such array, which fails a check where it must. */
static float *array_of(const char *a_case, const char *name, int64_t count, int needed)
{
    const char *array = json_member(json_member(a_case, "arrays"), name);
    if (!array && !needed) return NULL;
    int64_t offset = (int64_t)json_number(json_member(array, "offset"));
    int64_t stated = (int64_t)json_number(json_member(array, "count"));
    int fits = array && stated == count && offset >= 0 && offset + count <= number_count;
    return CHECK_MESSAGE(fits, "array %s is missing or has the wrong size", name) ? numbers + offset : NULL;
}

static void check_close(const char *isa, const float *got, const float *want, int64_t count)
{
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double error = fabs((double)got[i] - (double)want[i]);
        largest = fmax(largest, fabs((double)want[i]));
        if (!(error <= worst)) worst = error;
    }
    CHECK_MESSAGE(worst <= TOLERANCE * largest, "%s: error %g of %g", isa, worst, largest);
}

/* The rows of a call from token t on, as a sequence of `count`. */
static void take_rows(lspan_ssd_scan *call, const lspan_ssd_scan *whole, int64_t t, int64_t indptr[2], int64_t count)
{
    indptr[1] = count;
    call->indptr = indptr;
    call->input.data = (const float *)whole->input.data + t * whole->input.token_stride;
    call->dt.data = (const float *)whole->dt.data + t * whole->dt.row_stride;
    call->b.data = (const float *)whole->b.data + t * whole->b.token_stride;
    call->c.data = (const float *)whole->c.data + t * whole->c.token_stride;
    if (whole->gate.data) call->gate.data = (const float *)whole->gate.data + t * whole->gate.token_stride;
    call->output.data = (float *)whole->output.data + t * whole->output.token_stride;
}

/* One scan in a form or, with the automatic one, updates of up to 3 tokens. */
static void run(const lspan_context *context, const lspan_ssd_scan *whole, int64_t tokens, lspan_ssd_form form)
{
    lspan_ssd_scan call = *whole;
    call.form = form;
    if (form != lspan_ssd_form_automatic) {
        CHECK_OK(ssd_run(context, &call));
        return;
    }
    for (int64_t t = 0; t < tokens; t += 3) {
        int64_t indptr[2] = {0, 0};
        take_rows(&call, whole, t, indptr, tokens - t < 3 ? tokens - t : 3);
        CHECK_OK(lspan_ssd_update(context, &call));
        call.initial_state = call.final_state;
    }
}

static void check_case(const char *a_case)
{
    const char *p = json_member(a_case, "parameters");
    int64_t tokens = (int64_t)json_number(json_member(p, "tokens")), heads = (int64_t)json_number(json_member(p, "heads"));
    int64_t groups = (int64_t)json_number(json_member(p, "groups")), rows = (int64_t)json_number(json_member(p, "head_dim"));
    int64_t size = (int64_t)json_number(json_member(p, "state_size")), states = heads * rows * size;
    int64_t indptr[2] = {0, tokens}, outputs = tokens * heads * rows, inputs = tokens * groups * size;
    const float *want = array_of(a_case, "y", outputs, 1), *want_state = array_of(a_case, "state", states, 1);
    float maximum = (float)json_number(json_member(p, "maximum"));
    lspan_ssd_scan call = {
        .sequences = 1, .indptr = indptr, .heads = heads, .head_dim = rows, .state_size = size, .groups = groups,
        .input = {array_of(a_case, "x", outputs, 1), lspan_dtype_f32, heads * rows, rows},
        .dt = {array_of(a_case, "dt", tokens * heads, 1), lspan_dtype_f32, heads},
        .rule = {.bias = array_of(a_case, "bias", heads, 0), .softplus = 1,
                 .minimum = (float)json_number(json_member(p, "minimum")), .maximum = maximum > 0 ? maximum : INFINITY},
        .a = array_of(a_case, "a", heads, 1), .b = {array_of(a_case, "b", inputs, 1), lspan_dtype_f32, groups * size, size},
        .c = {array_of(a_case, "c", inputs, 1), lspan_dtype_f32, groups * size, size},
        .d = array_of(a_case, "d", heads, 0), .gate = {array_of(a_case, "z", outputs, 0), lspan_dtype_f32, heads * rows, rows},
        .initial_state = array_of(a_case, "initial", states, 0), .state_stride = states};
    if (!want || !want_state || !call.input.data || !call.dt.data || !call.a || !call.b.data || !call.c.data) return;
    float *y = test_malloc(outputs, sizeof *y), *state = test_malloc(states, sizeof *state);
    call.output = (lspan_heads_out){y, lspan_dtype_f32, heads * rows, rows};
    call.final_state = state;
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i++) {
        for (int form = lspan_ssd_form_automatic; form <= lspan_ssd_form_chunked; form++) {
            run(contexts[i].context, &call, tokens, (lspan_ssd_form)form);
            check_close(contexts[i].name, y, want, outputs);
            check_close(contexts[i].name, state, want_state, states);
        }
    }
    free(y), free(state);
}

int main(void)
{
    size_t bytes = 0, length = 0;
    numbers = (float *)(void *)read_file("ssd.f32", &bytes);
    char *text = read_file("ssd.json", &length);
    number_count = (int64_t)(bytes / sizeof(float));
    const char *cases = text ? json_member(json_space(text), "cases") : NULL;
    CHECK(json_count(cases) == 4);
    for (long i = 0; i < json_count(cases); i++) {
        const char *a_case = json_item(cases, i), *name = json_member(a_case, "name");
        test_case("oracle case %.*s", (int)(json_skip(name) - name), name);
        check_case(a_case);
    }
    free(numbers), free(text);
    return test_finish("ssd_oracle_test");
}
