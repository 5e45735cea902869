"""Writes a checkpoint as GGUF: architecture mamba or mamba2, matrices as f16, the rest as f32.

    python export_gguf.py --model DIR --name NAME --output FILE
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from checkpoint import load
from data import SPECIAL_TOKENS
from lm import LM
from mamba import MambaLM
from scan import STATES

RECALL_FORMAT = (
    "fact: <|fact|> K V <|end|>; question: <|query|> K <|is|>, answered by the single next token V; "
    "K is one of A...Z, V one of a...z"
)


class Writer(gguf.GGUFWriter):
    """With arrays of no strings, which a tokenizer without merges needs."""

    def add_no_strings(self, key: str) -> None:
        self.add_key_value(key, [], gguf.GGUFValueType.ARRAY)

    def _pack_val(self, val: Any, vtype: gguf.GGUFValueType, add_vtype: bool, *rest: Any, **named: Any) -> bytes:
        if vtype == gguf.GGUFValueType.ARRAY and len(val) == 0:
            head = self._pack("I", vtype) if add_vtype else b""
            return head + self._pack("I", gguf.GGUFValueType.STRING) + self._pack("Q", 0)
        return super()._pack_val(val, vtype, add_vtype, *rest, **named)


def byte_tokens() -> list[str]:
    """GPT-2's printable stand-ins: a byte is itself where printable, else the next code point from 256 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)]


def add_tokenizer(writer: Writer) -> None:
    types = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(byte_tokens() + SPECIAL_TOKENS)
    writer.add_token_types(types)
    writer.add_no_strings("tokenizer.ggml.merges")
    writer.add_add_bos_token(False)


def add_sizes(writer: Writer, model: LM, trained: int) -> None:
    config = model.config
    writer.add_context_length(trained)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(config.layers)
    writer.add_ssm_conv_kernel(config.taps)
    writer.add_ssm_inner_size(config.inner)
    writer.add_layer_norm_rms_eps(1e-5)
    if isinstance(model, MambaLM):
        writer.add_ssm_state_size(STATES)
        writer.add_ssm_time_step_rank(config.rank)
        writer.add_ssm_dt_b_c_rms(False)
    else:
        writer.add_ssm_state_size(config.state)
        writer.add_ssm_time_step_rank(config.heads)
        writer.add_ssm_group_count(1)


def converted(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    """A parameter's GGUF name and values, shaped as llama.cpp stores them."""
    outer = {
        "backbone.embeddings.weight": "token_embd.weight",
        "backbone.norm_f.weight": "output_norm.weight",
    }
    if name in outer:
        return outer[name], tensor
    _, _, layer, *rest = name.split(".")
    inner = ".".join(rest)
    names = {
        "norm.weight": "attn_norm.weight",
        "mixer.in_proj.weight": "ssm_in.weight",
        "mixer.conv1d.weight": "ssm_conv1d.weight",
        "mixer.conv1d.bias": "ssm_conv1d.bias",
        "mixer.x_proj.weight": "ssm_x.weight",
        "mixer.dt_proj.weight": "ssm_dt.weight",
        "mixer.dt_proj.bias": "ssm_dt.bias",
        "mixer.dt_bias": "ssm_dt.bias",
        "mixer.A_log": "ssm_a",
        "mixer.D": "ssm_d",
        "mixer.norm.weight": "ssm_norm.weight",
        "mixer.out_proj.weight": "ssm_out.weight",
    }
    if inner == "mixer.A_log":
        tensor = -tensor.exp()
    if inner == "mixer.conv1d.weight":
        tensor = tensor.squeeze(1)
    return f"blk.{layer}.{names[inner]}", tensor


def add_tensors(writer: Writer, model: LM) -> None:
    for parameter, tensor in model.state_dict().items():
        name, tensor = converted(parameter, tensor)
        if not isinstance(model, MambaLM):
            if name.endswith(("ssm_a", "ssm_d")):
                tensor = tensor[:, None]  # (heads, 1)
            elif name.endswith("ssm_norm.weight"):
                tensor = tensor[None]  # (groups, inner / groups)
        small = tensor.dim() == 1 or name.endswith(("ssm_a", "ssm_d", "ssm_conv1d.weight", "ssm_norm.weight"))
        writer.add_tensor(name, tensor.numpy().astype(np.float32 if small else np.float16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    model, checkpoint = load(options.model)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer(options.output, checkpoint["kind"])
    writer.add_name(options.name)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_string("longspan.recall.format", RECALL_FORMAT)
    writer.add_uint32("longspan.recall.facts", checkpoint["facts"])
    add_sizes(writer, model, checkpoint["length"])
    add_tokenizer(writer)
    add_tensors(writer, model)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
