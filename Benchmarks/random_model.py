"""Writes a Llama GGUF with random weights, for timing models of any size and weight type.

    random_model.py --type q8_0 --output random.gguf

Its tokenizer is copied from another GGUF file, by default SmolLM2's of fetch-model.sh, so that texts have tokens.
Weights have mean 0 and variance 1/columns, norms are 1, so that activations stay near 1; what it generates is noise.
Matrices are drawn as blocks of their type, not quantized. The same arguments give the same bytes.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
SMOLLM2 = ROOT / ".build/models/SmolLM2-135M-Instruct.Q4_1.gguf"
SEED = 20251
Bytes = NDArray[np.uint8]

FILE_TYPES = {
    Type.F32: gguf.LlamaFileType.ALL_F32,
    Type.F16: gguf.LlamaFileType.MOSTLY_F16,
    Type.BF16: gguf.LlamaFileType.MOSTLY_BF16,
    Type.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0,
    Type.Q4_1: gguf.LlamaFileType.MOSTLY_Q4_1,
    Type.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    Type.Q4_K: gguf.LlamaFileType.MOSTLY_Q4_K_M,
    Type.Q6_K: gguf.LlamaFileType.MOSTLY_Q6_K,
}


@dataclass(frozen=True)
class Shape:
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    untied: bool

    def layer(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of the matrices of a layer."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "attn_q": (query, self.hidden),
            "attn_k": (key, self.hidden),
            "attn_v": (key, self.hidden),
            "attn_output": (self.hidden, query),
            "ffn_gate": (self.ffn, self.hidden),
            "ffn_up": (self.ffn, self.hidden),
            "ffn_down": (self.hidden, self.ffn),
        }

    def tensors(self) -> dict[str, tuple[int] | tuple[int, int]]:
        """Shapes by name, in the file's order."""
        norm = (self.hidden,)
        found: dict[str, tuple[int] | tuple[int, int]] = {"token_embd.weight": (self.vocabulary, self.hidden)}
        for index in range(self.layers):
            block: dict[str, tuple[int] | tuple[int, int]] = {"attn_norm": norm, **self.layer(), "ffn_norm": norm}
            found |= {f"blk.{index}.{name}.weight": shape for name, shape in block.items()}
        found["output_norm.weight"] = norm
        if self.untied:
            found["output.weight"] = (self.vocabulary, self.hidden)
        return found


