/* kv_memory.c: reserved address space, and moving pages between reservations. */
#define _GNU_SOURCE
#include "checks.h"
#include <longspan/kv.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)

#if !defined(MAP_NORESERVE)
#define MAP_NORESERVE 0
#endif

size_t lspan_kv_page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t round_to_pages(size_t bytes)
{
    size_t page = lspan_kv_page_bytes();
    return (bytes + page - 1) / page * page;
}

static void *map(void *where, size_t bytes, int flags)
{
    return mmap(where, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

lspan_status lspan_kv_reserve(size_t bytes, void **memory)
{
    if (!memory) return lspan_status_null_pointer;
    if (bytes == 0) return lspan_status_bad_shape;
    if (bytes > (size_t)PTRDIFF_MAX - 2 * HUGE_PAGE) return lspan_status_overflow;
    size_t size = round_to_pages(bytes);
    size_t slack = size >= HUGE_PAGE ? HUGE_PAGE : 0;
    char *start = map(NULL, size + slack, 0);
    if (start == MAP_FAILED) return lspan_status_out_of_memory;
    if (slack) {
        size_t before = (HUGE_PAGE - (size_t)((uintptr_t)start % HUGE_PAGE)) % HUGE_PAGE;
        if (before) munmap(start, before);
        start += before;
        if (slack - before) munmap(start + size, slack - before);
#if defined(MADV_HUGEPAGE)
        /* only a hint: without huge pages the memory is slower, not wrong */
        (void)madvise(start, size, MADV_HUGEPAGE);
#endif
    }
    *memory = start;
    return lspan_status_ok;
}

lspan_status lspan_kv_release(void *memory, size_t bytes)
{
    if (!memory) return lspan_status_ok;
    LSPAN_CHECK(lspan_check_aligned(memory, lspan_kv_page_bytes()));
    return munmap(memory, round_to_pages(bytes)) == 0 ? lspan_status_ok : lspan_status_bad_value;
}

lspan_status lspan_kv_move(void *destination, void *source, size_t bytes)
{
    size_t page = lspan_kv_page_bytes();
    if (!destination || !source) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(destination, page));
    LSPAN_CHECK(lspan_check_aligned(source, page));
    if (bytes % page != 0) return lspan_status_bad_alignment;
    if (bytes == 0) return lspan_status_ok;
#if defined(MREMAP_FIXED)
    if (mremap(source, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, destination) == MAP_FAILED) {
        return lspan_status_out_of_memory;
    }
    /* the hole is mapped again, so that the source reservation stays whole and can be released at once */
    if (map(source, bytes, MAP_FIXED) == MAP_FAILED) return lspan_status_out_of_memory;
#else
    memcpy(destination, source, bytes);
#endif
    return lspan_status_ok;
}
