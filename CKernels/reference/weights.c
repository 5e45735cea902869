/* weights.c: decoding of GGUF's weight blocks, embeddings and linear layers. */
#include "reference.h"
#include <math.h>

static double f16_at(const uint8_t *bytes)
{
    return lspan_reference_from_f16((uint16_t)(bytes[0] | bytes[1] << 8));
}

/* Quant i of 32: low nibbles hold the first 16, high nibbles the others. */
static int nibble(const uint8_t *bytes, int i)
{
    return i < 16 ? bytes[i] & 15 : bytes[i - 16] >> 4;
}

static int bit(const uint8_t *bytes, int i)
{
    return bytes[i / 8] >> (i % 8) & 1;
}

/* Q4_K packs eight scales and eight minima of 6 bits: those of sub-blocks 0-3 are the low 6 bits of bytes 0-3 and
 * 4-7; those of 4-7 take their low 4 bits from bytes 8-11 (scale low nibble, minimum high nibble) and their upper
 * 2 bits from the top of bytes 0-3 and 4-7. */
static int six_bits(const uint8_t *packed, int sub, int minimum)
{
    if (sub < 4) return packed[sub + 4 * minimum] & 63;
    int low = minimum ? packed[sub + 4] >> 4 : packed[sub + 4] & 15;
    int high = packed[sub - 4 + 4 * minimum] >> 6;
    return low | high << 4;
}

#include "precision_f64.h"
#include "weights_body.h"

#include "precision_f32.h"
#include "weights_body.h"
