"""Perplexity and recall at 1 to 32 times the trained length: plain, LongMamba, and two relatives.

    python evaluate.py --model DIR --text held_out.txt --calibration emma.txt ... [--theta T --clamp C]
"""
from __future__ import annotations

import argparse
from math import exp
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import data
import longmamba
from checkpoint import load
from lm import LM, TimeStepFilter

MULTIPLES = [1, 2, 4, 8, 16, 32]


def recall(
    model: LM, prompts: list[data.Sample], dt_filter: TimeStepFilter | None
) -> float:
    """Percentage of answers that the model ranks first."""
    right = asked = 0
    for prompt in prompts:
        places = np.flatnonzero(prompt.kinds == data.ANSWER)
        tokens = torch.from_numpy(prompt.tokens)
        with torch.no_grad():
            hidden = model.hidden(tokens[None, :-1], dt_filter)[0]
            found = model.readout(hidden[places - 1]).argmax(-1)
        right += int((found == tokens[places]).sum())
        asked += len(places)
    return 100 * right / asked


def perplexity(
    model: LM, text: torch.Tensor, length: int, ends: list[int], scored: int, dt_filter: TimeStepFilter | None
) -> float:
    """Per byte, over the last `scored` bytes of the windows of `length` that stop at `ends`."""
    total = 0.0
    for end in ends:
        window = text[end - length : end]
        with torch.no_grad():
            hidden = model.hidden(window[None, :-1], dt_filter)[0]
            count = min(scored, len(hidden))
            total += F.cross_entropy(model.readout(hidden[-count:]), window[-count:]).item()
    return exp(total / len(ends))


def calibration_windows(text: np.ndarray, count: int, length: int, facts: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([data.draw(rng, text, length, facts).tokens for _ in range(count)]))


def evaluate(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    model, checkpoint = load(options.model)
    trained, facts = checkpoint["length"], checkpoint["facts"]
    held_out = data.load([options.text])
    windows = calibration_windows(data.load(options.calibration), options.windows, trained, facts, seed=7)
    lengths = [trained * m for m in MULTIPLES]
    targets = longmamba.calibrate(model, windows, lengths, options.clamp, options.aggregate)
    for i, target in enumerate(targets):
        chosen = target.retention > options.theta
        print(f"layer {i}: {int(chosen.sum())} of {len(chosen)} global; retention", end=" ")
        print(" ".join(f"{r:.2g}" for r in target.retention.sort(descending=True).values[:16]))
    ends = [int(e) for e in np.linspace(lengths[-1], len(held_out), options.prompts)]
    text = torch.from_numpy(held_out)
    print("multiple length | filter | recall % by depth", *options.depths, "| perplexity")
    for multiple, length in zip(MULTIPLES, lengths):
        filters: dict[str, TimeStepFilter | None] = {"none": None}
        if multiple > 1:
            filters["longmamba"] = longmamba.skip_small(targets, options.theta, length)
            if options.baselines:
                filters["scale"] = longmamba.scale(targets, options.theta, multiple)
                filters["joint-top"] = longmamba.joint_top(trained)
        for name, dt_filter in filters.items():
            found = []
            for depth in options.depths:
                rng = np.random.default_rng(13)
                prompts = [
                    data.recall_prompt(rng, held_out, length, facts, depth) for _ in range(options.prompts)
                ]
                found.append(recall(model, prompts, dt_filter))
            ppl = perplexity(model, text, length, ends, trained // 2, dt_filter)
            print(f"{multiple:3d} {length:6d} | {name:10s} |", *(f"{r:5.1f}" for r in found), f"| {ppl:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--text", type=Path, required=True, help="held-out text")
    parser.add_argument("--calibration", type=Path, nargs="+", required=True, help="text of the calibration windows")
    parser.add_argument("--theta", type=float, default=0.05)
    parser.add_argument("--clamp", type=float, default=0.05)
    parser.add_argument("--aggregate", choices=["max", "avg"], default="max")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--depths", type=float, nargs="+", default=[0.0, 0.25, 0.5])
    parser.add_argument("--baselines", action="store_true")
    evaluate(parser.parse_args())


if __name__ == "__main__":
    main()
