/* vmath_test.c: the vector wrapper and the elementary functions of every variant that this CPU can run.
 *
 * The error bounds are those that vmath.h states, in units of the f32 spacing at the exact result. */
#include "support.h"
#include "variant_checks.h"

static const variant_operations *const variants[] = {
    &lspan_avx512bf16_operations, &lspan_avx512_operations, &lspan_avx2_operations, &lspan_scalar_operations};

static int is_supported(const char *name)
{
    size_t count;
    const char *const *isas = test_isas(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(isas[i], name) == 0) return 1;
    }
    return 0;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static int same(float a, float b)
{
    return isnan(a) ? isnan(b) : bits_of(a) == bits_of(b);
}

/* ---- Elementary functions ----------------------------------------------------------------------------- */

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* The distance of neighbouring floats at x. */
static double spacing(double x)
{
    int exponent;
    frexp(x, &exponent);
    return ldexp(1, (exponent < -125 ? -125 : exponent) - 24);
}

typedef void (*map)(const float *x, float *y, int64_t count);

/* Steps through every `step`th float between two of the same sign, and the same below zero where asked. */
static void check_function(
    const char *isa, const char *name, map function, double (*exact)(double), float low, float high, uint32_t step,
    double bound)
{
    float x[64], y[64];
    double worst = 0;
    float worst_at = 0;
    for (uint64_t bits = bits_of(low); bits <= bits_of(high); bits += (uint64_t)step * 64) {
        for (uint32_t i = 0; i < 64; i++) x[i] = float_of((uint32_t)(bits + (uint64_t)i * step));
        function(x, y, 64);
        for (int i = 0; i < 64; i++) {
            double want = exact((double)x[i]);
            if (fabs(want) > 0x1.fffffep+127 || isnan(x[i])) continue; /* the special values' test has these */
            double error = fabs((double)y[i] - want) / spacing(want);
            if (error > worst || isnan(error)) {
                worst = error;
                worst_at = x[i];
            }
        }
    }
    test_case("%s of %s in %g .. %g", name, isa, (double)low, (double)high);
    printf("vmath_test: %s %s over %g .. %g: at most %.2f ulp, at %.9g\n", isa, name, (double)low, (double)high, worst,
           (double)worst_at);
    CHECK_MESSAGE(worst <= bound, "%.3f ulp at %.9g exceeds %.1f", worst, (double)worst_at, bound);
}

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

static void test_functions(const variant_operations *v)
{
    check_function(v->name, "exp", v->exp, exp, 0.0f, 88.72f, 311, 2);
    check_function(v->name, "exp", v->exp, exp, -0.0f, -104.0f, 311, 2);
    check_function(v->name, "exp2_below", v->exp2_below, exp2, -0.0f, -150.0f, 311, 2);
    check_function(v->name, "exp2_decay", v->exp2_decay, exp2, -0.0f, -126.0f, 311, 2.5);
    check_function(v->name, "softplus", v->softplus, softplus, 0.0f, 200.0f, 311, 4);
    check_function(v->name, "softplus", v->softplus, softplus, -0.0f, -103.0f, 311, 4);
    check_function(v->name, "tanh", v->tanh, tanh, 0.0f, 20.0f, 311, 3);
    check_function(v->name, "tanh", v->tanh, tanh, -0.0f, -20.0f, 1013, 3);
    check_function(v->name, "erf", v->erf, erf, 0.0f, 12.0f, 311, 3);
    check_function(v->name, "erf", v->erf, erf, -0.0f, -12.0f, 1013, 3);
    /* two roundings and an exponential, which is not in the header's list; below -88 e^-x overflows to a plain 0 */
    check_function(v->name, "sigmoid", v->sigmoid, sigmoid, 0.0f, 100.0f, 1013, 4);
    check_function(v->name, "sigmoid", v->sigmoid, sigmoid, -0.0f, -87.0f, 1013, 4);
}

static float at(map function, float x)
{
    float in[VARIANT_MAX_WIDTH], out[VARIANT_MAX_WIDTH];
    for (int i = 0; i < VARIANT_MAX_WIDTH; i++) in[i] = x;
    function(in, out, VARIANT_MAX_WIDTH);
    return out[VARIANT_MAX_WIDTH - 1];
}

