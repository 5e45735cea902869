/* types.c: sizes of element and block types. */
#include <longspan/types.h>

size_t lspan_dtype_size(lspan_dtype dtype)
{
    switch (dtype) {
    case lspan_dtype_f32: return 4;
    case lspan_dtype_f16:
    case lspan_dtype_bf16: return 2;
    }
    return 0;
}

void lspan_block_type_layout(lspan_block_type type, int64_t *elements, int64_t *bytes)
{
    int64_t e = 0, b = 0;
    switch (type) {
    case lspan_block_type_f32: e = 1, b = 4; break;
    case lspan_block_type_f16:
    case lspan_block_type_bf16: e = 1, b = 2; break;
    case lspan_block_type_q4_0: e = 32, b = 18; break;
    case lspan_block_type_q4_1: e = 32, b = 20; break;
    case lspan_block_type_q5_0: e = 32, b = 22; break;
    case lspan_block_type_q5_1: e = 32, b = 24; break;
    case lspan_block_type_q8_0: e = 32, b = 34; break;
    case lspan_block_type_q4_k: e = 256, b = 144; break;
    case lspan_block_type_q6_k: e = 256, b = 210; break;
    }
    if (elements) *elements = e;
    if (bytes) *bytes = b;
}
