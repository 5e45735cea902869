/* variant_checks.c: see variant_checks.h; compiled once for each ISA variant with the kernel bodies' flags. */
#include "variant_checks.h"
#include "simd/vmath.h"

#define MAP(name, function)                                                                    \
    static void map_##name(const float *x, float *y, int64_t count)                            \
    {                                                                                          \
        for (int64_t i = 0; i < count; i += V_WIDTH) v_store(y + i, function(v_load(x + i))); \
    }

MAP(exp, v_exp)
MAP(exp2_below, v_exp2_below)
MAP(exp2_decay, v_exp2_decay)
MAP(softplus, v_softplus)
MAP(tanh, v_tanh)
MAP(erf, v_erf)
MAP(sigmoid, v_sigmoid)
MAP(round, v_round)
MAP(absolute, v_abs)
MAP(root, v_sqrt)

static void scale2(const float *x, const float *n, float *y)
{
    v_store(y, v_scale2(v_load(x), v_load(n)));
}

static void maximum(const float *a, const float *b, float *y)
{
    v_store(y, v_max(v_load(a), v_load(b)));
}

static void minimum(const float *a, const float *b, float *y)
{
    v_store(y, v_min(v_load(a), v_load(b)));
}

static void fnma(const float *a, const float *b, const float *c, float *y)
{
    v_store(y, v_fnma(v_load(a), v_load(b), v_load(c)));
}

static void fma_unless_equal(const float *a, const float *b, const float *c, float *y)
{
    v_f32 x = v_load(a), other = v_load(b);
    v_store(y, v_fma_unless(v_eq(x, other), x, other, v_load(c)));
}

static uint32_t equal(const float *a, const float *b)
{
    return v_bits(v_eq(v_load(a), v_load(b)));
}

static void copy_sign(const float *x, const float *sign, float *y)
{
    v_store(y, v_copysign(v_load(x), v_load(sign)));
}

static void select_less(const float *a, const float *b, const float *yes, const float *no, float *y)
{
    v_store(y, v_select(v_lt(v_load(a), v_load(b)), v_load(yes), v_load(no)));
}

static float reduce_add(const float *x)
{
    return v_reduce_add(v_load(x));
}

static float reduce_max(const float *x)
{
    return v_reduce_max(v_load(x));
}

static void reduce_add4(const float *x, float *sums)
{
    v_f32 rows[4];
    for (int i = 0; i < 4; i++) rows[i] = v_load(x + i * V_WIDTH);
    v_reduce_add4(rows, sums);
}

static void reduce_add4x4(const float *x, float *sums, int64_t stride)
{
    v_f32 rows[4][4];
    for (int i = 0; i < 16; i++) rows[i / 4][i % 4] = v_load(x + i * V_WIDTH);
    v_reduce_add4x4((const v_f32 (*)[4])rows, sums, stride);
}

static void unzip(const float *x, float *even, float *odd)
{
    v_f32 e, o;
    v_unzip(v_load(x), v_load(x + V_WIDTH), &e, &o);
    v_store(even, e);
    v_store(odd, o);
}

static void zip(const float *even, const float *odd, float *y)
{
    v_f32 a, b;
    v_zip(v_load(even), v_load(odd), &a, &b);
    v_store(y, a);
    v_store(y + V_WIDTH, b);
}

static void transpose(float *square)
{
    v_f32 rows[V_WIDTH];
    for (int i = 0; i < V_WIDTH; i++) rows[i] = v_load(square + i * V_WIDTH);
    v_transpose(rows);
    for (int i = 0; i < V_WIDTH; i++) v_store(square + i * V_WIDTH, rows[i]);
}

static void load(const void *data, int64_t index, lspan_dtype dtype, float *y)
{
    v_store(y, v_load_as(data, index, dtype));
}

static void load_n(const void *data, int64_t index, lspan_dtype dtype, int lanes, float *y)
{
    v_store(y, v_load_as_n(data, index, dtype, lanes));
}

static void store(void *data, int64_t index, lspan_dtype dtype, const float *x)
{
    v_store_as(data, index, dtype, v_load(x));
}

static void store_n(void *data, int64_t index, lspan_dtype dtype, const float *x, int lanes)
{
    v_store_as_n(data, index, dtype, v_load(x), lanes);
}

static void unpack(const uint8_t *bytes, int shift, int mask, uint32_t bits, float *y)
{
    v_i32 low = vi_and(vi_srl(vi_load_u8(bytes), shift), vi_set1(mask));
    v_store(y, v_from_i32(vi_or(low, vi_bits(bits, 16))));
}

static void shift_left(const int8_t *bytes, int shift, float *y)
{
    v_store(y, v_from_i32(vi_sll(vi_load_i8(bytes), shift)));
}

#define STRING_(text) #text
#define STRING(text) STRING_(text)

const variant_operations LSPAN_VARIANT(operations) = {
    .name = STRING(LSPAN_ISA),
    .width = V_WIDTH,
    .exp = map_exp,
    .exp2_below = map_exp2_below,
    .exp2_decay = map_exp2_decay,
    .softplus = map_softplus,
    .tanh = map_tanh,
    .erf = map_erf,
    .sigmoid = map_sigmoid,
    .round = map_round,
    .absolute = map_absolute,
    .root = map_root,
    .scale2 = scale2,
    .maximum = maximum,
    .minimum = minimum,
    .fnma = fnma,
    .fma_unless_equal = fma_unless_equal,
    .equal = equal,
    .copysign = copy_sign,
    .select_less = select_less,
    .reduce_add = reduce_add,
    .reduce_max = reduce_max,
    .reduce_add4 = reduce_add4,
    .reduce_add4x4 = reduce_add4x4,
    .unzip = unzip,
    .zip = zip,
    .transpose = transpose,
    .load = load,
    .load_n = load_n,
    .store = store,
    .store_n = store_n,
    .unpack = unpack,
    .shift_left = shift_left,
};