static void test_special_values(const variant_operations *v)
{
    static const float denormal = 0x1p-149f;
    test_case("special values of %s", v->name);
    CHECK(isnan(at(v->exp, NAN)) && isnan(at(v->tanh, NAN)) && isnan(at(v->erf, NAN)) && isnan(at(v->sigmoid, NAN)));
    CHECK(at(v->exp, 0.0f) == 1 && at(v->exp, -0.0f) == 1 && at(v->exp, denormal) == 1);
    CHECK(at(v->exp, -INFINITY) == 0 && at(v->exp, -104.0f) == 0 && at(v->exp, -1e30f) == 0);
    CHECK(isinf(at(v->exp, INFINITY)) && isinf(at(v->exp, 88.74f)) && isinf(at(v->exp, 1e30f)));
    CHECK(at(v->exp, -103.0f) > 0);
    CHECK(isnan(at(v->exp2_below, NAN)) && at(v->exp2_below, 0.0f) == 1 && at(v->exp2_below, -3.0f) == 0.125f);
    CHECK(at(v->exp2_below, -INFINITY) == 0 && at(v->exp2_below, -1e30f) == 0 && at(v->exp2_below, -149.0f) == 0x1p-149f);
    CHECK(isnan(at(v->exp2_decay, NAN)) && at(v->exp2_decay, -0.0f) == 1 && at(v->exp2_decay, 0.0f) == 1);
    CHECK(at(v->exp2_decay, -3.0f) == 0.125f && at(v->exp2_decay, -0x1.fffffep127f) == 0 && at(v->exp2_decay, -200.0f) == 0);
    CHECK(at(v->exp2_decay, -130.0f) >= 0 && at(v->exp2_decay, -130.0f) <= 0x1p-126f && at(v->exp2_decay, -1e6f) == 0);
    /* the rate of a slow decay, which is what a long memory depends on */
    for (float x = -0x1p-9f; x < -1e-6f; x /= 2) {
        double rate = 1 - (double)at(v->exp2_decay, x), exact = -expm1((double)x * 0.6931471805599453);
        CHECK_MESSAGE(fabs(rate - exact) <= 3e-5 * exact + 0x1p-24, "1 - 2^%g is off by %g", (double)x, rate - exact);
    }
    CHECK(isnan(at(v->softplus, NAN)) && isinf(at(v->softplus, INFINITY)) && at(v->softplus, -INFINITY) == 0);
    CHECK(at(v->tanh, INFINITY) == 1 && at(v->tanh, -INFINITY) == -1 && at(v->tanh, 1e30f) == 1);
    CHECK(same(at(v->tanh, 0.0f), 0.0f) && same(at(v->tanh, denormal), denormal) && same(at(v->tanh, -denormal), -denormal));
    CHECK(at(v->erf, INFINITY) == 1 && at(v->erf, -INFINITY) == -1 && at(v->erf, 1e30f) == 1);
    CHECK(at(v->erf, 0.0f) == 0 && fabsf(at(v->erf, denormal)) <= 2 * denormal);
    CHECK(at(v->sigmoid, INFINITY) == 1 && at(v->sigmoid, -INFINITY) == 0 && at(v->sigmoid, 0.0f) == 0.5f);
    CHECK(at(v->round, 2.5f) == 2 && at(v->round, 3.5f) == 4 && at(v->round, -0.5f) == 0 && at(v->round, 1.75f) == 2);
    CHECK(at(v->root, 2.0f) == sqrtf(2.0f) && at(v->root, 0.0f) == 0 && isinf(at(v->root, INFINITY)));
    CHECK(same(at(v->absolute, -0.0f), 0.0f) && at(v->absolute, -3.0f) == 3 && isinf(at(v->absolute, -INFINITY)));
}

/* ---- Arithmetic and shuffles -------------------------------------------------------------------------- */

/* An array of random floats with a few special ones among them. */
static void random_lanes(float *x, int count)
{
    for (int i = 0; i < count; i++) {
        x[i] = test_one_in(10) ? float_of((uint32_t)test_random()) : test_random_normal();
        if (isnan(x[i])) x[i] = NAN; /* a signaling NaN would be quieted by plain moves on some CPUs */
    }
}

