"""Builds, saves and loads models."""
from __future__ import annotations

from pathlib import Path

import torch

from lm import LM
from mamba import MambaConfig, MambaLM
from mamba2 import Mamba2Config, Mamba2LM


def build(kind: str, config: dict) -> LM:
    return MambaLM(MambaConfig(**config)) if kind == "mamba" else Mamba2LM(Mamba2Config(**config))


def save(model: LM, kind: str, length: int, facts: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "kind": kind, "config": model.config_dict(), "length": length, "facts": facts, "state": model.state_dict()
    }
    partial = folder / "model.partial"
    torch.save(checkpoint, partial)
    partial.rename(folder / "model.pt")


def load(folder: Path) -> tuple[LM, dict]:
    """The model and the checkpoint it came from (kind, config, length, facts)."""
    checkpoint = torch.load(folder / "model.pt", weights_only=True)
    model = build(checkpoint["kind"], checkpoint["config"])
    model.load_state_dict(checkpoint["state"])
    return model.eval(), checkpoint
