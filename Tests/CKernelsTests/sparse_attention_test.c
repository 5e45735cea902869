/* sparse_attention_test.c: attention over listed tokens and blocks against the reference over the same keys. */
#include "attention_support.h"

typedef struct list_spec {
    int64_t block;
    int64_t query_tokens;
    int shared;      /* one list for all heads */
    int ascending;   /* else in random order */
    int all;         /* every entry */
    int repeats;     /* some entries twice */
    double fraction; /* of the entries, about */
} list_spec;

/* Lists of a case, and how often each counts each slot. */
typedef struct list_case {
    list_spec spec;
    const attention_case *attention;
    int64_t lists;
    int64_t first_tile[ATTENTION_MAX_SEQUENCES + 1];
    test_buffer indptr, indices;
    int64_t *times; /* [lists, slots] */
    int64_t slots;  /* of the longest sequence */
} list_case;

static int64_t tiles_of(const list_spec *l, int64_t tokens)
{
    return l->query_tokens == 0 ? 1 : (tokens + l->query_tokens - 1) / l->query_tokens;
}

static int64_t list_heads(const list_case *l)
{
    return l->spec.shared ? 1 : l->attention->spec.kv_heads;
}

/* Appends a list of entries below `blocks`. */
static int64_t fill_list(const list_spec *l, int64_t blocks, int32_t *entries)
{
    int64_t count = 0;
    int empty = !l->all && test_one_in(10);
    for (int64_t e = 0; e < blocks && !empty; e++) {
        if (!l->all && test_random_unit() >= l->fraction) continue;
        entries[count++] = (int32_t)e;
        if (l->repeats && test_one_in(5)) entries[count++] = (int32_t)e;
    }
    for (int64_t i = count - 1; i > 0 && !l->ascending; i--) {
        int64_t j = test_random_int(0, i);
        int32_t entry = entries[i];
        entries[i] = entries[j];
        entries[j] = entry;
    }
    return count;
}

static list_case make_lists(const list_spec *spec, const attention_case *c)
{
    list_case l = {.spec = *spec, .attention = c};
    const attention_spec *s = &c->spec;
    for (int64_t b = 0; b < s->sequences; b++) {
        l.first_tile[b + 1] = l.first_tile[b] + tiles_of(spec, s->tokens[b]);
        l.slots = s->keys[b] > l.slots ? s->keys[b] : l.slots;
    }
    int64_t heads = list_heads(&l), count = 0;
    l.lists = l.first_tile[s->sequences] * heads;
    l.indptr = test_allocate((size_t)(l.lists + 1) * sizeof(int64_t), sizeof(int64_t));
    l.times = test_malloc(l.lists * l.slots, sizeof *l.times);
    int64_t *indptr = l.indptr.data;
    int32_t *entries = test_malloc(l.lists * (l.slots + 1) * 2, sizeof *entries);
    indptr[0] = 0;
    for (int64_t b = 0; b < s->sequences; b++) {
        int64_t blocks = s->keys[b] / spec->block + (s->keys[b] % spec->block != 0);
        for (int64_t list = l.first_tile[b] * heads; list < l.first_tile[b + 1] * heads; list++) {
            int64_t some = fill_list(spec, blocks, entries + count);
            for (int64_t i = count; i < count + some; i++) {
                int64_t slot = entries[i] * spec->block;
                for (int64_t k = 0; k < spec->block && slot + k < s->keys[b]; k++) l.times[list * l.slots + slot + k]++;
            }
            count += some;
            indptr[list + 1] = count;
        }
    }
    l.indices = test_allocate((size_t)count * sizeof *entries, sizeof *entries);
    if (count > 0) memcpy(l.indices.data, entries, (size_t)count * sizeof *entries);
    free(entries);
    return l;
}

static void release_lists(list_case *l)
{
    test_release(&l->indptr);
    test_release(&l->indices);
    free(l->times);
}

static int64_t times_listed(const void *user, int64_t sequence, int64_t row, int64_t kv_head, int64_t slot)
{
    const list_case *l = user;
    int64_t tile = l->spec.query_tokens == 0 ? 0 : row / l->spec.query_tokens;
    int64_t list = (l->first_tile[sequence] + tile) * list_heads(l) + (l->spec.shared ? 0 : kv_head);
    return l->times[list * l->slots + slot];
}

typedef struct sparse_run {
    const list_case *lists;
    attention_kernel kernel;
} sparse_run;

static lspan_status run_sparse(const void *user, const lspan_context *context, const lspan_attention *call)
{
    const sparse_run *run = user;
    lspan_sparse_attention s = {0};
    size_t bytes = 0;
    s.attention = *call;
    s.block = run->lists->spec.block;
    s.list_heads = list_heads(run->lists);
    s.query_tokens = run->lists->spec.query_tokens;
    s.indptr = run->lists->indptr.data;
    s.indices = run->lists->indices.data;
    int prefill = run->kernel == attention_kernel_prefill;
    lspan_status status = prefill ? lspan_sparse_prefill_workspace_size(context, &s, &bytes)
                                  : lspan_sparse_decode_workspace_size(context, &s, &bytes);
    if (status != lspan_status_ok) return status;
    test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    status = prefill ? lspan_sparse_prefill(context, &s, workspace.data, bytes)
                     : lspan_sparse_decode(context, &s, workspace.data, bytes);
    test_release(&workspace);
    return status;
}

