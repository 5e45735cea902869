/* kv_memory.c: reserved address space, and moving pages between reservations. */
#define _GNU_SOURCE
#include "checks.h"
#include <errno.h>
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
    if (bytes > (size_t)PTRDIFF_MAX) return lspan_status_bad_value;
    return munmap(memory, round_to_pages(bytes)) == 0 ? lspan_status_ok : lspan_status_bad_value;
}

#if defined(MREMAP_FIXED)
/* Both reservations stay whole: a hole that remapping leaves behind is mapped again at once. */
static lspan_status move_pages(char *destination, char *source, size_t bytes)
{
    if (mremap(source, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, destination) != MAP_FAILED) {
        return map(source, bytes, MAP_FIXED) == MAP_FAILED ? lspan_status_out_of_memory : lspan_status_ok;
    }
    int failure = errno;
    if (map(destination, bytes, MAP_FIXED) == MAP_FAILED) return lspan_status_out_of_memory;
    size_t page = lspan_kv_page_bytes();
    /* before Linux 6.17 one call moves one mapping only, and pages that were moved before are mappings of their own */
    if (failure == EFAULT && bytes > page) {
        size_t half = bytes / page / 2 * page;
        LSPAN_CHECK(move_pages(destination, source, half));
        return move_pages(destination + half, source + half, bytes - half);
    }
    memcpy(destination, source, bytes);
    return lspan_status_ok;
}
#endif

lspan_status lspan_kv_move(void *destination, void *source, size_t bytes)
{
    size_t page = lspan_kv_page_bytes();
    if (!destination || !source) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(destination, page));
    LSPAN_CHECK(lspan_check_aligned(source, page));
    if (bytes % page != 0) return lspan_status_bad_alignment;
    if (bytes == 0) return lspan_status_ok;
#if defined(MREMAP_FIXED)
    return move_pages(destination, source, bytes);
#else
    memcpy(destination, source, bytes);
    return lspan_status_ok;
#endif
}
