/* attention_prefill_test.c: prefill attention against the reference. */
#include "attention_support.h"

/* Every head dimension, group and dtype under every mask, with lengths that are no multiple of a tile. */
static void test_masks(void)
{
    static const int64_t dims[] = {8, 24, 64, 80, 128, 256};
    static const int64_t groups[] = {1, 3, 4, 8};
    static const int64_t lengths[][2] = {{13, 37}, {0, 5}, {7, 3}, {5, 0}, {1, 1}, {33, 150}, {26, 26}, {3, 129}, {40, 11}};
    size_t length = 0;
    for (size_t d = 0; d < 6; d++) {
        for (size_t g = 0; g < 4; g++) {
            for (int mask = 0; mask < 12; mask++) {
                const int64_t *shape = lengths[length++ % 9];
                attention_spec s = {.sequences = 1, .kv_heads = 2, .spread = 1, .want_log_sum_exp = 1};
                s.tokens[0] = shape[0];
                s.keys[0] = shape[1];
                s.head_dim = dims[d];
                s.group = groups[g];
                s.causal = mask % 2;
                s.softcap = mask / 2 % 2 ? 5.0f : 0.0f;
                s.window = mask / 4 ? 9 : 0;
                s.sinks = mask / 4 == 2 ? 4 : 0;
                s.kv_dtype = (lspan_dtype)(length % 3);
                s.query_dtype = (lspan_dtype)(length / 3 % 3);
                attention_check_all(&s, attention_kernel_prefill, 0);
            }
        }
    }
}

/* Several query tiles and key tiles for every team, in every layout. */
static void test_many_tiles(void)
{
    for (int layout = 0; layout < test_layout_count; layout++) {
        for (int causal = 0; causal < 2; causal++) {
            attention_spec s = {.sequences = 2, .kv_heads = 1, .group = 3, .head_dim = 64, .spread = 2};
            s.tokens[0] = 107;
            s.keys[0] = 301;
            s.tokens[1] = 65;
            s.keys[1] = 40;
            s.causal = causal;
            s.window = layout % 2 ? 70 : 0;
            s.sinks = layout % 2 ? 9 : 0;
            s.kv_dtype = (lspan_dtype)(layout % 3);
            s.query_layout = s.kv_layout = s.output_layout = (test_layout)layout;
            s.want_log_sum_exp = causal;
            attention_check_all(&s, attention_kernel_prefill, 1);
        }
    }
}

/* More rows than a task has, and blocks of rows that see different parts of a key tile. */
static void test_row_blocks(void)
{
    for (int mask = 0; mask < 6; mask++) {
        attention_spec s = {.sequences = 1, .kv_heads = 1, .group = 8, .head_dim = 40, .spread = 1, .want_log_sum_exp = 1};
        s.tokens[0] = 150;
        s.keys[0] = mask % 2 ? 410 : 133;
        s.causal = 1;
        s.window = mask / 2 ? 45 : 0;
        s.sinks = mask / 2 == 2 ? 30 : 0;
        s.kv_dtype = s.query_dtype = mask % 2 ? lspan_dtype_bf16 : lspan_dtype_f32;
        attention_check_all(&s, attention_kernel_prefill, 1);
    }
}

/* Logits of about 1e4, where an exponential of an unshifted logit would overflow. */
static void test_large_logits(void)
{
    for (int causal = 0; causal < 2; causal++) {
        attention_spec s = {.sequences = 1, .kv_heads = 1, .group = 2, .head_dim = 64, .spread = 4000};
        s.tokens[0] = 31;
        s.keys[0] = 200;
        s.causal = causal;
        s.want_log_sum_exp = 1;
        attention_check_all(&s, attention_kernel_prefill, 0);
        s.softcap = 50;
        attention_check_all(&s, attention_kernel_prefill, 0);
    }
}

static void test_special_values(void)
{
    for (int special = 1; special <= 3; special++) {
        for (int dtype = 0; dtype < 3; dtype++) {
            attention_spec s = {.sequences = 2, .kv_heads = 2, .group = 2, .head_dim = 40, .spread = 1};
            s.tokens[0] = 21;
            s.keys[0] = 33;
            s.tokens[1] = 60;
            s.keys[1] = 170;
            s.causal = 1;
            s.kv_dtype = s.query_dtype = (lspan_dtype)dtype;
            s.want_log_sum_exp = 1;
            s.special = (attention_special)special;
            attention_check_all(&s, attention_kernel_prefill, 0);
        }
    }
}

static void test_random_shapes(void)
{
    for (int i = 0; i < 300; i++) {
        attention_spec s = attention_random_spec();
        int64_t budget = INT64_C(1500000);
        for (int64_t b = 0; b < s.sequences; b++) {
            s.keys[b] = test_one_in(8) ? 0 : test_random_int(1, test_one_in(3) ? 400 : 60);
            int64_t most = budget / s.sequences / (s.kv_heads * s.group * s.head_dim * (s.keys[b] + 1));
            s.tokens[b] = test_one_in(8) ? 0 : test_random_int(1, most < 1 ? 1 : most < 150 ? most : 150);
        }
        attention_check_all(&s, attention_kernel_prefill, 0);
    }
}

int main(void)
{
    test_masks();
    test_many_tiles();
    test_row_blocks();
    attention_check_lengths_and_rotation(attention_kernel_prefill);
    attention_check_rotation_is_rope(attention_kernel_prefill);
    test_large_logits();
    test_special_values();
    test_random_shapes();
    return test_finish("attention_prefill_test");
}