static void test_lanes(const variant_operations *v)
{
    test_case("lanes of %s", v->name);
    for (int round = 0; round < 2000; round++) {
        float a[16], b[16], c[16], d[16], y[16], exponents[16], z[16], w[16];
        int n = v->width;
        random_lanes(a, n);
        random_lanes(b, n);
        random_lanes(c, n);
        random_lanes(d, n);
        for (int i = 0; i < n; i++) exponents[i] = (float)test_random_int(-252, 254);
        v->maximum(a, b, y);
        v->minimum(a, b, z);
        v->copysign(a, b, w);
        int right = 1;
        for (int i = 0; i < n; i++) {
            right = right && same(y[i], a[i] > b[i] ? a[i] : b[i]) && same(z[i], a[i] < b[i] ? a[i] : b[i]);
            right = right && same(w[i], copysignf(a[i], b[i]));
        }
        CHECK_MESSAGE(right, "v_max, v_min or v_copysign");
        v->select_less(a, b, c, d, y);
        v->scale2(a, exponents, z);
        right = 1;
        for (int i = 0; i < n; i++) {
            right = right && same(y[i], a[i] < b[i] ? c[i] : d[i]);
            /* results below the normal range may be rounded twice */
            double exact = ldexp((double)a[i], (int)exponents[i]);
            float scaled = (float)exact;
            int normal = fabs(exact) >= 0x1p-126 || exact == 0 || isnan(exact);
            right = right && (same(z[i], scaled) || (!normal && fabs((double)z[i] - exact) <= 0x1p-149));
        }
        CHECK_MESSAGE(right, "v_lt, v_select or v_scale2");
        v->fnma(a, b, c, y);
        right = 1;
        for (int i = 0; i < n; i++) {
            double product = (double)a[i] * (double)b[i], exact = (double)c[i] - product;
            double slack = (fabs(product) + fabs(exact)) * 0x1p-23 + 0x1p-149;
            right = right && (!isfinite((float)exact) || !isfinite((float)product) || fabs((double)y[i] - exact) <= slack);
        }
        CHECK_MESSAGE(right, "v_fnma");
        b[round % n] = a[round % n];
        v->fma_unless_equal(a, b, c, y);
        uint32_t equal = v->equal(a, b);
        right = equal >> n == 0;
        for (int i = 0; i < n; i++) {
            int is = a[i] == b[i];
            double product = (double)a[i] * (double)b[i], exact = (double)c[i] + product;
            double slack = (fabs(product) + fabs(exact)) * 0x1p-23 + 0x1p-149;
            int finite = isfinite((float)exact) && isfinite((float)product);
            right = right && (int)(equal >> i & 1u) == is;
            right = right && (is ? same(y[i], a[i]) : !finite || fabs((double)y[i] - exact) <= slack);
        }
        CHECK_MESSAGE(right, "v_eq, v_bits or v_fma_unless");
    }
}

static void test_reductions(const variant_operations *v)
{
    test_case("reductions of %s", v->name);
    for (int round = 0; round < 500; round++) {
        float x[4 * 4 * 16], sums[4], rows[4][5];
        int n = v->width;
        for (int i = 0; i < 16 * n; i++) x[i] = test_random_normal();
        v->reduce_add4(x, sums);
        v->reduce_add4x4(x, rows[0], 5);
        for (int k = 0; k < 16; k++) {
            double sum = 0, magnitude = 0;
            for (int i = 0; i < n; i++) {
                sum += (double)x[k * n + i];
                magnitude += fabs((double)x[k * n + i]);
            }
            CHECK(fabs((double)rows[k / 4][k % 4] - sum) <= magnitude * 0x1p-22);
        }
        for (int k = 0; k < 4; k++) {
            double sum = 0, magnitude = 0;
            float largest = -INFINITY;
            for (int i = 0; i < n; i++) {
                sum += (double)x[k * n + i];
                magnitude += fabs((double)x[k * n + i]);
                largest = fmaxf(largest, x[k * n + i]);
            }
            CHECK(fabs((double)sums[k] - sum) <= magnitude * 0x1p-22);
            CHECK(fabs((double)v->reduce_add(x + k * n) - sum) <= magnitude * 0x1p-22);
            CHECK(v->reduce_max(x + k * n) == largest);
        }
    }
    float square[16 * 16];
    int n = v->width;
    for (int i = 0; i < n * n; i++) square[i] = (float)i;
    v->transpose(square);
    for (int i = 0; i < n * n; i++) CHECK(square[i] == (float)(i % n * n + i / n));

    float pairs[32], even[16], odd[16], zipped[32];
    for (int i = 0; i < 2 * n; i++) pairs[i] = (float)i;
    v->unzip(pairs, even, odd);
    v->zip(even, odd, zipped);
    for (int i = 0; i < n; i++) CHECK(even[i] == (float)(2 * i) && odd[i] == (float)(2 * i + 1));
    for (int i = 0; i < 2 * n; i++) CHECK(zipped[i] == (float)i);
}

static void test_integers(const variant_operations *v)
{
    test_case("integers of %s", v->name);
    for (int round = 0; round < 300; round++) {
        uint8_t bytes[16];
        int8_t signed_bytes[16];
        float y[16];
        uint32_t bits = (uint32_t)test_random() & 0xFFFFu;
        for (int i = 0; i < v->width; i++) bytes[i] = (uint8_t)test_random();
        memcpy(signed_bytes, bytes, sizeof bytes);
        int shift = (int)test_random_int(0, 7);
        test_buffer exact = test_allocate((size_t)v->width, 1);
        memcpy(exact.data, bytes, (size_t)v->width);
        v->unpack(exact.data, shift, 15, bits, y);
        for (int i = 0; i < v->width; i++) CHECK(y[i] == (float)((bytes[i] >> shift & 15) | (bits >> i & 1 ? 16 : 0)));
        v->shift_left(exact.data, shift, y);
        for (int i = 0; i < v->width; i++) CHECK(y[i] == (float)(signed_bytes[i] * (1 << shift)));
        test_release(&exact);
    }
}

