/* status.h: what every function returns.
 *
 * The numbers are pinned: a status never changes its number, and new ones may be added. A function that
 * returns anything but `lspan_status_ok` has written nothing, except `lspan_status_executor_failed`,
 * after which outputs and workspace hold unspecified values, and lspan_kv_move, which says so.
 */
#ifndef LONGSPAN_STATUS_H
#define LONGSPAN_STATUS_H

#include "export.h"

LSPAN_BEGIN_DECLS

LSPAN_SINCE(0, 1)
typedef enum LSPAN_OPEN_ENUM lspan_status {
    lspan_status_ok = 0,
    lspan_status_null_pointer = 10,        /* a required pointer is NULL */
    lspan_status_bad_shape = 20,           /* a dimension is negative, zero where it may not be, or out of range */
    lspan_status_bad_stride = 30,          /* a stride makes rows overlap or is negative */
    lspan_status_bad_alignment = 40,       /* a pointer is not aligned as its parameter asks */
    lspan_status_bad_dtype = 50,           /* an unknown element, block, activation or layout code */
    lspan_status_overflow = 60,            /* an index or byte count does not fit its type */
    lspan_status_workspace_too_small = 70, /* less workspace than the ..._workspace_size query asks for */
    lspan_status_bad_value = 80,           /* a scalar parameter is NaN, infinite or out of range */
    lspan_status_bad_index = 90,           /* an indptr, token id or target points outside its tensor */
    lspan_status_unknown_isa = 100,        /* no such ISA variant, or this CPU cannot run it */
    lspan_status_out_of_memory = 110,      /* no memory, for a context, a reservation or the topology */
    lspan_status_executor_failed = 120,    /* the caller's executor returned an error */
    lspan_status_abi_mismatch = 130        /* the caller was compiled with headers of another ABI than the library's */
} lspan_status;

/* The status's identifier without its prefix ("bad_shape"), or "unknown" for a number not listed above.
 * The string is static. */
LSPAN_SINCE(0, 1)
LSPAN_API const char *lspan_status_name(lspan_status status);

/* One English sentence fragment that says what the status means. The string is static. */
LSPAN_SINCE(0, 1)
LSPAN_API const char *lspan_status_description(lspan_status status);

LSPAN_END_DECLS

#endif
