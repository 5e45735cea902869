/* kv_memory_test.c: reservations, and moving pages between them. */
#include "support.h"

static uint32_t mark(size_t index, int round)
{
    return (uint32_t)(index * 2654435761u) ^ (uint32_t)round;
}

static void test_reservations(void)
{
    size_t page = lspan_kv_page_bytes();
    size_t sizes[] = {1, page, page + 1, ((size_t)2 << 20) - 1, (size_t)2 << 20, ((size_t)6 << 20) + 5};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        test_case("reservation of %zu", sizes[i]);
        void *memory = NULL;
        if (!CHECK_OK(lspan_kv_reserve(sizes[i], &memory))) continue;
        size_t alignment = sizes[i] >= ((size_t)2 << 20) ? (size_t)2 << 20 : page;
        CHECK((uintptr_t)memory % alignment == 0);
        unsigned char *bytes = memory;
        CHECK(bytes[0] == 0 && bytes[sizes[i] / 2] == 0 && bytes[sizes[i] - 1] == 0);
        memset(bytes, 0xA5, sizes[i]);
        CHECK_OK(lspan_kv_release(memory, sizes[i]));
    }
    CHECK_OK(lspan_kv_release(NULL, page));
}

/* Blocks move from reservation to larger reservation as in a cache that grows three times: after the first move the
 * pages of a block are mappings of their own, which older kernels cannot move in one call. */
static void test_growth(void)
{
    size_t page = lspan_kv_page_bytes(), block = 2 * page, blocks = 3;
    uint32_t *memory = NULL;
    void *made = NULL;
    if (!CHECK_OK(lspan_kv_reserve(blocks * block, &made))) return;
    memory = made;
    for (int round = 0; round < 3; round++) {
        test_case("growth %d", round);
        size_t used = block / sizeof *memory;
        for (size_t b = 0; b < blocks; b++) {
            for (size_t i = 0; i < used; i++) memory[b * used + i] = mark(b * used + i, round);
        }
        if (!CHECK_OK(lspan_kv_reserve(2 * blocks * block, &made))) break;
        uint32_t *larger = made;
        for (size_t b = 0; b < blocks; b++) {
            CHECK_OK(lspan_kv_move(larger + 2 * b * used, memory + b * used, block));
        }
        size_t wrong = 0;
        for (size_t b = 0; b < blocks; b++) {
            for (size_t i = 0; i < used; i++) wrong += larger[2 * b * used + i] != mark(b * used + i, round);
            for (size_t i = 0; i < used; i++) wrong += larger[(2 * b + 1) * used + i] != 0;
        }
        CHECK_MESSAGE(wrong == 0, "%zu elements are wrong", wrong);
        /* the source is whole: it can be written and released at once */
        memset(memory, 1, blocks * block);
        CHECK_OK(lspan_kv_release(memory, blocks * block));
        memory = larger;
        block *= 2;
    }
    CHECK_OK(lspan_kv_release(memory, blocks * block));
}

static void test_contract(void)
{
    size_t page = lspan_kv_page_bytes();
    void *memory = NULL;
    test_case("contract");
    CHECK_STATUS(lspan_kv_reserve(page, NULL), lspan_status_null_pointer);
    CHECK_STATUS(lspan_kv_reserve(0, &memory), lspan_status_bad_shape);
    CHECK_STATUS(lspan_kv_reserve(SIZE_MAX, &memory), lspan_status_overflow);
    CHECK_STATUS(lspan_kv_reserve((size_t)PTRDIFF_MAX / 2, &memory), lspan_status_out_of_memory);
    CHECK(memory == NULL);
    if (!CHECK_OK(lspan_kv_reserve(4 * page, &memory))) return;
    char *bytes = memory;
    bytes[0] = 7;
    CHECK_STATUS(lspan_kv_release(bytes + 1, page), lspan_status_bad_alignment);
    CHECK_STATUS(lspan_kv_move(NULL, bytes, page), lspan_status_null_pointer);
    CHECK_STATUS(lspan_kv_move(bytes, NULL, page), lspan_status_null_pointer);
    CHECK_STATUS(lspan_kv_move(bytes + page + 1, bytes, page), lspan_status_bad_alignment);
    CHECK_STATUS(lspan_kv_move(bytes + page, bytes + 1, page), lspan_status_bad_alignment);
    CHECK_STATUS(lspan_kv_move(bytes + page, bytes, 1), lspan_status_bad_alignment);
    CHECK_OK(lspan_kv_move(bytes + page, bytes, 0));
    CHECK(bytes[0] == 7);
    CHECK_OK(lspan_kv_release(memory, 4 * page));
}

int main(void)
{
    test_reservations();
    test_growth();
    test_contract();
    return test_finish("kv_memory_test");
}
