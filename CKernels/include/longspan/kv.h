/* kv.h: memory for key/value caches and other large arrays.
 *
 * A reservation is address space whose pages the system hands out, zeroed, when they are first written, so a cache
 * can be laid out for a long context at once and cost only what has been filled. Reservations of 2 MiB and more
 * start on a 2-MiB boundary and ask for huge pages (Linux: MADV_HUGEPAGE), which is worth about 13% of the DRAM read
 * bandwidth. None of these is a kernel call: each asks the system.
 */
#ifndef LONGSPAN_KV_H
#define LONGSPAN_KV_H

#include "export.h"
#include "status.h"
#include <stddef.h>

LSPAN_BEGIN_DECLS

/* Bytes of a page: lspan_kv_move moves whole pages. */
LSPAN_API size_t lspan_kv_page_bytes(void);

/* Reserves `bytes` (rounded up to pages) of zeroed memory, aligned to a page or more. Release with the same count.
 * Errors: null_pointer, bad_shape (0 bytes), overflow, out_of_memory. */
LSPAN_API lspan_status lspan_kv_reserve(size_t bytes, void **memory);

/* Gives a reservation back. NULL is allowed. Errors: bad_alignment (not a page), bad_value (refused by the system). */
LSPAN_API lspan_status lspan_kv_release(void *memory, size_t bytes);

/* Moves `bytes` of content from one reservation into another, by remapping whole pages where the system can (Linux),
 * else by copying. Both pointers and the count must be multiples of the page size and the ranges must not overlap.
 * The source range afterwards holds unspecified content.
 * Errors: null_pointer, bad_alignment; out_of_memory (the system has no more mappings), after which the content of
 * both ranges is unspecified and they must only be released. */
LSPAN_API lspan_status lspan_kv_move(void *destination, void *source, size_t bytes);

LSPAN_END_DECLS

#endif
