"""State-space layers on arrays and tensors against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import reference
from longspan import LongspanError, causal_conv, selective_scan, selective_update, ssd_scan, ssd_update
from reference import KINDS, operand, steps, values

# Outputs have the type of the input, and the chunked form rounds bf16 operands on some CPUs (ssm.h).
TOLERANCE = {"f32": 2e-5, "f16": 4e-3, "bf16": 6e-2}


def close(found: Any, expected: Any, kind: str, state: bool = False) -> None:
    size = max(1.0, float(np.abs(expected).max(initial=0)))
    tolerance = TOLERANCE[kind.split()[1]] if not state or "bf16" in kind else 2e-5
    np.testing.assert_allclose(values(found) / size, expected / size, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plain", [True, False])
def test_selective(kind: str, plain: bool) -> None:
    """A scan of a ragged batch, or a batch of equal sequences; then updates from where it ended."""
    rng = np.random.default_rng(1)
    channels, size, groups = 12, 16, 1 if plain else 3
    indptr = [0, 30, 60] if plain else [0, 17, 17, 60]
    sequences, shape = len(indptr) - 1, (2, 30) if plain else (60,)
    u, u_ = operand(rng, (*shape, channels), kind)
    dt, dt_ = operand(rng, (*shape, channels), kind)
    # B and C are chunks of a projection, and without groups where there is one
    inner = (size,) if plain else (groups, size)
    projected, projected_ = operand(rng, (*shape, *inner[:-1], 2 * size), kind)
    b, c, b_, c_ = (m[..., part] for m in (projected, projected_) for part in (slice(0, size), slice(size, None)))
    gate, gate_ = operand(rng, (*shape, channels), kind)
    a, d, bias = -np.exp(rng.standard_normal((channels, size)).astype(np.float32)), *(
        rng.standard_normal((2, channels)).astype(np.float32)
    )
    initial = rng.standard_normal((sequences, channels, size)).astype(np.float32)
    scales = rng.uniform(0.5, 1.5, (sequences, channels)).astype(np.float32)
    thresholds = rng.uniform(0.2, 0.6, (sequences, channels)).astype(np.float32)
    options: dict[str, Any] = {"d": d, "dt_bias": bias, "dt_softplus": True}
    if not plain:
        options |= {"dt_limits": (0.1, 0.9), "scales": scales, "thresholds": thresholds, "indptr": indptr}
    state, kept = initial.copy(), np.zeros((sequences, channels), np.int64)
    out = selective_scan(
        u, dt, a, b, c, gate=gate, initial_state=state, final_state=state, kept=kept, **options
    )
    assert type(out) is type(u) and out.dtype == u.dtype

    flat = [m.reshape(60, *m.shape[len(shape) :]) for m in (u_, dt_, b_, c_, gate_)]
    flat[2:4] = [m.reshape(60, groups, size) for m in flat[2:4]]
    found, finals = values(out).reshape(60, channels), []
    for i in range(sequences):
        at = slice(indptr[i], indptr[i + 1])
        limits = {} if plain else {"limits": (0.1, 0.9), "scales": scales[i], "thresholds": thresholds[i]}
        dts = steps(flat[1][at], bias, True, **limits)
        y, final = reference.selective_scan(flat[0][at], dts, a, flat[2][at], flat[3][at], d, flat[4][at], initial[i])
        close(found[at], y, kind)
        close(state[i], final, kind, state=True)
        assert (kept[i] == (dts > 0).sum(0)).all()
        finals.append(final)

    # three more tokens of each sequence
    if plain:
        before = state.copy()
        now = [m[:, :3].copy() if isinstance(m, np.ndarray) else m[:, :3].contiguous() for m in (u, dt, b, c, gate)]
        out = selective_update(state, now[0], now[1], a, now[2], now[3], gate=now[4], **options)
        for i in range(sequences):
            at = slice(indptr[i], indptr[i] + 3)
            dts = steps(flat[1][at], bias, True)
            y, final = reference.selective_scan(flat[0][at], dts, a, flat[2][at], flat[3][at], d, flat[4][at], before[i])
            close(out[i], y, kind)
            close(state[i], final, kind, state=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["recurrent", "chunked", "automatic"])
def test_ssd(kind: str, form: str) -> None:
    rng = np.random.default_rng(2)
    heads, width, size, groups = 6, 8, 16, 2
    indptr, wide = [0, 40, 41, 90], heads * width + 2 * groups * size
    # x, B and C are views into the rows of one projection
    projected, projected_ = operand(rng, (90, wide), kind)
    ends = heads * width, heads * width + groups * size
    x, x_ = (m[:, : ends[0]].reshape(90, heads, width) for m in (projected, projected_))
    b, b_ = (m[:, ends[0] : ends[1]].reshape(90, groups, size) for m in (projected, projected_))
    c, c_ = (m[:, ends[1] :].reshape(90, groups, size) for m in (projected, projected_))
    dt, dt_ = operand(rng, (90, heads), kind)
    gate, gate_ = operand(rng, (90, heads, width), kind)
    a, d, bias = -np.exp(rng.standard_normal(heads)).astype(np.float32), *rng.standard_normal((2, heads)).astype("f4")
    scales, thresholds = rng.uniform(0.2, 1.2, (2, heads)).astype(np.float32)
    rule: dict[str, Any] = {"limits": (0.05, 1.5), "scales": scales, "thresholds": thresholds}
    initial = rng.standard_normal((3, heads, width, size)).astype(np.float32)
    final, kept = np.empty_like(initial), np.zeros((3, heads), np.int64)
    options: dict[str, Any] = {
        "d": d, "dt_bias": bias, "dt_softplus": True, "dt_limits": (0.05, 1.5), "scales": scales, "thresholds": thresholds
    }  # fmt: skip
    out = ssd_scan(
        x, dt, a, b, c, gate=gate, indptr=indptr, initial_state=initial, final_state=final, kept=kept, form=form,
        **options,
    )  # fmt: skip
    for i in range(3):
        at = slice(indptr[i], indptr[i + 1])
        dts = steps(dt_[at], bias, True, **rule)
        y, state = reference.ssd_scan(x_[at], dts, a, b_[at], c_[at], d, gate_[at], initial[i])
        close(out[at], y, kind)
        close(final[i], state, kind, state=True)
        assert (kept[i] == (dts > 0).sum(0)).all()

    before, few = final.copy(), [0, 2, 2, 7]
    out = ssd_update(final, x[:7], dt[:7], a, b[:7], c[:7], indptr=few, **options)
    for i in range(3):
        at = slice(few[i], few[i + 1])
        dts = steps(dt_[at], bias, True, **rule)
        y, state = reference.ssd_scan(x_[at], dts, a, b_[at], c_[at], d, None, before[i])
        close(out[at], y, kind)
        close(final[i], state, kind, state=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("taps", [2, 3, 4])
def test_causal_conv(kind: str, taps: int) -> None:
    """In two calls, the second of one token, as a prompt and a step of decoding are."""
    rng = np.random.default_rng(3)
    wide, wide_ = operand(rng, (20, 30), kind)
    x, x_ = wide[:, 3:27], wide_[:, 3:27]
    weight, bias = rng.standard_normal((24, taps)).astype(np.float32), rng.standard_normal(24).astype(np.float32)
    initial = rng.standard_normal((1, taps - 1, 24)).astype(np.float32)
    state = initial.copy()
    parts = [
        causal_conv(x[at], weight, bias=bias, silu=True, initial_state=state, final_state=state)
        for at in (slice(0, 19), slice(19, 20))
    ]
    expected, final = reference.causal_conv(x_, weight, bias, True, initial[0])
    close(np.concatenate([values(p) for p in parts]), expected, kind)
    np.testing.assert_allclose(state[0], final, atol=1e-6)
    batch = causal_conv(x.reshape(2, 10, 24), weight)
    for i in range(2):
        close(batch[i], reference.causal_conv(x_[10 * i : 10 * i + 10], weight, None, False, None)[0], kind)


X, DT, A = np.zeros((4, 6), np.float32), np.zeros((4, 6), np.float32), -np.ones((6, 3), np.float32)
B, S = np.zeros((4, 3), np.float32), np.zeros((1, 6, 3), np.float32)


@pytest.mark.parametrize(
    "function,arguments,options,words",
    [
        (selective_scan, (X[0], DT, A, B, B), {}, r"bad_shape: u is \[6\], \[tokens, channels\]"),
        (selective_scan, (X, DT[:3], A, B, B), {}, r"bad_shape: dt is \[3, 6\], \[4, 6\]"),
        (selective_scan, (X, DT, A.T, B, B), {}, r"bad_stride: the last dimension of a"),
        (selective_scan, (X, DT, A.astype(np.float16), B, B), {}, "bad_dtype: a is f16, f32 is wanted"),
        (selective_scan, (X, DT, -A, B, B), {}, "bad_value: lspan_selective_scan_run: .*4 tokens in 1 sequences"),
        (selective_scan, (X, DT, A, np.zeros((4, 4, 3), np.float32), B), {}, "bad_shape: b has 4 groups, which do not"),
        (selective_scan, (X, DT, A, B, B), {"dt_limits": (1.0, 0.5)}, "bad_value: dt_limits are"),
        (selective_scan, (X, DT, A, B, B), {"indptr": [0, 5]}, "bad_index: indptr has 2 entries, for 4 rows"),
        (selective_scan, (X, DT, A, B, B), {"scales": np.ones(5, np.float32)}, r"bad_shape: scales is \[5\], \[6\]"),
        (selective_scan, (X, DT, A, B, B), {"scales": -np.ones(6, np.float32)}, "bad_value: lspan_selective_scan_run"),
        (selective_scan, (X, DT, A, B, B), {"kept": np.zeros((1, 6), np.int32)}, "bad_dtype: kept is int32, int64"),
        (selective_scan, (X, DT, A, B, B), {"final_state": S[0]}, r"bad_shape: final_state is \[6, 3\]"),
        (selective_scan, (X, DT, A, B, B), {"indptr": None, "gate": X[:, ::2]}, "bad_stride: the last dimension of gate"),
        (selective_update, (S, *(np.zeros((9, 6), np.float32),) * 2, A, *(np.zeros((9, 3), np.float32),) * 2), {},
         "bad_shape: lspan_selective_update: .*9 tokens"),
        (ssd_scan, (X, DT, A, B, B), {}, r"bad_shape: x is \[4, 6\], \[tokens, heads, head_dim\]"),
        (ssd_scan, (np.zeros((4, 6, 8), np.float32), DT, A[:, 0].copy(), B, B), {"form": "fast"},
         "bad_value: form is 'fast'; automatic, recurrent, chunked are possible"),
        (causal_conv, (X, np.zeros((6, 5), np.float32)), {}, "bad_shape: weight has 5 taps, 2 to 4 are possible"),
        (causal_conv, (X, np.zeros((6, 4), np.float32)), {"bias": X[0, :5]}, r"bad_shape: bias is \[5\], \[6\]"),
        (causal_conv, (np.zeros((4, 10, 6), np.float32)[:, :5], np.zeros((6, 4), np.float32)), {},
         "bad_stride: the sequences of x do not follow one another"),
    ],
)  # fmt: skip
def test_refused(function: Any, arguments: tuple[Any, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(LongspanError, match=words) as caught:
        function(*arguments, **options)
    assert caught.value.name == words.split(":")[0]


def test_no_tokens() -> None:
    """They leave states as they were."""
    state = np.ones((2, 6, 3), np.float32)
    for u, b in ((np.zeros((2, 0, 6), "f4"), np.zeros((2, 0, 3), "f4")), (torch.zeros(2, 0, 6), torch.zeros(2, 0, 3))):
        out = selective_scan(u, u, A, b, b, initial_state=state, final_state=state)
        assert out.shape == (2, 0, 6) and (state == 1).all()
    assert selective_scan(X[:0], X[:0], A, B[:0], B[:0], indptr=[0]).shape == (0, 6)
