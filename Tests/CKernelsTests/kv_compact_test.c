/* kv_compact_test.c: compaction, bit for bit against a reference that goes by way of a copy. */
#include "support.h"

#define MAX_SIDES 5

typedef struct cache {
    test_tensor keys;
    test_tensor values;
    test_buffer sides[MAX_SIDES];
    lspan_side_array side[MAX_SIDES];
} cache;

static void fill(test_buffer *buffer)
{
    for (size_t i = 0; i < buffer->bytes; i++) ((unsigned char *)buffer->data)[i] = (unsigned char)test_random();
}

static test_buffer copy_of(const test_buffer *buffer, size_t alignment)
{
    test_buffer copy = test_allocate(buffer->bytes, alignment);
    memcpy(copy.data, buffer->data, buffer->bytes);
    return copy;
}

static cache make_cache(int64_t slots, int64_t heads, int64_t head_dim, int sides)
{
    cache c = {0};
    c.keys = test_tensor_make(test_random_dtype(), slots, heads, head_dim, test_random_layout());
    c.values = test_tensor_make(test_random_dtype(), slots, heads, head_dim, test_random_layout());
    fill(&c.keys.buffer);
    fill(&c.values.buffer);
    for (int s = 0; s < sides; s++) {
        int64_t size = INT64_C(1) << s, stride = slots + test_random_int(0, 3);
        c.sides[s] = test_allocate((size_t)(((heads - 1) * stride + slots) * size), (size_t)size);
        fill(&c.sides[s]);
        c.side[s] = (lspan_side_array){c.sides[s].data, size, stride};
    }
    return c;
}

static cache copy_cache(const cache *from, int sides)
{
    cache c = *from;
    c.keys = test_tensor_copy(&from->keys);
    c.values = test_tensor_copy(&from->values);
    for (int s = 0; s < sides; s++) {
        c.sides[s] = copy_of(&from->sides[s], (size_t)from->side[s].element_bytes);
        c.side[s].data = c.sides[s].data;
    }
    return c;
}

static void release_cache(cache *c, int sides)
{
    test_tensor_release(&c->keys);
    test_tensor_release(&c->values);
    for (int s = 0; s < sides; s++) test_release(&c->sides[s]);
}

static int same_bytes(const test_buffer *a, const test_buffer *b)
{
    return memcmp(a->data, b->data, a->bytes) == 0;
}

static void run_on(const lspan_compaction *spec, cache *c, const lspan_context *context)
{
    lspan_compaction call = *spec;
    call.keys = test_heads_out(&c->keys);
    call.values = test_heads_out(&c->values);
    call.side = c->side;
    if (context) CHECK_OK(lspan_compact(context, &call));
    else lspan_reference_compact(&call);
}

/* Slots that stay in their place may lie below or above what moves, but never in it: the reference is told only what
 * moves, so what else it leaves must be left by the kernel too. */
static void check_compaction(const lspan_compaction *spec, int sides)
{
    cache original = make_cache(spec->slots, spec->heads, spec->head_dim, sides), want = copy_cache(&original, sides);
    run_on(spec, &want, NULL);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        cache got = copy_cache(&original, sides);
        run_on(spec, &got, contexts[i].context);
        CHECK_MESSAGE(same_bytes(&got.keys.buffer, &want.keys.buffer), "%s: keys", contexts[i].name);
        CHECK_MESSAGE(same_bytes(&got.values.buffer, &want.values.buffer), "%s: values", contexts[i].name);
        for (int s = 0; s < sides; s++) {
            CHECK_MESSAGE(same_bytes(&got.sides[s], &want.sides[s]), "%s: side array %d", contexts[i].name, s);
        }
        release_cache(&got, sides);
    }
    release_cache(&original, sides);
    release_cache(&want, sides);
}

/* How likely a slot is kept, in percent; 100 keeps all in place. */
static void random_case(int64_t heads, int64_t head_dim, int64_t slots, int percent, int shared, int with_tail)
{
    int64_t lists = shared ? 1 : heads, entries = 0;
    lspan_compaction c = {.heads = heads, .head_dim = head_dim, .slots = slots, .lists = lists};
    int sides = (int)test_random_int(0, MAX_SIDES);
    c.side_count = sides;
    c.destination = test_one_in(2) ? 0 : test_random_int(0, slots);
    c.tail_begin = with_tail ? test_random_int(c.destination, slots) : test_random_int(0, slots);
    c.tail_end = with_tail ? test_random_int(c.tail_begin, slots) : c.tail_begin;
    if (with_tail && test_one_in(2)) c.tail_end = slots;
    int64_t limit = c.tail_end > c.tail_begin ? c.tail_begin : slots;
    test_buffer indptr = test_allocate((size_t)(lists + 1) * sizeof(int64_t), sizeof(int64_t));
    int32_t *all = test_malloc(lists * slots, sizeof *all);
    int64_t *offsets = indptr.data;
    offsets[0] = 0;
    for (int64_t l = 0; l < lists; l++) {
        int64_t first = test_one_in(3) ? c.destination : test_random_int(c.destination, slots);
        int chance = test_one_in(8) ? 0 : percent;
        for (int64_t t = first; t < limit; t++) {
            /* runs of neighbours, as a choice by score makes */
            int run = t > first && all[entries > 0 ? entries - 1 : 0] == (int32_t)t - 1 && test_one_in(2);
            if (chance > 0 && (run || test_random_int(1, 100) <= chance)) all[entries++] = (int32_t)t;
        }
        offsets[l + 1] = entries;
    }
    test_buffer indices = test_allocate((size_t)entries * sizeof(int32_t), sizeof(int32_t));
    memcpy(indices.data, all, indices.bytes);
    c.indptr = offsets;
    c.indices = entries > 0 ? indices.data : NULL;
    test_case(
        "compact H%lld D%lld slots%lld lists%lld entries%lld to %lld tail %lld..%lld sides%d", (long long)heads,
        (long long)head_dim, (long long)slots, (long long)lists, (long long)entries, (long long)c.destination,
        (long long)c.tail_begin, (long long)c.tail_end, sides);
    check_compaction(&c, sides);
    test_release(&indptr);
    test_release(&indices);
    free(all);
}

int main(void)
{
    for (int i = 0; i < 400; i++) {
        int64_t slots = test_one_in(10) ? test_random_int(0, 2) : test_random_int(1, 90);
        static const int percents[] = {5, 30, 50, 80, 100};
        random_case(
            test_random_int(1, 4), test_random_int(1, test_one_in(4) ? 150 : 40), slots, percents[i % 5], test_one_in(3),
            test_one_in(2));
    }
    /* enough for several tasks, in the shapes that caches have */
    for (int i = 0; i < 8; i++) random_case(3, i < 4 ? 128 : 64, 300, 50, i % 2, i % 4 < 2);
    return test_finish("kv_compact_test");
}
