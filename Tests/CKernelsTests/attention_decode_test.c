/* attention_decode_test.c: decode attention against the reference, and against prefill through it. */
#include "attention_support.h"

static void test_masks(void)
{
    static const int64_t dims[] = {8, 24, 64, 80, 128, 256};
    static const int64_t groups[] = {1, 3, 4, 8};
    static const int64_t keys[] = {37, 0, 1, 130, 64, 3, 66};
    size_t length = 0;
    for (size_t d = 0; d < 6; d++) {
        for (size_t g = 0; g < 4; g++) {
            for (int mask = 0; mask < 12; mask++) {
                attention_spec s = {.sequences = 1, .kv_heads = 2, .spread = 1, .want_log_sum_exp = 1};
                s.tokens[0] = 1 + (int64_t)(length % 8);
                s.keys[0] = keys[length++ % 7];
                s.head_dim = dims[d];
                s.group = groups[g];
                s.causal = mask % 2;
                s.softcap = mask / 2 % 2 ? 5.0f : 0.0f;
                s.window = mask / 4 ? 9 : 0;
                s.sinks = mask / 4 == 2 ? 4 : 0;
                s.kv_dtype = (lspan_dtype)(length % 3);
                s.query_dtype = (lspan_dtype)(length / 3 % 3);
                attention_check_all(&s, attention_kernel_decode, 0);
            }
        }
    }
}

/* Keys long enough to be split over workers and merged, alone and beside short and empty sequences. */
static void test_split_keys(void)
{
    for (int64_t tokens = 0; tokens <= 8; tokens++) {
        attention_spec s = {.sequences = 1, .kv_heads = 1, .group = 2, .head_dim = 40, .spread = 2};
        s.tokens[0] = tokens;
        s.keys[0] = 2000 + 37 * tokens;
        s.causal = tokens % 2 == 1;
        s.kv_dtype = (lspan_dtype)(tokens % 3);
        s.want_log_sum_exp = tokens % 3 != 2;
        attention_check_all(&s, attention_kernel_decode, 1);
        s.window = 1300;
        s.sinks = 5;
        attention_check_all(&s, attention_kernel_decode, 1);
        s.sequences = 4;
        s.tokens[1] = 8;
        s.keys[1] = 3;
        s.tokens[2] = 0;
        s.keys[2] = 700;
        s.tokens[3] = 2;
        s.keys[3] = 1100;
        s.window = tokens % 2 ? 600 : 0;
        s.sinks = 700;
        s.query_layout = s.kv_layout = s.output_layout = (test_layout)(tokens % test_layout_count);
        attention_check_all(&s, attention_kernel_decode, 1);
    }
}

static void test_large_logits(void)
{
    attention_spec s = {.sequences = 1, .kv_heads = 1, .group = 2, .head_dim = 64, .spread = 4000};
    s.tokens[0] = 3;
    s.keys[0] = 1500;
    s.causal = 1;
    s.want_log_sum_exp = 1;
    attention_check_all(&s, attention_kernel_decode, 1);
    s.softcap = 50;
    attention_check_all(&s, attention_kernel_decode, 1);
}

static void test_special_values(void)
{
    for (int special = 1; special <= 3; special++) {
        for (int dtype = 0; dtype < 3; dtype++) {
            attention_spec s = {.sequences = 3, .kv_heads = 2, .group = 2, .head_dim = 40, .spread = 1};
            s.tokens[0] = 8;
            s.keys[0] = 33;
            s.tokens[1] = 6;
            s.keys[1] = 1170;
            s.tokens[2] = 5;
            s.keys[2] = 2;
            s.causal = 1;
            s.kv_dtype = s.query_dtype = (lspan_dtype)dtype;
            s.want_log_sum_exp = 1;
            s.special = (attention_special)special;
            attention_check_all(&s, attention_kernel_decode, 1);
        }
    }
}

static void test_random_shapes(void)
{
    for (int i = 0; i < 320; i++) {
        attention_spec s = attention_random_spec();
        int64_t budget = INT64_C(1500000);
        for (int64_t b = 0; b < s.sequences; b++) {
            s.tokens[b] = test_one_in(8) ? 0 : test_one_in(2) ? 1 : test_random_int(1, 8);
            int64_t most = budget / s.sequences / (s.kv_heads * s.group * s.head_dim * (s.tokens[b] + 1));
            s.keys[b] = test_one_in(8) ? 0 : test_random_int(1, most < 1 ? 1 : most < 2500 ? most : 2500);
        }
        attention_check_all(&s, attention_kernel_decode, 0);
    }
}

/* Decode and prefill compute the same function: the difference is at most what both may be off by. */
static void test_equals_prefill(void)
{
    for (int i = 0; i < 40; i++) {
        attention_spec s = attention_random_spec();
        s.special = attention_special_none;
        for (int64_t b = 0; b < s.sequences; b++) {
            s.tokens[b] = test_random_int(0, 8);
            s.keys[b] = test_random_int(0, 200);
        }
        attention_case c = attention_make(&s);
        attention_refer(&c);
        size_t count;
        const test_context *contexts = test_contexts(&count);
        for (size_t k = 0; k < count; k += TEST_THREAD_COUNTS) {
            attention_check(&c, attention_kernel_prefill, &contexts[k]);
            attention_check(&c, attention_kernel_decode, &contexts[k]);
        }
        attention_release(&c);
    }
}

int main(void)
{
    test_masks();
    test_split_keys();
    attention_check_lengths_and_rotation(attention_kernel_decode);
    attention_check_rotation_is_rope(attention_kernel_decode);
    test_large_logits();
    test_special_values();
    test_random_shapes();
    test_equals_prefill();
    return test_finish("attention_decode_test");
}
