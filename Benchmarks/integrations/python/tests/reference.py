"""What the kernels are to compute, in float64, a token at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def bits_of_bf16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Rounded to nearest, ties to even."""
    words = values.astype(np.float32).view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)


def values_of_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def operand(rng: np.random.Generator, shape: tuple[int, ...], kind: str, scale: float = 1.0) -> tuple[Any, Floats]:
    """A random array of a kind of `KINDS`, and its values."""
    package, dtype = kind.split()
    drawn = (scale * rng.standard_normal(shape)).astype(np.float32)
    if package == "torch":
        import torch

        tensor = torch.from_numpy(drawn).to({"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype])
        return tensor, tensor.double().numpy()
    if package == "ml_dtypes":
        import ml_dtypes

        narrow = drawn.astype(ml_dtypes.bfloat16)
        return narrow, narrow.astype(np.float64)
    if dtype == "bf16":
        bits = bits_of_bf16(drawn)
        return bits, values_of_bf16(bits).astype(np.float64)
    array = drawn.astype(np.float32 if dtype == "f32" else np.float16)
    return array, array.astype(np.float64)


KINDS = [*(f"{package} {dtype}" for package in ("numpy", "torch") for dtype in ("f32", "f16", "bf16")), "ml_dtypes bf16"]


def values(array: Any) -> Floats:
    """What an array or tensor holds, bit patterns of bf16 included."""
    if not isinstance(array, np.ndarray):
        found: Floats = array.double().numpy()
        return found
    return (values_of_bf16(array) if array.dtype == np.uint16 else array).astype(np.float64)


def attention(
    query: NDArray[Any], key: NDArray[Any], value: NDArray[Any], *, scale: float | None = None, causal: bool = True,
    window: int = 0, sinks: int = 0, softcap: float = 0.0, listed: NDArray[np.bool_] | None = None,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Output and log-sum-exp of one sequence, [T, Hq, D] and [T, Hq]; `listed` [S] are the keys that may be seen."""
    tokens, heads, width = query.shape
    keys, group = key.shape[0], heads // key.shape[1]
    k = np.repeat(key.astype(np.float64), group, axis=1)
    v = np.repeat(value.astype(np.float64), group, axis=1)
    logits = np.einsum("thd,shd->ths", query.astype(np.float64), k) * (width**-0.5 if scale is None else scale)
    if softcap:
        logits = softcap * np.tanh(logits / softcap)
    position, slot = keys - tokens + np.arange(tokens)[:, None], np.arange(keys)[None, :]
    seen = slot <= position if causal else np.ones((tokens, keys), dtype=bool)
    if window:
        seen = seen & ((slot > position - window) | (slot < sinks))
    if listed is not None:
        seen = seen & listed
    logits = np.where(seen[:, None, :], logits, -np.inf)
    top = np.max(logits, axis=-1, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(top), top, 0)[..., None])
    total = weights.sum(-1)
    out = np.einsum("ths,shd->thd", weights, v) / np.where(total > 0, total, 1)[..., None]
    with np.errstate(divide="ignore"):
        return out, np.where(total > 0, top + np.log(total), -np.inf)


def steps(
    dt: NDArray[Any], bias: NDArray[Any] | None, softplus: bool, limits: tuple[float, float] = (0.0, math.inf),
    scales: NDArray[Any] | None = None, thresholds: NDArray[Any] | None = None,
) -> Floats:  # fmt: skip
    out = dt.astype(np.float64) + (0 if bias is None else bias)
    if softplus:
        out = np.logaddexp(0, out)
    out = np.clip(out, *limits)
    kept = out > thresholds if thresholds is not None else np.ones_like(out, dtype=bool)
    return np.where(kept, out * (1 if scales is None else scales), 0)


def silu(values: NDArray[Any]) -> Floats:
    wide = values.astype(np.float64)
    out: Floats = wide / (1 + np.exp(-wide))
    return out


def ssd_scan(
    x: NDArray[Any], dt: Floats, a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], d: NDArray[Any] | None,
    gate: NDArray[Any] | None, state: NDArray[Any] | None,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Mamba-2 of one sequence, [L, H, P], with the steps that it uses; y and the final state."""
    tokens, heads, width = x.shape
    group = heads // b.shape[1]
    wide = [np.repeat(m.astype(np.float64), group, axis=1) for m in (b, c)]
    s = np.zeros((heads, width, b.shape[2])) if state is None else state.astype(np.float64)
    y = np.zeros(x.shape)
    for t in range(tokens):
        u = x[t].astype(np.float64)
        s = s * np.exp(dt[t] * a)[:, None, None] + dt[t][:, None, None] * u[:, :, None] * wide[0][t][:, None, :]
        y[t] = np.einsum("hpn,hn->hp", s, wide[1][t]) + (0 if d is None else d[:, None] * u)
    return y if gate is None else y * silu(gate), s


def selective_scan(
    u: NDArray[Any], dt: Floats, a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], d: NDArray[Any] | None,
    gate: NDArray[Any] | None, state: NDArray[Any] | None,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Mamba of one sequence, [L, E], with the steps that it uses; y and the final state."""
    tokens, channels = u.shape
    group = channels // b.shape[1]
    wide = [np.repeat(m.astype(np.float64), group, axis=1) for m in (b, c)]
    s = np.zeros((channels, b.shape[2])) if state is None else state.astype(np.float64)
    y = np.zeros(u.shape)
    for t in range(tokens):
        now = u[t].astype(np.float64)
        s = s * np.exp(dt[t][:, None] * a) + (dt[t] * now)[:, None] * wide[0][t]
        y[t] = (s * wide[1][t]).sum(-1) + (0 if d is None else d * now)
    return y if gate is None else y * silu(gate), s


def causal_conv(
    x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None, apply_silu: bool, initial: NDArray[Any] | None
) -> tuple[Floats, Floats]:
    """One sequence, [L, E]; y and the last W - 1 rows."""
    taps = weight.shape[1]
    before = np.zeros((taps - 1, x.shape[1])) if initial is None else initial.astype(np.float64)
    rows = np.concatenate([before, x.astype(np.float64)])
    y: Floats = sum(rows[k : k + len(x)] * weight[:, k] for k in range(taps)) + (0 if bias is None else bias)
    return silu(y) if apply_silu else y, rows[len(rows) - taps + 1 :]
