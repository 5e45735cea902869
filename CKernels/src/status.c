/* status.c: names of the status codes. */
#include <longspan/status.h>

const char *lspan_status_name(lspan_status status)
{
    switch (status) {
    case lspan_status_ok: return "ok";
    case lspan_status_null_pointer: return "null_pointer";
    case lspan_status_bad_shape: return "bad_shape";
    case lspan_status_bad_stride: return "bad_stride";
    case lspan_status_bad_alignment: return "bad_alignment";
    case lspan_status_bad_dtype: return "bad_dtype";
    case lspan_status_overflow: return "overflow";
    case lspan_status_workspace_too_small: return "workspace_too_small";
    case lspan_status_bad_value: return "bad_value";
    case lspan_status_bad_index: return "bad_index";
    case lspan_status_unknown_isa: return "unknown_isa";
    case lspan_status_out_of_memory: return "out_of_memory";
    case lspan_status_executor_failed: return "executor_failed";
    case lspan_status_abi_mismatch: return "abi_mismatch";
    }
    return "unknown";
}

const char *lspan_status_description(lspan_status status)
{
    switch (status) {
    case lspan_status_ok: return "no error";
    case lspan_status_null_pointer: return "a required pointer is null";
    case lspan_status_bad_shape: return "a dimension is out of its range";
    case lspan_status_bad_stride: return "a stride is negative or makes elements overlap";
    case lspan_status_bad_alignment: return "a pointer is not aligned as required";
    case lspan_status_bad_dtype: return "an element, block, activation or layout code is unknown";
    case lspan_status_overflow: return "a size does not fit its type";
    case lspan_status_workspace_too_small: return "the workspace is smaller than its size query asks for";
    case lspan_status_bad_value: return "a scalar parameter is not finite or out of its range";
    case lspan_status_bad_index: return "an index points outside its tensor";
    case lspan_status_unknown_isa: return "the ISA variant does not exist or this CPU cannot run it";
    case lspan_status_out_of_memory: return "out of memory";
    case lspan_status_executor_failed: return "the executor failed to run the tasks";
    case lspan_status_abi_mismatch: return "the caller's headers and the library have different binary interfaces";
    }
    return "unknown status";
}