/* ---- Loads, stores and conversions ---------------------------------------------------------------------- */

/* Loads and stores of n lanes at the end of a page touch nothing else and load zeros above. */
static void test_partial_moves(const variant_operations *v)
{
    for (int dtype = 0; dtype < 3; dtype++) {
        for (int lanes = 0; lanes <= v->width; lanes++) {
            test_case("%d lanes of dtype %d of %s", lanes, dtype, v->name);
            size_t element = lspan_dtype_size((lspan_dtype)dtype);
            test_buffer buffer = test_allocate((size_t)lanes * element, element);
            float x[16], y[16];
            for (int i = 0; i < 16; i++) x[i] = (float)(i + 1);
            v->store_n(buffer.data, 0, (lspan_dtype)dtype, x, lanes);
            v->load_n(buffer.data, 0, (lspan_dtype)dtype, lanes, y);
            for (int i = 0; i < v->width; i++) CHECK(y[i] == (i < lanes ? x[i] : 0));
            if (lanes == v->width) {
                v->store(buffer.data, 0, (lspan_dtype)dtype, x);
                v->load(buffer.data, 0, (lspan_dtype)dtype, y);
                for (int i = 0; i < lanes; i++) CHECK(y[i] == x[i]);
            }
            test_release(&buffer);
        }
    }
}

/* All 65,536 patterns decode to the exact value, and encode back to themselves. */
static void test_all_halves(const variant_operations *v)
{
    for (int dtype = 1; dtype < 3; dtype++) {
        test_case("all patterns of dtype %d of %s", dtype, v->name);
        for (uint32_t first = 0; first < 65536; first += 16) {
            uint16_t bits[16], back[16];
            float y[16];
            for (uint32_t i = 0; i < 16; i++) bits[i] = (uint16_t)(first + i);
            for (int i = 0; i < 16; i += v->width) {
                v->load(bits, i, (lspan_dtype)dtype, y + i);
                v->store(back, i, (lspan_dtype)dtype, y + i);
            }
            int right = 1;
            for (int i = 0; i < 16; i++) {
                float exact = (float)lspan_reference_element(bits, (lspan_dtype)dtype, i);
                right = right && same(y[i], exact);
                double value = lspan_reference_element(back, (lspan_dtype)dtype, i);
                right = right && (isnan(exact) ? isnan(value) : back[i] == bits[i]);
            }
            CHECK_MESSAGE(right, "patterns from %u", first);
        }
    }
}

/* Random floats, ties and their neighbours round to nearest even. */
static void test_rounding(const variant_operations *v)
{
    for (int dtype = 1; dtype < 3; dtype++) {
        test_case("rounding to dtype %d of %s", dtype, v->name);
        for (int round = 0; round < 20000; round++) {
            float x[16];
            uint16_t got[16];
            for (int i = 0; i < v->width; i++) {
                uint32_t bits = (uint32_t)test_random();
                if (test_one_in(2)) {
                    /* halfway between two f16 or bf16 values, or one unit beside */
                    uint32_t tie = dtype == 1 ? 0x1000u : 0x8000u;
                    bits = (bits & ~(2 * tie - 1)) + tie + (uint32_t)test_random_int(-1, 1);
                }
                if (test_one_in(2)) bits = (bits & 0x87FFFFFFu) | 0x30000000u; /* near f16's range */
                x[i] = float_of(bits);
            }
            v->store(got, 0, (lspan_dtype)dtype, x);
            int right = 1;
            for (int i = 0; i < v->width; i++) {
                uint16_t want = dtype == 1 ? lspan_reference_to_f16((double)x[i]) : lspan_reference_to_bf16((double)x[i]);
                double value = lspan_reference_element(got, (lspan_dtype)dtype, i);
                right = right && (isnan(x[i]) ? isnan(value) : got[i] == want);
            }
            if (!CHECK_MESSAGE(right, "a float is not rounded to nearest even")) break;
        }
    }
}

int main(void)
{
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        const variant_operations *v = variants[i];
        if (!is_supported(v->name)) {
            printf("vmath_test: %s cannot run here\n", v->name);
            continue;
        }
        test_functions(v);
        test_special_values(v);
        test_lanes(v);
        test_reductions(v);
        test_integers(v);
        test_partial_moves(v);
        test_all_halves(v);
        test_rounding(v);
    }
    return test_finish("vmath_test");
}
