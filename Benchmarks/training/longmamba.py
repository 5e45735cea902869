"""LongMamba (arXiv 2504.16053) and two relatives, as filters of the time steps dt.

Mamba-2 has one dt per head, Mamba-1 one per channel; "head" below means either.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from lm import LM, TimeStepFilter


@dataclass
class LayerTarget:
    """What calibration keeps of a layer, aggregated over windows."""

    retention: torch.Tensor  # (heads), total decay over the window: 1 = forgets nothing
    thresholds: dict[int, torch.Tensor]  # target length -> (heads)


def record(model: LM, window: torch.Tensor) -> list[torch.Tensor]:
    """dt of every layer, (length, heads), after softplus, for one unfiltered prefill."""
    seen: list[torch.Tensor] = []

    def keep(_: int, dt: torch.Tensor) -> torch.Tensor:
        seen.append(dt[0])
        return dt

    with torch.no_grad():
        model.hidden(window[None], keep)
    return seen


def resized(descending: torch.Tensor, length: int) -> torch.Tensor:
    """Linear resize of the rows of (count, heads) to `length` rows, half-pixel centres."""
    count = len(descending)
    source = ((torch.arange(length, dtype=torch.float64) + 0.5) * count / length - 0.5).clamp(min=0)
    low = source.floor().long().clamp(max=count - 1)
    high = (low + 1).clamp(max=count - 1)
    share = (source - low).float()[:, None]
    return descending[low] * (1 - share) + descending[high] * share


def threshold(dt: torch.Tensor, budget: torch.Tensor, length: int) -> torch.Tensor:
    """The dt at which the largest ones of a sequence of `length` tokens have used up `budget`.

    No filtering (0) when the length is not beyond the calibration window or the budget is never used up.
    """
    if length <= len(dt):
        return torch.zeros(dt.shape[1])
    grown = resized(dt.sort(0, descending=True).values, length)
    kept = (grown.cumsum(0) <= budget).sum(0) + 1  # tokens up to and with the first that exceeds the budget
    picked = grown.gather(0, kept.clamp(max=length - 1)[None])[0]
    return torch.where(kept >= length, torch.zeros_like(picked), picked)


def calibrate(
    model: LM, windows: torch.Tensor, lengths: list[int], clamp: float, aggregate: str
) -> list[LayerTarget]:
    """`clamp` is the share of tokens whose dt is cut down to the smallest of them; `aggregate` max or avg."""
    per_window = [record(model, window) for window in windows]
    combine = (lambda t: t.amax(0)) if aggregate == "max" else (lambda t: t.mean(0))
    targets = []
    for layer in range(len(per_window[0])):
        rates = model.decay_rates(layer)  # (heads, 1) or (channels, states)
        retention, thresholds = [], {length: [] for length in lengths}
        for dt in (seen[layer] for seen in per_window):
            cap = dt.topk(max(1, int(len(dt) * clamp)), 0).values[-1]
            dt = torch.minimum(dt, cap)
            retention.append((dt[..., None] * rates).exp().mean(-1).log().sum(0).exp())
            for length in lengths:
                thresholds[length].append(threshold(dt, dt.sum(0), length))
        targets.append(
            LayerTarget(
                combine(torch.stack(retention)),
                {length: combine(torch.stack(found)) for length, found in thresholds.items()},
            )
        )
    return targets


def skip_small(targets: list[LayerTarget], theta: float, length: int) -> TimeStepFilter:
    """LongMamba: in heads that retain more than `theta`, dt not above the threshold becomes 0."""

    def filtered(layer: int, dt: torch.Tensor) -> torch.Tensor:
        target = targets[layer]
        drop = (target.retention > theta) & (dt <= target.thresholds[length])
        return dt.masked_fill(drop, 0.0)

    return filtered


def scale(targets: list[LayerTarget], theta: float, factor: float) -> TimeStepFilter:
    """dt / factor in the same heads."""

    def filtered(layer: int, dt: torch.Tensor) -> torch.Tensor:
        return torch.where(targets[layer].retention > theta, dt / factor, dt)

    return filtered


def joint_top(count: int) -> TimeStepFilter:
    """After DeciMamba: every layer reads only the `count` tokens of largest dt (norm over its heads)."""

    def filtered(_: int, dt: torch.Tensor) -> torch.Tensor:
        if dt.shape[1] <= count:
            return dt
        norm = dt.norm(dim=-1)
        smallest = norm.topk(count, -1).values[:, -1:]
        return dt.masked_fill((norm < smallest)[..., None], 0.0)

    return filtered
