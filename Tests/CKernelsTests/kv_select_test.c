/* kv_select_test.c: selection against a reference that sorts. */
#include "support.h"

static const char *const scope_names[] = {"row", "shared", "joint", "threshold"};

/* Scores of few or many values, with everything that orders in a special way. */
static float random_score(int kind)
{
    static const float special[] = {0.0f, -0.0f, NAN, INFINITY, -INFINITY, 1.0f, -1.0f, 0x1p-149f, -0x1p-149f};
    if (kind == 0) return test_random_normal();
    if (kind == 1) return (float)test_random_int(0, 3);
    if (kind == 2) return special[test_random_int(0, 8)];
    if (kind == 3) return (float)(1e-3 * (1 + 0.01 * test_random_unit())); /* shares of a softmax */
    if (kind == 4) return test_one_in(3) ? special[test_random_int(0, 8)] : test_random_normal();
    return 0.25f;
}

static int64_t make_forced(lspan_token_range *forced, int64_t tokens, int64_t *count)
{
    int64_t end = 0, total = 0, most = test_random_int(0, 5);
    *count = 0;
    for (int64_t i = 0; i < most; i++) {
        int64_t begin = end + (test_one_in(3) ? 0 : test_random_int(0, tokens / 4 + 1));
        int64_t length = test_one_in(5) ? 0 : test_random_int(0, tokens / 6 + 1);
        if (begin > tokens) break;
        end = begin + length < tokens ? begin + length : tokens;
        forced[(*count)++] = (lspan_token_range){begin, end};
        total += end - begin;
    }
    return total;
}

static void check_selection(lspan_select_scope scope, int64_t rows, int64_t tokens, int kind)
{
    lspan_token_range forced[8];
    lspan_selection s = {.scope = scope, .rows = rows, .tokens = tokens};
    int64_t lists = scope == lspan_select_scope_shared ? 1 : rows;
    int joint = scope == lspan_select_scope_joint;
    s.score_row_stride = tokens + test_random_int(0, 3);
    int64_t total = test_one_in(2) ? 0 : make_forced(forced, tokens, &s.forced_count);
    int64_t least = joint ? rows * total : total, most = joint ? rows * tokens : tokens;
    s.keep = test_one_in(6) ? least : test_one_in(6) ? most : test_random_int(least, most);
    s.threshold = test_one_in(6) ? -INFINITY : random_score(kind == 2 || kind == 4 ? 0 : kind);
    if (test_one_in(6)) s.threshold = -0.0f;
    test_case(
        "select %s rows%lld N%lld keep%lld forced%lld in %lld threshold%g scores%d", scope_names[scope],
        (long long)rows, (long long)tokens, (long long)s.keep, (long long)total, (long long)s.forced_count,
        (double)s.threshold, kind);
    int64_t room = scope == lspan_select_scope_row         ? rows * s.keep
                   : scope == lspan_select_scope_threshold ? rows * tokens
                                                           : s.keep;
    int64_t count = rows > 0 ? (rows - 1) * s.score_row_stride + tokens : 0;
    test_buffer scores = test_allocate((size_t)count * sizeof(float), sizeof(float));
    for (int64_t i = 0; i < count; i++) ((float *)scores.data)[i] = random_score(kind);
    test_buffer offsets = test_allocate((size_t)rows * sizeof(int32_t), sizeof(int32_t));
    for (int64_t r = 0; r < rows; r++) ((int32_t *)offsets.data)[r] = (int32_t)test_random_int(0, 1000);
    test_buffer ranges = test_allocate((size_t)s.forced_count * sizeof *forced, sizeof(int64_t));
    memcpy(ranges.data, forced, ranges.bytes);
    s.forced = ranges.data;
    s.scores = scores.data;
    s.capacity = room;
    if (scope != lspan_select_scope_shared && test_one_in(2)) s.row_offsets = offsets.data;

    int32_t *want = test_malloc(room, sizeof *want);
    int64_t *want_indptr = test_malloc(lists + 1, sizeof *want_indptr);
    lspan_selection reference = s;
    reference.indices = want;
    reference.indptr = want_indptr;
    lspan_reference_select(&reference);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        size_t bytes = 99;
        CHECK_OK(lspan_select_workspace_size(contexts[i].context, &s, &bytes));
        test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
        test_buffer indices = test_allocate((size_t)room * sizeof(int32_t), sizeof(int32_t));
        test_buffer indptr = test_allocate((size_t)(lists + 1) * sizeof(int64_t), sizeof(int64_t));
        lspan_selection call = s;
        call.indices = indices.data;
        call.indptr = indptr.data;
        CHECK_OK(lspan_select(contexts[i].context, &call, workspace.data, bytes));
        int same = memcmp(call.indptr, want_indptr, (size_t)(lists + 1) * sizeof *want_indptr) == 0;
        if (CHECK_MESSAGE(same, "%s: wrong lengths", contexts[i].name)) {
            int64_t entries = want_indptr[lists];
            CHECK_MESSAGE(
                memcmp(call.indices, want, (size_t)entries * sizeof *want) == 0, "%s: wrong lists", contexts[i].name);
        }
        test_release(&workspace);
        test_release(&indices);
        test_release(&indptr);
    }
    test_release(&scores);
    test_release(&offsets);
    test_release(&ranges);
    free(want);
    free(want_indptr);
}

int main(void)
{
    for (int i = 0; i < 1200; i++) {
        int64_t rows = test_one_in(12) ? 0 : test_random_int(1, 6);
        int64_t tokens = test_one_in(12) ? test_random_int(0, 2) : test_random_int(1, test_one_in(4) ? 400 : 40);
        check_selection((lspan_select_scope)(i % 4), rows, tokens, (int)test_random_int(0, 5));
    }
    /* several tasks, and digits of both widths */
    for (int i = 0; i < 24; i++) {
        check_selection((lspan_select_scope)(i % 4), test_random_int(5, 9), test_random_int(3500, 5000), i / 4);
    }
    return test_finish("kv_select_test");
}
