"""Tiny random Llama models, and writing them as GGUF files in llama.cpp's layout."""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from gguf_tokenizer import byte_tokens

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = [
    "t h", "i n", "Ġ t", "Ġ a", "h e", "th e", "Ġt he", "e r", "r e", "Ġ Ġ", "ĠĠ ĠĠ", "in g",
    "a n", "n d", "Ġa nd", "o u", "Ġ th", "Ã ©", "c a", "f Ã©", "ca fÃ©", "l l", "' t", "Ċ Ċ",
]  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOKENS = SPECIALS + byte_tokens() + [merge.replace(" ", "") for merge in MERGES]


@dataclass(frozen=True)
class Shape:
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    theta: float
    eps: float
    tied: bool
    alignment: int = 32
    add_bos: bool = False
    context: int = 64
    vocab: int = len(TOKENS)


def random_weights(shape: Shape, seed: int) -> dict[str, np.ndarray]:
    """Float32 weights by GGUF tensor name, with q and k in rotate-half order."""
    rng = np.random.default_rng(seed)

    def linear(rows: int, columns: int) -> np.ndarray:
        return (1.5 / np.sqrt(columns) * rng.standard_normal((rows, columns))).astype(np.float32)

    def norm() -> np.ndarray:
        return (1 + 0.3 * rng.standard_normal(shape.hidden)).astype(np.float32)

    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = {"token_embd.weight": rng.standard_normal((shape.vocab, shape.hidden)).astype(np.float32)}
    for layer in range(shape.layers):
        block = {
            "attn_norm": norm(),
            "attn_q": linear(query, shape.hidden),
            "attn_k": linear(key, shape.hidden),
            "attn_v": linear(key, shape.hidden),
            "attn_output": linear(shape.hidden, query),
            "ffn_norm": norm(),
            "ffn_gate": linear(shape.ffn, shape.hidden),
            "ffn_up": linear(shape.ffn, shape.hidden),
            "ffn_down": linear(shape.hidden, shape.ffn),
        }
        weights |= {f"blk.{layer}.{name}.weight": value for name, value in block.items()}
    weights["output_norm.weight"] = norm()
    if not shape.tied:
        weights["output.weight"] = linear(shape.vocab, shape.hidden)
    return weights


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's row order of q and k: from rotate-half to interleaved pairs."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(
    path: Path,
    shape: Shape,
    weights: dict[str, np.ndarray],
    *,
    architecture: str = "llama",
    merges: bool = True,
    raw_types: dict[str, gguf.GGMLQuantizationType] | None = None,
) -> None:
    """Writes a GGUF v3 file. Tensors named in `raw_types` hold that type's bytes, one row per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    if shape.alignment != 32:
        writer.add_custom_alignment(shape.alignment)
    writer.add_type("model")
    writer.add_name("tiny random llama")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    if shape.hidden != shape.heads * shape.head_dim:
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.theta)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    kinds = [gguf.TokenType.CONTROL] * len(SPECIALS)
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * (len(TOKENS) - len(kinds)))
    if merges:
        writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(shape.add_bos)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, value in weights.items():
        if ".attn_q." in name:
            value = permute(value, shape.heads)
        elif ".attn_k." in name:
            value = permute(value, shape.kv_heads)
        writer.add_tensor(name, value, raw_dtype=(raw_types or {}).get(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
