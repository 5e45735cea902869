"""Writes a checkpoint as a transformers folder (config.json, model.safetensors) and checks its logits.

    python export_hf.py --model DIR --output FOLDER
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
import transformers

from checkpoint import load
from lm import LM
from mamba import MambaLM
from scan import STATES


def config_of(model: LM) -> transformers.PretrainedConfig:
    config = model.config
    common = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "conv_kernel": config.taps,
        "expand": 2,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "use_conv_bias": True,
        "residual_in_fp32": True,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if isinstance(model, MambaLM):
        return transformers.MambaConfig(state_size=STATES, time_step_rank=config.rank, **common)
    return transformers.Mamba2Config(
        state_size=config.state, num_heads=config.heads, head_dim=config.head_dim, n_groups=1, chunk_size=64, **common
    )


def largest_difference(model: LM, folder: Path, length: int) -> float:
    """Between the logits of `model` and those of the folder as transformers loads it, on random tokens."""
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, model.config.vocabulary, (1, length), generator=generator)
    with torch.no_grad():
        return float((reloaded(tokens).logits - model(tokens)).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    model, checkpoint = load(options.model)
    twin = transformers.AutoModelForCausalLM.from_config(config_of(model))
    missing = twin.load_state_dict(model.state_dict(), strict=False)
    assert missing.missing_keys in ([], ["lm_head.weight"]) and not missing.unexpected_keys, missing
    twin.tie_weights()
    twin.save_pretrained(options.output)
    difference = largest_difference(model, options.output, checkpoint["length"])
    print(f"largest logit difference to transformers: {difference:.2e}")
    assert difference <= 1e-4


if __name__ == "__main__":
    main()
