/* dequantize.c: GGUF tensor blocks to f32.
 *
 * Layouts are those of the GGUF format (ggml's block structs, little-endian, packed): 32-element blocks with an
 * f16 scale d and, in the _1 types, an f16 minimum m; and 256-element super-blocks for the K types. Low nibbles
 * hold the first half of a block's elements, high nibbles the second. */
#include "../simd/half.h"
#include "variants.h"

V_INLINE float read_f16(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return lspan_float_from_f16(half);
}

V_INLINE uint32_t read_u32(const uint8_t *p)
{
    uint32_t bits;
    memcpy(&bits, p, sizeof bits);
    return bits;
}

/* y = scale * q + offset for 16 quants made from 16 bytes: bits `shift` .. shift+width-1 of each byte, with bit i of
 * `high` as bit 4 (5-bit types). */
V_INLINE void decode16(const uint8_t *bytes, int shift, uint32_t high, float scale, float offset, float *out)
{
    v_f32 s = v_set1(scale), o = v_set1(offset);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += V_WIDTH) {
        v_i32 q = vi_and(vi_srl(vi_load_u8(bytes + i), shift), vi_set1(15));
        q = vi_or(q, vi_bits(high >> i, 16));
        v_store(out + i, v_fma(v_from_i32(q), s, o));
    }
}

/* The 4- and 5-bit types of 32 elements: `minimum` says that an f16 minimum follows the scale, `fifth` that 32 high
 * bits follow that. Without a minimum quants are centred on 8 or 16. */
V_INLINE void decode_small_block(const uint8_t *block, float *out, const int minimum, const int fifth)
{
    float scale = read_f16(block);
    float offset = minimum ? read_f16(block + 2) : scale * (fifth ? -16.0f : -8.0f);
    const uint8_t *rest = block + (minimum ? 4 : 2);
    uint32_t high = fifth ? read_u32(rest) : 0;
    const uint8_t *bytes = rest + (fifth ? 4 : 0);
    decode16(bytes, 0, high & 0xFFFFu, scale, offset, out);
    decode16(bytes, 4, high >> 16, scale, offset, out + 16);
}

V_INLINE void decode_q8_0(const uint8_t *block, float *out)
{
    v_f32 scale = v_set1(read_f16(block));
    const int8_t *quants = (const int8_t *)block + 2;
#pragma GCC unroll 4
    for (int i = 0; i < 32; i += V_WIDTH) v_store(out + i, v_mul(v_from_i32(vi_load_i8(quants + i)), scale));
}

/* f16 d, f16 dmin, 12 bytes of eight 6-bit scales and minima, 128 bytes of nibbles: sub-blocks 2k and 2k+1 share
 * 32 bytes. y = d * scale * q - dmin * minimum. */
V_INLINE void decode_q4_k(const uint8_t *block, float *out)
{
    float d = read_f16(block), dmin = read_f16(block + 2);
    const uint8_t *packed = block + 4, *bytes = block + 16;
    for (int sub = 0; sub < 8; sub++) {
        int scale, minimum;
        if (sub < 4) {
            scale = packed[sub] & 63;
            minimum = packed[sub + 4] & 63;
        } else {
            scale = (packed[sub + 4] & 15) | (packed[sub - 4] >> 6) << 4;
            minimum = packed[sub + 4] >> 4 | (packed[sub] >> 6) << 4;
        }
        const uint8_t *quants = bytes + sub / 2 * 32;
        for (int i = 0; i < 32; i += 16) {
            decode16(
                quants + i, sub % 2 * 4, 0, d * (float)scale, -(dmin * (float)minimum), out + sub * 32 + i);
        }
    }
}

/* 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 int8 scales of 16 elements, f16 d. Each half of 128
 * elements is four runs of 32 that share 32 bytes of bit pairs. y = d * scale * (q - 32). */
V_INLINE void decode_q6_k(const uint8_t *block, float *out)
{
    const int8_t *scales = (const int8_t *)block + 192;
    float d = read_f16(block + 208);
    for (int half = 0; half < 2; half++) {
        const uint8_t *low = block + half * 64, *high = block + 128 + half * 32;
        for (int run = 0; run < 4; run++) {
            for (int i = 0; i < 32; i += V_WIDTH) {
                v_f32 scale = v_set1(d * (float)scales[half * 8 + run * 2 + i / 16]);
                v_i32 nibble = vi_and(vi_srl(vi_load_u8(low + run % 2 * 32 + i), run / 2 * 4), vi_set1(15));
                v_i32 pair = vi_and(vi_srl(vi_load_u8(high + i), run * 2), vi_set1(3));
                v_f32 q = v_sub(v_from_i32(vi_or(nibble, vi_sll(pair, 4))), v_set1(32.0f));
                v_store(out + half * 128 + run * 32 + i, v_mul(q, scale));
            }
        }
    }
}

V_INLINE void decode_float(const void *data, int64_t count, float *out, const lspan_dtype dtype)
{
    int64_t i = 0;
    for (; i + V_WIDTH <= count; i += V_WIDTH) v_store(out + i, v_load_as(data, i, dtype));
    int rest = (int)(count - i);
    if (rest > 0) v_store_n(out + i, v_load_as_n(data, i, dtype, rest), rest);
}

void LSPAN_VARIANT(dequantize)(lspan_block_type type, const void *blocks, int64_t count, float *output)
{
    const uint8_t *block = blocks;
    int64_t elements, bytes;
    lspan_block_type_layout(type, &elements, &bytes);
#define FOR_EACH_BLOCK(decode) \
    for (int64_t i = 0; i < count; i += elements, block += bytes) decode
    switch (type) {
    case lspan_block_type_f16:
        decode_float(blocks, count, output, lspan_dtype_f16);
        break;
    case lspan_block_type_bf16:
        decode_float(blocks, count, output, lspan_dtype_bf16);
        break;
    case lspan_block_type_q4_0:
        FOR_EACH_BLOCK(decode_small_block(block, output + i, 0, 0));
        break;
    case lspan_block_type_q4_1:
        FOR_EACH_BLOCK(decode_small_block(block, output + i, 1, 0));
        break;
    case lspan_block_type_q5_0:
        FOR_EACH_BLOCK(decode_small_block(block, output + i, 0, 1));
        break;
    case lspan_block_type_q5_1:
        FOR_EACH_BLOCK(decode_small_block(block, output + i, 1, 1));
        break;
    case lspan_block_type_q8_0:
        FOR_EACH_BLOCK(decode_q8_0(block, output + i));
        break;
    case lspan_block_type_q4_k:
        FOR_EACH_BLOCK(decode_q4_k(block, output + i));
        break;
    case lspan_block_type_q6_k:
        FOR_EACH_BLOCK(decode_q6_k(block, output + i));
        break;
    default:
        decode_float(blocks, count, output, lspan_dtype_f32);
        break;
    }
#undef FOR_EACH_BLOCK
}