def matrix_bytes(kind: Type, shape: tuple[int, int]) -> int:
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    return int(shape[0] * shape[1] // elements * size)


# A block of each type is filled so that its weights have mean 0 and, drawn over blocks, standard deviation `deviation`.
# A uniform draw from n consecutive integers has variance (n^2 - 1) / 12.


def half(values: NDArray[np.floating]) -> Bytes:
    """f16 values as bytes, a row each."""
    return values.astype(np.float16).view(np.uint8).reshape(len(values), -1)


def signs(rng: np.random.Generator, *shape: int) -> NDArray[np.int64]:
    return rng.integers(0, 2, shape) * 2 - 1


def random_bytes(rng: np.random.Generator, *shape: int) -> Bytes:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def q8_0(rng: np.random.Generator, blocks: int, deviation: float) -> Bytes:
    """d; 32 signed bytes, without -128."""
    scale = deviation / np.sqrt((255**2 - 1) / 12)
    quants = rng.integers(-127, 128, (blocks, 32), dtype=np.int8)
    return np.concatenate([half(np.full((blocks, 1), scale)), quants.view(np.uint8)], axis=1)


def q4_0(rng: np.random.Generator, blocks: int, deviation: float) -> Bytes:
    """d; 32 quants of 4 bits, less 8: their mean is -1/2, so d has a random sign."""
    scale = deviation / np.sqrt((16**2 - 1) / 12 + 1 / 4)
    return np.concatenate([half(scale * signs(rng, blocks, 1)), random_bytes(rng, blocks, 16)], axis=1)


def q4_1(rng: np.random.Generator, blocks: int, deviation: float) -> Bytes:
    """d, m; 32 quants of 4 bits: d q + m."""
    scale = deviation / np.sqrt((16**2 - 1) / 12)
    heads = half(np.tile([scale, -7.5 * scale], (blocks, 1)))
    return np.concatenate([heads, random_bytes(rng, blocks, 16)], axis=1)


def q4_k(rng: np.random.Generator, blocks: int, deviation: float) -> Bytes:
    """d, dmin; 8 scales and 8 minima of 6 bits in 12 bytes; 256 quants of 4 bits: d s q - dmin m, with m = s."""
    scales = rng.integers(32, 64, (blocks, 8), dtype=np.uint8)
    low, high = scales[:, :4], scales[:, 4:]
    # the upper two bits of the last four scales and minima are the upper bits of the first four
    first = low | (high >> 4 << 6)
    packed = np.concatenate([first, first, (high & 15) | (high << 4)], axis=1)
    mean_square = np.mean(np.arange(32, 64) ** 2.0)
    scale = deviation / np.sqrt((16**2 - 1) / 12 * mean_square)
    heads = half(np.tile([scale, 7.5 * scale], (blocks, 1)))
    return np.concatenate([heads, packed, random_bytes(rng, blocks, 128)], axis=1)


def q6_k(rng: np.random.Generator, blocks: int, deviation: float) -> Bytes:
    """256 quants of 6 bits in 192 bytes, less 32: their mean is -1/2; 16 signed scales of 8 bits; d."""
    scales = (rng.integers(32, 64, (blocks, 16)) * signs(rng, blocks, 16)).astype(np.int8)
    mean_square = np.mean(np.arange(32, 64) ** 2.0)
    scale = deviation / np.sqrt(((64**2 - 1) / 12 + 1 / 4) * mean_square)
    tail = half(np.full((blocks, 1), scale))
    return np.concatenate([random_bytes(rng, blocks, 192), scales.view(np.uint8), tail], axis=1)


BLOCKS: dict[Type, Callable[[np.random.Generator, int, float], Bytes]] = {
    Type.Q8_0: q8_0,
    Type.Q4_0: q4_0,
    Type.Q4_1: q4_1,
    Type.Q4_K: q4_k,
    Type.Q6_K: q6_k,
}


def random_matrix(rng: np.random.Generator, kind: Type, shape: tuple[int, int]) -> NDArray[np.generic]:
    """A matrix as the file stores it: values of f32 and f16, bytes of the others, a row each."""
    rows, columns = shape
    deviation = columns**-0.5
    if kind in BLOCKS:
        elements, _ = gguf.GGML_QUANT_SIZES[kind]
        return BLOCKS[kind](rng, rows * columns // elements, deviation).reshape(rows, -1)
    values = rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
    match kind:
        case Type.F32:
            return values
        case Type.F16:
            return values.astype(np.float16)
        case _:
            stored: Bytes = gguf.quants.quantize(values, kind)
            return stored


def copy_tokenizer(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=field.types[-1] if is_array else None)


def add_configuration(writer: gguf.GGUFWriter, shape: Shape, kind: Type) -> None:
    writer.add_type("model")
    writer.add_name(f"random {kind.name}")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(100_000)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_model(path: Path, reader: gguf.GGUFReader, shape: Shape, kind: Type, seed: int) -> None:
    """Writes the file a tensor at a time, and under its own name only once it is whole."""
    part = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(part, "llama")
    try:
        add_configuration(writer, shape, kind)
        copy_tokenizer(reader, writer)
        tensors = shape.tensors()
        for name, extents in tensors.items():
            if len(extents) == 1:
                writer.add_tensor_info(name, extents, np.dtype(np.float32), extents[0] * 4)
            else:
                size = matrix_bytes(kind, extents)
                if kind in (Type.F32, Type.F16):
                    writer.add_tensor_info(name, extents, np.dtype(f"f{size // np.prod(extents)}"), size)
                else:
                    stored = (extents[0], size // extents[0])
                    writer.add_tensor_info(name, stored, np.dtype(np.uint8), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        rng = np.random.default_rng(seed)
        for index, extents in enumerate(tensors.values()):
            ones = np.ones(extents, np.float32)
            writer.write_tensor_data(ones if len(extents) == 1 else random_matrix(rng, kind, extents))
            if sys.stderr.isatty():
                print(f"\r\033[K{index + 1} of {len(tensors)} tensors", end="", file=sys.stderr, flush=True)
        writer.close()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def fitting_layers(shape: Shape, kind: Type, gigabytes: float) -> int:
    """Layers with which the file has about that size, at least one."""
    tables = (2 if shape.untied else 1) * matrix_bytes(kind, (shape.vocabulary, shape.hidden))
    layer = sum(matrix_bytes(kind, extents) for extents in shape.layer().values())
    return max(1, round((gigabytes * 1e9 - tables) / layer))


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {kind.name.lower(): kind for kind in FILE_TYPES}
    parser.add_argument("--type", choices=kinds, default="q8_0", help="of all matrices and the token embeddings")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.gguf")
    parser.add_argument("--gigabytes", type=float, default=1.2, help="size, met by the number of layers (default 1.2)")
    parser.add_argument("--layers", type=int, help="number of layers, instead of a size")
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--ffn", type=int, default=8192)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--context", type=int, default=32768, help="context length it claims to be trained for")
    parser.add_argument("--untied", action="store_true", help="with a matrix of its own for the output")
    parser.add_argument("--tokenizer", type=Path, default=SMOLLM2, metavar="FILE.gguf", help="whose tokenizer it gets")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    options.type = kinds[options.type]
    sizes = (options.hidden, options.ffn, options.heads, options.kv_heads, options.head_dim, options.context)
    if min(sizes) < 1 or options.gigabytes <= 0 or (options.layers is not None and options.layers < 1):
        parser.error("sizes must be positive")
    if options.heads % options.kv_heads:
        parser.error(f"{options.heads} heads are not a multiple of {options.kv_heads} key/value heads")
    if options.head_dim % 8 or options.head_dim > 256:
        parser.error(f"head dimension {options.head_dim} is no multiple of 8 up to 256")
    elements, _ = gguf.GGML_QUANT_SIZES[options.type]
    for columns in (options.hidden, options.ffn, options.heads * options.head_dim):
        if columns % elements:
            parser.error(f"{columns} columns are not whole blocks of {elements}, as {options.type.name} needs")
    return options


def main() -> int:
    options = parsed_arguments()
    try:
        reader = gguf.GGUFReader(options.tokenizer)
    except (OSError, ValueError) as error:
        print(f"random_model.py: {options.tokenizer}: {error}; is it there? fetch-model.sh gets it", file=sys.stderr)
        return 1
    tokens = reader.fields.get("tokenizer.ggml.tokens")
    if tokens is None:
        print(f"random_model.py: {options.tokenizer} has no tokenizer", file=sys.stderr)
        return 1
    shape = Shape(
        options.hidden, options.ffn, options.layers or 1, options.heads, options.kv_heads, options.head_dim,
        len(tokens.data), options.context, options.untied,
    )  # fmt: skip
    if options.layers is None:
        layers = fitting_layers(shape, options.type, options.gigabytes)
        shape = Shape(**{**vars(shape), "layers": layers})
    try:
        write_model(options.output, reader, shape, options.type, options.seed)
    except OSError as error:
        print(f"random_model.py: {error}", file=sys.stderr)
        return 1
    size = options.output.stat().st_size
    print(f"{options.output}: {shape.layers} layers of {options.type.name}, {size / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
