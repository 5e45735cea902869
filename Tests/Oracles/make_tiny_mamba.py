"""Writes Fixtures/tiny-mamba: tiny Mamba and Mamba-2 models as GGUF files and as folders, with their logits in transformers."""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

from oracle_io import Blob, write_json
from tiny_llama import MERGES, SPECIALS, TOKENS


@dataclass(frozen=True)
class Shape:
    kind: str
    hidden: int
    layers: int
    state: int
    taps: int
    eps: float
    tied: bool
    conv_bias: bool = True
    rank: int = 0
    heads: int = 0
    groups: int = 1
    limits: tuple[float, float] = (0.0, float("inf"))
    bf16: bool = False

    @property
    def inner(self) -> int:
        return 2 * self.hidden


SHAPES = {
    "mamba": Shape("mamba", 36, 2, 16, 4, 3e-4, tied=True, rank=3),
    "mamba-untied": Shape("mamba", 28, 3, 24, 3, 1e-3, tied=False, conv_bias=False, rank=5, bf16=True),
    "mamba2": Shape("mamba2", 42, 2, 16, 4, 3e-4, tied=True, heads=6),
    "mamba2-untied": Shape("mamba2", 40, 2, 24, 4, 1e-3, tied=False, heads=4, groups=2, limits=(0.05, 0.8), bf16=True),
}


def make_model(shape: Shape, seed: int) -> torch.nn.Module:
    common = {
        "vocab_size": len(TOKENS),
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "state_size": shape.state,
        "conv_kernel": shape.taps,
        "layer_norm_epsilon": shape.eps,
        "use_conv_bias": shape.conv_bias,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    if shape.kind == "mamba":
        model = MambaForCausalLM(MambaConfig(time_step_rank=shape.rank, use_associative_scan=False, **common))
    else:
        config = Mamba2Config(
            num_heads=shape.heads,
            head_dim=shape.inner // shape.heads,
            n_groups=shape.groups,
            time_step_limit=shape.limits,
            chunk_size=16,
            **common,
        )
        model = Mamba2ForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("A_log"):
            data = noise  # A from about -0.1 to -10: slow and fast states
        elif name.endswith(("norm.weight", "norm_f.weight", ".D")):
            data = 1 + 0.3 * noise
        elif name.endswith(("dt_bias", "dt_proj.bias")):
            data = 1.5 * noise - 1
        elif name.endswith(".bias"):
            data = 0.3 * noise
        elif "conv1d" in name:
            data = 0.6 * noise
        elif "embeddings" in name:
            data = noise
        else:
            data = 1.5 / value.shape[-1] ** 0.5 * noise
        value.data = data.bfloat16().float() if shape.bf16 else data
    if shape.tied:
        model.tie_weights()
    return model.eval()


@torch.no_grad()
def logits(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    """[tokens, vocabulary], from the plain torch path in float64 but for what it casts to float32 itself."""
    return model.double()(torch.tensor([ids]), use_cache=False).logits[0].numpy()


def tokenizer() -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    made = Tokenizer(BPE(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in MERGES]))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    made.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    return made


def gguf_tensor(shape: Shape, name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """A parameter's name and shape as llama.cpp's converter has them."""
    outer = {
        "backbone.embeddings.weight": "token_embd.weight",
        "backbone.norm_f.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outer:
        return outer[name], value
    _, _, layer, inner = name.split(".", 3)
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
        value = -np.exp(value.astype(np.float64)).astype(np.float32)
    if inner == "mixer.conv1d.weight":
        value = value[:, 0]
    if shape.kind == "mamba2" and inner in ("mixer.A_log", "mixer.D"):
        value = value[:, None]
    if inner == "mixer.norm.weight":
        value = value.reshape(shape.groups, -1)
    return f"blk.{layer}.{names[inner]}", value


def write_gguf(path: Path, shape: Shape, model: torch.nn.Module) -> None:
    writer = gguf.GGUFWriter(path, shape.kind)
    writer.add_name("tiny random " + shape.kind)
    writer.add_context_length(96)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(shape.layers)
    writer.add_ssm_conv_kernel(shape.taps)
    writer.add_ssm_inner_size(shape.inner)
    writer.add_ssm_state_size(shape.state)
    writer.add_layer_norm_rms_eps(shape.eps)
    if shape.kind == "mamba":
        writer.add_ssm_time_step_rank(shape.rank)
        writer.add_ssm_dt_b_c_rms(False)
    else:
        writer.add_ssm_time_step_rank(shape.heads)
        writer.add_ssm_group_count(shape.groups)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    kinds = [gguf.TokenType.CONTROL] * len(SPECIALS)
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * (len(TOKENS) - len(kinds)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, parameter in model.named_parameters():
        tensor, value = gguf_tensor(shape, name, parameter.detach().float().numpy())
        # llama.cpp keeps all but the weights of products in float32
        if shape.bf16 and value.ndim == 2 and tensor.endswith(("in.weight", "out.weight", "embd.weight", "output.weight")):
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(tensor, gguf.quants.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_folder(path: Path, shape: Shape, model: torch.nn.Module) -> None:
    # save_pretrained says of the weights what the configuration's dtype is
    model.to(torch.bfloat16 if shape.bf16 else torch.float32).save_pretrained(path)
    (path / "generation_config.json").unlink(missing_ok=True)
    (path / "model.safetensors").chmod(0o644)
    tokenizer().save(str(path / "tokenizer.json"), pretty=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the Fixtures folder")
    out: Path = parser.parse_args().out / "tiny-mamba"
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    blob = Blob()
    models = []
    for seed, (name, shape) in enumerate(SHAPES.items()):
        model = make_model(shape, seed)
        write_gguf(out / f"{name}.gguf", shape, model)
        write_folder(out / name, shape, model)
        model = make_model(shape, seed)
        ids = np.random.default_rng(20 + seed).integers(0, len(TOKENS), 21).tolist()
        expected = blob.add(logits(model, ids))
        unlimited = expected
        if shape.limits != (0.0, float("inf")):
            # GGUF has no key for the limits
            free = make_model(dataclasses.replace(shape, limits=(0.0, float("inf"))), seed)
            unlimited = blob.add(logits(free, ids))
        models.append({
            "name": name,
            "architecture": shape.kind,
            "ids": ids,
            "folder_logits": expected,
            "gguf_logits": unlimited,
        })  # fmt: skip
    text = "the thing and the other\n12 cafés, don't"
    ids = tokenizer().encode(text, add_special_tokens=False).ids
    array = blob.write(out / "tiny-mamba.f32")
    write_json(out / "tiny-mamba.json", {"array": array, "models": models, "text": text, "text_ids": ids})


if __name__ == "__main__":
    main()