static void check_lists(const attention_spec *spec, const list_spec *list, attention_kernel kernel, int every_team)
{
    if (!test_sampled()) return;
    attention_case c = attention_make(spec);
    list_case lists = make_lists(list, &c);
    lspan_reference_keys chosen = {times_listed, &lists};
    /* with every entry once the mask alone decides */
    attention_refer_over(&c, list->all && !list->repeats ? NULL : &chosen);
    sparse_run run = {&lists, kernel};
    size_t count;
    const test_context *contexts = test_contexts(&count);
    int prefill = kernel == attention_kernel_prefill;
    for (size_t i = 0; i < count; i++) {
        if (!every_team && i % TEST_THREAD_COUNTS != (size_t)(test_random() % TEST_THREAD_COUNTS)) continue;
        attention_check_run(
            &c, &contexts[i], run_sparse, &run, attention_rounding(&c, kernel, contexts[i].name),
            prefill ? "sparse prefill" : "sparse decode", prefill ? "sparse prefill lse" : "sparse decode lse");
    }
    release_lists(&lists);
    attention_release(&c);
}

/* Longer than tiles of keys and shares of tasks, under every mask. */
static void test_long_lists(void)
{
    for (int i = 0; i < 24; i++) {
        attention_spec s = {.sequences = 2, .kv_heads = 2, .group = 3, .spread = 1, .want_log_sum_exp = 1};
        s.head_dim = i % 2 ? 128 : 64;
        s.tokens[0] = i % 2 ? 1 + i % 8 : 120;
        s.keys[0] = i % 2 ? 3001 : 701;
        s.tokens[1] = 2;
        s.keys[1] = 40;
        s.causal = i / 2 % 2;
        s.window = i / 4 % 3 ? 333 : 0;
        s.sinks = i / 4 % 3 == 2 ? 30 : 0;
        s.own_lengths = i % 5 == 0;
        s.kv_dtype = (lspan_dtype)(i / 2 % 3);
        s.query_dtype = i % 4 == 0 ? lspan_dtype_f32 : s.kv_dtype;
        s.kv_layout = (test_layout)(i % test_layout_count);
        list_spec l = {.block = i % 3 ? 1 : 16, .shared = i % 4 == 3, .ascending = i % 5 != 0, .fraction = 0.6};
        l.query_tokens = i % 2 || i % 3 ? 0 : 50;
        l.repeats = i % 7 == 0;
        check_lists(&s, &l, i % 2 ? attention_kernel_decode : attention_kernel_prefill, 1);
    }
}

static void test_every_key(void)
{
    for (int i = 0; i < 20; i++) {
        attention_spec s = attention_random_spec();
        for (int64_t b = 0; b < s.sequences; b++) {
            s.tokens[b] = test_random_int(0, 8);
            s.keys[b] = test_random_int(0, 700);
        }
        list_spec l = {.block = i % 2 ? 1 : test_random_int(1, 100), .shared = i % 3 == 0, .all = 1, .ascending = i % 4 > 0};
        check_lists(&s, &l, i / 2 % 2 ? attention_kernel_decode : attention_kernel_prefill, 0);
    }
}

static void test_random_lists(attention_kernel kernel)
{
    static const double fractions[] = {0.02, 0.3, 0.8};
    int prefill = kernel == attention_kernel_prefill;
    for (int i = 0; i < 200; i++) {
        attention_spec s = attention_random_spec();
        if (s.special == attention_special_nan) s.special = attention_special_none;
        int64_t budget = INT64_C(700000);
        for (int64_t b = 0; b < s.sequences; b++) {
            s.tokens[b] = test_one_in(8) ? 0 : test_random_int(1, prefill ? 60 : 8);
            int64_t most = budget / s.sequences / (s.kv_heads * s.group * s.head_dim * (s.tokens[b] + 1));
            s.keys[b] = test_one_in(8) ? 0 : test_random_int(1, most < 1 ? 1 : most < 1500 ? most : 1500);
        }
        list_spec l = {.fraction = fractions[test_random_int(0, 2)]};
        l.block = test_one_in(2) ? 1 : test_one_in(5) ? INT64_MAX : test_random_int(2, 70);
        l.query_tokens = test_one_in(2) ? 0 : prefill ? test_random_int(1, 70) : test_random_int(8, 20);
        l.shared = test_one_in(2);
        l.ascending = test_one_in(2);
        l.repeats = test_one_in(4);
        check_lists(&s, &l, kernel, 0);
    }
}

int main(void)
{
    test_long_lists();
    test_every_key();
    test_random_lists(attention_kernel_prefill);
    test_random_lists(attention_kernel_decode);
    return test_finish("sparse_attention_test");
}
