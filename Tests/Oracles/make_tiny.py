"""Writes Fixtures/tiny: tiny Llama GGUF files, their states in transformers, and faulty files."""

import argparse
import dataclasses
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM

from gguf_tokenizer import smollm_pre_tokenizer
from oracle_io import Blob, write_json
from tiny_llama import MERGES, SPECIALS, TOKENS, Shape, random_weights, write_gguf

TIED = Shape(72, 50, 2, heads=3, kv_heads=1, head_dim=24, theta=7000.0, eps=3e-4, tied=True)
UNTIED = Shape(
    60, 50, 2, heads=6, kv_heads=2, head_dim=16, theta=500.0, eps=2e-3, tied=False, alignment=64, add_bos=True
)
FAULTY = Shape(8, 12, 1, heads=1, kv_heads=1, head_dim=8, theta=1e4, eps=1e-5, tied=True)
TEXTS = [
    "the cat and the thing",
    "    if x == 12:\n\n\treturn 'caf\u00e9'",
    "other hearing; don't, they'll  3\u00bd \U0001f600",
    "<|im_start|>user\nhi<|im_end|>",
]
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def reference_model(shape: Shape, weights: dict[str, np.ndarray]) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=shape.eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.theta},
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        attn_implementation="eager",
    )
    state = {
        "model.embed_tokens.weight": weights["token_embd.weight"],
        "model.norm.weight": weights["output_norm.weight"],
        "lm_head.weight": weights.get("output.weight", weights["token_embd.weight"]),
    }
    for layer in range(shape.layers):
        for ours, theirs in NAMES.items():
            state[f"model.layers.{layer}.{theirs}.weight"] = weights[f"blk.{layer}.{ours}.weight"]
    model = LlamaForCausalLM(config).float().eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return model


@torch.no_grad()
def states(model: LlamaForCausalLM, ids: list[int]) -> dict[str, np.ndarray]:
    """Outputs of the embedding, of each layer, of the final norm and of the head: [tokens, width]."""
    found: dict[str, np.ndarray] = {}

    def keep(name: str):
        def hook(_module: object, _inputs: object, output: object) -> None:
            value = output[0] if isinstance(output, tuple) else output
            found[name] = value[0].numpy()

        return hook

    modules = {"embedding": model.model.embed_tokens}
    modules |= {f"layer.{i}": layer for i, layer in enumerate(model.model.layers)}
    modules |= {"norm": model.model.norm, "logits": model.lm_head}
    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    model(torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def tiny_tokenizer() -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    pairs = [tuple(merge.split(" ")) for merge in MERGES]
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = smollm_pre_tokenizer()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    return tokenizer


def write_faulty(out: Path) -> dict[str, str]:
    weights = random_weights(FAULTY, seed=3)
    write_gguf(out / "unknown-architecture.gguf", FAULTY, weights, architecture="frobnicate")
    write_gguf(out / "no-merges.gguf", FAULTY, weights, merges=False)

    partial = dict(weights)
    del partial["blk.0.ffn_down.weight"]
    write_gguf(out / "missing-tensor.gguf", FAULTY, partial)

    wide = dataclasses.replace(FAULTY, ffn=256)
    weights = random_weights(wide, seed=4)
    kind = gguf.GGMLQuantizationType.IQ2_XXS
    row = gguf.GGML_QUANT_SIZES[kind][1] * wide.ffn // gguf.GGML_QUANT_SIZES[kind][0]
    weights["blk.0.ffn_down.weight"] = np.zeros((wide.hidden, row), dtype=np.uint8)
    raw_types = {"blk.0.ffn_down.weight": kind}
    write_gguf(out / "unsupported-type.gguf", wide, weights, raw_types=raw_types)
    return {
        "unknown-architecture.gguf": "general.architecture is frobnicate",
        "no-merges.gguf": "tokenizer.ggml.merges is absent",
        "missing-tensor.gguf": "blk.0.ffn_down.weight is absent",
        "unsupported-type.gguf": "blk.0.ffn_down.weight is IQ2_XXS (16)",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the Fixtures folder")
    out: Path = parser.parse_args().out / "tiny"
    torch.set_num_threads(1)
    blob = Blob()
    models = []
    for seed, (name, shape) in enumerate({"tied": TIED, "untied": UNTIED}.items()):
        weights = random_weights(shape, seed)
        write_gguf(out / f"{name}.gguf", shape, weights)
        model = reference_model(shape, weights)
        rng = np.random.default_rng(10 + seed)
        sequences = [rng.integers(0, shape.vocab, 37).tolist(), [101]]
        cases = [
            {"ids": ids, "states": {k: blob.add(v) for k, v in states(model, ids).items()}}
            for ids in sequences
        ]
        models.append({"file": f"{name}.gguf", "shape": dataclasses.asdict(shape), "cases": cases})

    tied = (out / "tied.gguf").read_bytes()
    (out / "tied-v2.gguf").write_bytes(tied[:4] + (2).to_bytes(4, "little") + tied[8:])

    tokenizer = tiny_tokenizer()
    write_json(
        out / "tiny.json",
        {
            "array": blob.write(out / "tiny.f32"),
            "models": models,
            "same_as": {"tied-v2.gguf": "tied.gguf"},
            "tokenizer": [{"text": t, "ids": tokenizer.encode(t, add_special_tokens=False).ids} for t in TEXTS],
            "faulty": write_faulty(out),
        },
    )


if __name__ == "__main__":
    main()
