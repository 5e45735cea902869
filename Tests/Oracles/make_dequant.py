"""Writes Fixtures/dequant: random blocks of each weight format and gguf's float32 reading of them."""

import argparse
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from oracle_io import write_array, write_json

BLOCKS = {
    Type.F32: 512, Type.F16: 512, Type.BF16: 512,
    Type.Q8_0: 24, Type.Q4_0: 24, Type.Q4_1: 24, Type.Q5_0: 24, Type.Q5_1: 24,
    Type.Q4_K: 5, Type.Q6_K: 5,
}  # fmt: skip
# Byte offsets of the float16 scales (and minima) in a block, from ggml-common.h.
SCALES = {
    Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2], Type.Q6_K: [208],
}  # fmt: skip
# Zero, negative zero, the least and the greatest subnormal, the least normal, the greatest finite.
CORNERS = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF], dtype=np.uint16)


def finite_half(rng: np.random.Generator, count: int) -> np.ndarray:
    """Bit patterns of finite float16 values of all exponents."""
    sign = rng.integers(0, 2, count) << 15
    return (sign | rng.integers(0, 0x7C00, count)).astype(np.uint16)


def raw_blocks(kind: Type, rng: np.random.Generator) -> np.ndarray:
    """Bytes of shape [blocks, bytes per block]."""
    blocks = BLOCKS[kind]
    if kind == Type.F32:
        bits = rng.integers(0, 0x7F800000, blocks) | (rng.integers(0, 2, blocks) << 31)
        bits[:4] = [0, 0x80000000, 1, 0x807FFFFF]
        return bits.astype("<u4").view(np.uint8).reshape(blocks, 4)
    if kind == Type.BF16:
        bits = rng.integers(0, 0x7F80, blocks) | (rng.integers(0, 2, blocks) << 15)
        bits[:4] = [0, 0x8000, 1, 0x807F]
        return bits.astype("<u2").view(np.uint8).reshape(blocks, 2)
    if kind == Type.F16:
        bits = finite_half(rng, blocks)
        bits[: len(CORNERS)] = CORNERS
        return bits.astype("<u2").view(np.uint8).reshape(blocks, 2)
    size = gguf.GGML_QUANT_SIZES[kind][1]
    raw = rng.integers(0, 256, (blocks, size)).astype(np.uint8)
    for place, offset in enumerate(SCALES[kind]):
        half = finite_half(rng, blocks)
        used = min(blocks - 1, len(CORNERS))
        half[:used] = np.roll(CORNERS, place)[:used]
        raw[:, offset : offset + 2] = half.astype("<u2").view(np.uint8).reshape(blocks, 2)
    return raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the Fixtures folder")
    out: Path = parser.parse_args().out / "dequant"
    cases = []
    for kind in BLOCKS:
        raw = raw_blocks(kind, np.random.default_rng(int(kind) + 1))
        expected = gguf.quants.dequantize(raw, kind).reshape(-1)
        if not np.isfinite(expected).all():
            raise ValueError(f"{kind.name}: a value is not finite")
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        cases.append(
            {
                "type": kind.name,
                "type_id": int(kind),
                "block_elements": elements,
                "block_bytes": size,
                "blocks": len(raw),
                "raw": write_array(out / f"{kind.name}.bin", raw, "u1"),
                "expected": write_array(out / f"{kind.name}.f32", expected, "f4"),
            }
        )
    write_json(out / "dequant.json", {"cases": cases})


if __name__ == "__main__":
    main()
