"""Writes Fixtures/longmamba: calibration numbers of LongMamba in float64, from steps of known windows."""

import argparse
from pathlib import Path

import numpy as np
import torch

from oracle_io import Blob, write_json

LENGTHS = [1, 2, 39, 40, 41, 60, 97, 100, 250, 512, 1000, 1001, 4096, 20000]


def clamped(steps: np.ndarray, share: float) -> np.ndarray:
    """Steps [n, H] with each head's largest ones lowered to its k-th largest."""
    rank = max(1, int(steps.shape[0] * share))
    cap = np.sort(steps, axis=0)[::-1][rank - 1]
    return np.minimum(steps, cap)


def threshold(steps: np.ndarray, length: int) -> float:
    """Of one head's clamped steps [n], for a text of `length` tokens."""
    if length <= len(steps):
        return 0.0
    descending = torch.from_numpy(np.sort(steps)[::-1].copy())
    stretched = torch.nn.functional.interpolate(
        descending[None, None], size=length, mode="linear", align_corners=False
    )[0, 0]
    crossed = torch.nonzero(torch.cumsum(stretched, 0) > steps.sum())
    if len(crossed) == 0 or int(crossed[0]) + 1 >= length:
        return 0.0
    return float(stretched[int(crossed[0]) + 1])


def log_product(steps: np.ndarray, decays: np.ndarray) -> np.ndarray:
    """log prod_t mean_n exp(dt_t A_n) of clamped steps [n, H] and decays [H, N]."""
    left = np.exp(steps[:, :, None].astype(np.longdouble) * decays[None].astype(np.longdouble)).mean(axis=2)
    return np.log(left).sum(axis=0).astype(np.float64)


def make_case(
    rng: np.random.Generator, blob: Blob, name: str, *, n: int, heads: int, states: int, windows: int,
    share: float, aggregate: str,
) -> dict[str, object]:
    # few large steps among many small ones, some heads slow and some fast
    scale = 10.0 ** rng.uniform(-4, -0.5, heads)
    steps = (scale * rng.lognormal(0, 1.5, (windows, n, heads))).astype(np.float32)
    if name == "ties":
        steps = np.round(steps, 2).astype(np.float32)
    decays = -np.sort(rng.uniform(0.05, 16, (heads, states)), axis=1).astype(np.float32)
    each = [clamped(steps[w].astype(np.float64), share) for w in range(windows)]
    combine = (lambda values: np.mean(values, axis=0)) if aggregate == "avg" else (lambda values: np.max(values, axis=0))
    products = combine([np.exp(log_product(window, decays).astype(np.longdouble)) for window in each])
    thresholds = [
        combine([[threshold(window[:, head], length) for head in range(heads)] for window in each])
        for length in LENGTHS
    ]
    return {
        "name": name, "length": n, "channels": heads, "states": states, "windows": windows, "clamp": share,
        "aggregate": aggregate, "lengths": LENGTHS,
        "steps": blob.add(steps), "decays": blob.add(decays),
        "sums": combine([window.sum(axis=0) for window in each]).tolist(),
        "log_products": np.log(products).astype(np.float64).tolist(),
        "thresholds": np.asarray(thresholds).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixtures", type=Path)
    folder = parser.parse_args().fixtures / "longmamba"
    rng = np.random.default_rng(2504)
    blob = Blob()
    cases = [
        make_case(rng, blob, "mamba2", n=100, heads=5, states=1, windows=3, share=0.05, aggregate="avg"),
        make_case(rng, blob, "max", n=100, heads=4, states=1, windows=2, share=0.1, aggregate="max"),
        make_case(rng, blob, "mamba", n=40, heads=6, states=16, windows=2, share=0.2, aggregate="avg"),
        make_case(rng, blob, "no-clamp", n=97, heads=3, states=1, windows=1, share=0.0, aggregate="avg"),
        make_case(rng, blob, "ties", n=60, heads=4, states=1, windows=1, share=0.05, aggregate="max"),
        make_case(rng, blob, "one-token", n=1, heads=2, states=1, windows=1, share=0.5, aggregate="avg"),
    ]
    write_json(folder / "longmamba.json", {"file": blob.write(folder / "longmamba.f32"), "cases": cases})


if __name__ == "__main__":
    main()
