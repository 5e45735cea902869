"""Trains one of the two models on the mixture of data.py.

    python train.py --model mamba2 --text emma.txt mansfield_park.txt ... --output DIR
"""
from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import data
from checkpoint import build, load, save
from lm import LM


@dataclass
class Losses:
    text: torch.Tensor  # mean cross entropy of text bytes
    answer: torch.Tensor  # the same of answers
    memory: torch.Tensor  # how far filler is from decaying every head by `forget` over the trained length
    right: float  # share of right answers


def losses(model: LM, tokens: torch.Tensor, kinds: torch.Tensor, floor: float) -> Losses:
    """`floor` is the least mean of dt |A| over filler that costs nothing, in every head (or channel)."""
    filler = kinds[:, :-1] == data.TEXT
    memory = torch.zeros(())

    def watch(layer: int, dt: torch.Tensor) -> torch.Tensor:
        nonlocal memory
        decay = dt[filler].mean(0) * model.decay_rates(layer).abs().amin(-1)
        memory = memory + F.relu(1 - decay / floor).square().sum()
        return dt

    hidden = model.hidden(tokens[:, :-1], watch if floor > 0 else None)
    targets, kinds = tokens[:, 1:], kinds[:, 1:]
    text = F.cross_entropy(model.readout(hidden[kinds == data.TEXT]), targets[kinds == data.TEXT])
    answers = model.readout(hidden[kinds == data.ANSWER])
    answer = F.cross_entropy(answers, targets[kinds == data.ANSWER])
    right = (answers.argmax(-1) == targets[kinds == data.ANSWER]).float().mean().item()
    return Losses(text, answer, memory, right)


def stage_of(step: int, options: argparse.Namespace) -> tuple[int, int, int]:
    """Batch, length and most facts: the curriculum's short sequences first, then the full length."""
    for length, facts, steps in options.curriculum:
        if step < steps:
            return options.batch * options.length // length, length, facts
        step -= steps
    return options.batch, options.length, options.facts


def learning_rate(step: int, options: argparse.Namespace) -> float:
    warm = min(1.0, (step + 1) / 100)
    return options.rate * warm * (0.03 + 0.97 * 0.5 * (1 + cos(pi * min(1.0, step / options.steps))))


def continue_from(folder: Path, model: LM) -> None:
    """Takes the weights of a checkpoint; its vocabulary may be longer."""
    state = load(folder)[0].state_dict()
    embeddings = "backbone.embeddings.weight"
    state[embeddings] = state[embeddings][: model.config.vocabulary]
    model.load_state_dict(state)


def optimizer_of(model: LM) -> torch.optim.AdamW:
    """AdamW; no weight decay on vectors (norms, biases, A, D, dt)."""
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.05},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    text = data.load(options.text)
    model = build(options.model, json.loads(options.config))
    if options.start:
        continue_from(options.start, model)
    optimizer = optimizer_of(model)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(text)} bytes of text", flush=True)
    started = time.monotonic()
    last = options.stop or options.steps
    for step in range(last):
        size, length, facts = stage_of(step, options)
        tokens, kinds = (torch.from_numpy(a) for a in data.batch(rng, text, size, length, facts))
        floor = options.forget / length if length == options.length else 0.0
        loss = losses(model, tokens, kinds, floor)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options)
        optimizer.zero_grad()
        (loss.text + loss.answer + loss.memory).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            passed = time.monotonic() - started
            print(
                f"step {step + 1}/{options.steps} length {length} text {loss.text:.3f} answer {loss.answer:.3f}"
                f" memory {loss.memory:.3f} right {loss.right:.2f} passed {passed:.0f} s"
                f" left {passed / (step + 1) * (last - step - 1):.0f} s",
                flush=True,
            )
        if step % 250 == 249 or step + 1 == last:
            save(model, options.model, options.length, options.facts, options.output)


def stages(listed: str) -> list[tuple[int, ...]]:
    return [tuple(int(n) for n in stage.split(":")) for stage in listed.split(",") if stage]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["mamba", "mamba2"], required=True)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder of a checkpoint to continue from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--stop", type=int, help="step to end at, before the learning rate has come down")
    parser.add_argument("--curriculum", type=stages, default="64:4:300", help="LENGTH:FACTS:STEPS,...")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument(
        "--forget", type=float, default=1.0, help="least -log decay of a head by filler over the trained length; 0: free"
    )
    parser.add_argument("--config", default="{}", help="JSON with fields of the model's configuration")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
