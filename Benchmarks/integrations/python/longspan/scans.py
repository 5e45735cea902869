"""State-space layers (ssm.h): the scans of Mamba and Mamba-2, their updates, and the causal convolution before them.

Arrays are token-major: [L, ...], sequences packed one after another by `indptr` (without it there is one), or
[B, L, ...], B sequences of L tokens that follow one another in memory. Rows may lie in a wider array (a chunk of a
projection), as long as the last dimension is contiguous. f32, f16 and bf16, each array its own; weights and states are
f32. Outputs have the type of the input unless `out` is given.

Any number of threads may call at once; each has its own workspace.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from .arrays import (
    Array,
    Integers,
    View,
    empty_of_type,
    expect_rank,
    expect_shape,
    floats,
    rows,
    view,
    writable,
)
from .context import Context, closed, default_context
from .errors import LongspanError
from .library import STATUS_OK, failure, library
from .structs import CausalConv, DtFilter, DtRule, Heads, Matrix, SelectiveScan, SsdScan
from .workspace import workspace

Indices: TypeAlias = "Array | Sequence[int]"


class _Batch:
    """How many sequences there are, and where each begins."""

    def __init__(self, shape: Sequence[int], inner: int, indptr: Indices | None) -> None:
        self.leading = tuple(shape[: len(shape) - inner])
        self.tokens = math.prod(self.leading)
        if indptr is None:
            sequences, each = (1, self.tokens) if len(self.leading) == 1 else self.leading
            pointers = Integers(np.arange(sequences + 1, dtype=np.int64) * each, "indptr")
        else:
            if len(self.leading) != 1:
                raise LongspanError("bad_shape", "indptr goes with packed arrays [L, ...], not with [B, L, ...]")
            pointers = Integers(indptr, "indptr")
            if len(pointers) < 1 or pointers.last() > self.tokens:
                raise LongspanError("bad_index", f"indptr has {len(pointers)} entries, for {self.tokens} rows")
        self.indptr = pointers
        self.sequences = len(pointers) - 1

    def matrix(self, array: Array | None, columns: int, name: str, output: bool = False) -> Matrix:
        """[tokens, columns]; nothing for None."""
        if array is None:
            return Matrix(None, 0, 0)
        found = writable(array, name) if output else view(array, name)
        expect_shape(found, (*self.leading, columns), name, "tokens, channels")
        return Matrix(found[0], found[1], rows(found, 1, name))

    def heads(self, array: Array | None, heads: int, width: int, name: str, output: bool = False) -> Heads:
        """[tokens, heads, width], or [tokens, width] where there is one head."""
        if array is None:
            return Heads(None, 0, 0, 0)
        found = writable(array, name) if output else view(array, name)
        flat = len(found[2]) == len(self.leading) + 1
        shape = (*self.leading, width) if flat and heads == 1 else (*self.leading, heads, width)
        expect_shape(found, shape, name, "tokens, heads or groups, width")
        inner = len(shape) - len(self.leading)
        return Heads(found[0], found[1], rows(found, inner, name), 0 if inner == 1 else found[3][-2])


class _States:
    """Initial and final states [B, ...], each sequence's contiguous, with one stride from one sequence to the next."""

    def __init__(self, batch: _Batch, inner: tuple[int, ...], initial: Array | None, final: Array | None) -> None:
        self.stride = math.prod(inner)
        self.initial = self._address(batch, inner, initial, "initial_state", output=False)
        self.final = self._address(batch, inner, final, "final_state", output=True)

    def _address(self, batch: _Batch, inner: tuple[int, ...], state: Array | None, name: str, output: bool) -> int | None:
        return floats(state, (batch.sequences, *inner), name, "sequences, state", output)


class _Rule:
    """A dt rule and what it points to."""

    def __init__(
        self, batch: _Batch, channels: int, bias: Array | None, softplus: bool, limits: tuple[float, float],
        scales: Array | None, thresholds: Array | None,
    ) -> None:  # fmt: skip
        self.filter = None
        if scales is not None or thresholds is not None:
            self.filter = DtFilter(*self._filter(batch, channels, scales, thresholds))
        pointer = None if self.filter is None else ctypes.pointer(self.filter)
        minimum, maximum = limits
        if not 0 <= minimum <= maximum or math.isinf(minimum):
            raise LongspanError("bad_value", f"dt_limits are {limits}; 0 <= minimum <= maximum is wanted")
        self.struct = DtRule(floats(bias, (channels,), "dt_bias", "channels"), softplus, minimum, maximum, pointer)

    @staticmethod
    def _filter(
        batch: _Batch, channels: int, scales: Array | None, thresholds: Array | None
    ) -> tuple[int | None, int | None, int]:
        ranks = {len(a.shape) for a in (scales, thresholds) if a is not None}
        if len(ranks) != 1 or not ranks <= {1, 2}:
            raise LongspanError("bad_shape", "scales and thresholds are both [channels], or both [sequences, channels]")
        shared = ranks == {1}
        shape = (channels,) if shared else (batch.sequences, channels)
        found = [
            floats(array, shape, name, "channels, or sequences and channels")
            for array, name in ((scales, "scales"), (thresholds, "thresholds"))
        ]
        return found[0], found[1], 0 if shared else channels


def _launch(name: str, struct: Any, context: Context | None, needs_workspace: bool, words: str) -> None:
    loaded: Any = library()
    used = default_context() if context is None else context
    if used.address is None:
        raise closed()
    pointer = ctypes.byref(struct)
    if needs_workspace:
        size = ctypes.c_size_t()
        status = getattr(loaded, f"{name.removesuffix('_run')}_workspace_size")(used.address, pointer, ctypes.byref(size))
        if status == STATUS_OK:
            status = getattr(loaded, name)(used.address, pointer, workspace.reserve(size.value), size.value)
    else:
        status = getattr(loaded, name)(used.address, pointer)
    if status != STATUS_OK:
        raise failure(status, name, words)


def _kept(kept: Array | None, shape: tuple[int, ...]) -> int | None:
    if kept is None:
        return None
    integers = Integers(kept, "kept")
    if integers.values.shape != shape:
        raise LongspanError("bad_shape", f"kept is {list(integers.values.shape)}, {list(shape)} is wanted")
    return integers.address


def _groups(b: View, leading: int, divided: int) -> tuple[int, int]:
    """Groups and state size of B, [tokens, N] or [tokens, G, N]."""
    expect_rank(b, (leading + 1, leading + 2), "b", "[tokens, groups, state] or [tokens, state]")
    groups = 1 if len(b[2]) == leading + 1 else b[2][-2]
    if groups < 1 or divided % groups:
        raise LongspanError("bad_shape", f"b has {groups} groups, which do not divide {divided}")
    return groups, b[2][-1]


def _selective(
    name: str, u: Array, dt: Array, a: Array, b: Array, c: Array, d: Array | None, gate: Array | None,
    dt_bias: Array | None, dt_softplus: bool, dt_limits: tuple[float, float], scales: Array | None,
    thresholds: Array | None, indptr: Indices | None, initial_state: Array | None, final_state: Array | None,
    out: Array | None, kept: Array | None, context: Context | None,
) -> Array:  # fmt: skip
    viewed = view(u, "u")
    expect_rank(viewed, (2, 3), "u", "[tokens, channels] or [sequences, tokens, channels]")
    batch, channels = _Batch(viewed[2], 1, indptr), viewed[2][-1]
    groups, size = _groups(view(b, "b"), len(batch.leading), channels)
    if out is None:
        out = empty_of_type(u, viewed[2])
    rule = _Rule(batch, channels, dt_bias, dt_softplus, dt_limits, scales, thresholds)
    states = _States(batch, (channels, size), initial_state, final_state)
    struct = SelectiveScan(
        batch.sequences, batch.indptr.address, channels, size, groups,
        batch.matrix(u, channels, "u"), batch.matrix(dt, channels, "dt"), rule.struct,
        floats(a, (channels, size), "a", "channels, state"),
        batch.heads(b, groups, size, "b"), batch.heads(c, groups, size, "c"),
        floats(d, (channels,), "d", "channels"), batch.matrix(gate, channels, "gate"),
        states.initial, states.final, states.stride, batch.matrix(out, channels, "out", output=True),
        _kept(kept, (batch.sequences, channels)),
    )  # fmt: skip
    words = f"{batch.tokens} tokens in {batch.sequences} sequences, {channels} channels, state size {size}, {groups} groups"
    _launch(name, struct, context, name.endswith("_run"), words)
    return out


def selective_scan(
    u: Array, dt: Array, a: Array, b: Array, c: Array, *, d: Array | None = None, gate: Array | None = None,
    dt_bias: Array | None = None, dt_softplus: bool = False, dt_limits: tuple[float, float] = (0.0, math.inf),
    scales: Array | None = None, thresholds: Array | None = None, indptr: Indices | None = None,
    initial_state: Array | None = None, final_state: Array | None = None, out: Array | None = None,
    kept: Array | None = None, context: Context | None = None,
) -> Array:  # fmt: skip
    """Mamba's scan; returns y, `out` or a new array.

    u, dt, gate and out [tokens, E]; a [E, N], none above 0; b and c [tokens, G, N], or [tokens, N] for one group; d and
    dt_bias [E]; states [B, E, N], `initial_state` zeros without one, `final_state` written if given, both may be the same.
    scales and thresholds, [E] or [B, E], filter dt as ssm.h says; kept [B, E] int64 receives how many tokens remained.
    """
    return _selective(
        "lspan_selective_scan_run", u, dt, a, b, c, d, gate, dt_bias, dt_softplus, dt_limits, scales, thresholds, indptr,
        initial_state, final_state, out, kept, context,
    )  # fmt: skip


def selective_update(
    state: Array, u: Array, dt: Array, a: Array, b: Array, c: Array, *, d: Array | None = None, gate: Array | None = None,
    dt_bias: Array | None = None, dt_softplus: bool = False, dt_limits: tuple[float, float] = (0.0, math.inf),
    scales: Array | None = None, thresholds: Array | None = None, indptr: Indices | None = None, out: Array | None = None,
    kept: Array | None = None, context: Context | None = None,
) -> Array:  # fmt: skip
    """The same for 0 to 8 tokens a sequence, with `state` [B, E, N] read and written in place."""
    return _selective(
        "lspan_selective_update", u, dt, a, b, c, d, gate, dt_bias, dt_softplus, dt_limits, scales, thresholds, indptr,
        state, state, out, kept, context,
    )  # fmt: skip


FORMS = {"automatic": 0, "recurrent": 1, "chunked": 2}


def _ssd(
    name: str, x: Array, dt: Array, a: Array, b: Array, c: Array, d: Array | None, gate: Array | None,
    dt_bias: Array | None, dt_softplus: bool, dt_limits: tuple[float, float], scales: Array | None,
    thresholds: Array | None, indptr: Indices | None, initial_state: Array | None, final_state: Array | None,
    out: Array | None, kept: Array | None, form: str, context: Context | None,
) -> Array:  # fmt: skip
    viewed = view(x, "x")
    expect_rank(viewed, (3, 4), "x", "[tokens, heads, head_dim] or [sequences, tokens, heads, head_dim]")
    batch, heads, head_dim = _Batch(viewed[2], 2, indptr), viewed[2][-2], viewed[2][-1]
    groups, size = _groups(view(b, "b"), len(batch.leading), heads)
    if form not in FORMS:
        raise LongspanError("bad_value", f"form is {form!r}; {', '.join(FORMS)} are possible")
    if out is None:
        out = empty_of_type(x, viewed[2])
    rule = _Rule(batch, heads, dt_bias, dt_softplus, dt_limits, scales, thresholds)
    states = _States(batch, (heads, head_dim, size), initial_state, final_state)
    struct = SsdScan(
        batch.sequences, batch.indptr.address, heads, head_dim, size, groups,
        batch.heads(x, heads, head_dim, "x"), batch.matrix(dt, heads, "dt"), rule.struct,
        floats(a, (heads,), "a", "heads"), batch.heads(b, groups, size, "b"), batch.heads(c, groups, size, "c"),
        floats(d, (heads,), "d", "heads"), batch.heads(gate, heads, head_dim, "gate"),
        states.initial, states.final, states.stride, batch.heads(out, heads, head_dim, "out", output=True),
        _kept(kept, (batch.sequences, heads)), FORMS[form],
    )  # fmt: skip
    words = f"{batch.tokens} tokens in {batch.sequences} sequences, {heads} heads of {head_dim}, state size {size}"
    _launch(name, struct, context, name.endswith("_run"), f"{words}, {groups} groups")
    return out


def ssd_scan(
    x: Array, dt: Array, a: Array, b: Array, c: Array, *, d: Array | None = None, gate: Array | None = None,
    dt_bias: Array | None = None, dt_softplus: bool = False, dt_limits: tuple[float, float] = (0.0, math.inf),
    scales: Array | None = None, thresholds: Array | None = None, indptr: Indices | None = None,
    initial_state: Array | None = None, final_state: Array | None = None, out: Array | None = None,
    kept: Array | None = None, form: str = "automatic", context: Context | None = None,
) -> Array:  # fmt: skip
    """Mamba-2's scan; returns y, `out` or a new array.

    x, gate and out [tokens, H, P]; dt [tokens, H]; a, d and dt_bias [H]; b and c [tokens, G, N], or [tokens, N] for one
    group; states [B, H, P, N]. `form` is "automatic", "recurrent" or "chunked"; the rest as `selective_scan`.
    """
    return _ssd(
        "lspan_ssd_scan_run", x, dt, a, b, c, d, gate, dt_bias, dt_softplus, dt_limits, scales, thresholds, indptr,
        initial_state, final_state, out, kept, form, context,
    )  # fmt: skip


def ssd_update(
    state: Array, x: Array, dt: Array, a: Array, b: Array, c: Array, *, d: Array | None = None, gate: Array | None = None,
    dt_bias: Array | None = None, dt_softplus: bool = False, dt_limits: tuple[float, float] = (0.0, math.inf),
    scales: Array | None = None, thresholds: Array | None = None, indptr: Indices | None = None, out: Array | None = None,
    kept: Array | None = None, context: Context | None = None,
) -> Array:  # fmt: skip
    """The same for 0 to 8 tokens a sequence, with `state` [B, H, P, N] read and written in place."""
    return _ssd(
        "lspan_ssd_update", x, dt, a, b, c, d, gate, dt_bias, dt_softplus, dt_limits, scales, thresholds, indptr, state,
        state, out, kept, "automatic", context,
    )  # fmt: skip


def causal_conv(
    x: Array, weight: Array, *, bias: Array | None = None, silu: bool = False, indptr: Indices | None = None,
    initial_state: Array | None = None, final_state: Array | None = None, out: Array | None = None,
    context: Context | None = None,
) -> Array:  # fmt: skip
    """Depthwise causal convolution with 2 to 4 taps; returns `out` or a new array.

    x and out [tokens, E]; weight [E, W], its last tap the token's own; bias [E]; states [B, W - 1, E], the rows before
    the first token (zeros without one) and the last rows, both may be the same memory.
    """
    viewed = view(x, "x")
    expect_rank(viewed, (2, 3), "x", "[tokens, channels] or [sequences, tokens, channels]")
    batch, channels = _Batch(viewed[2], 1, indptr), viewed[2][-1]
    taps = view(weight, "weight")
    expect_rank(taps, (2,), "weight", "[channels, taps]")
    width = taps[2][1]
    if not 2 <= width <= 4:
        raise LongspanError("bad_shape", f"weight has {width} taps, 2 to 4 are possible")
    if out is None:
        out = empty_of_type(x, viewed[2])
    states = _States(batch, (width - 1, channels), initial_state, final_state)
    struct = CausalConv(
        batch.sequences, batch.indptr.address, channels, width, batch.matrix(x, channels, "x"),
        floats(weight, (channels, width), "weight", "channels, taps"), floats(bias, (channels,), "bias", "channels"), silu,
        states.initial, states.final, states.stride, batch.matrix(out, channels, "out", output=True),
    )  # fmt: skip
    words = f"{batch.tokens} tokens in {batch.sequences} sequences, {channels} channels, {width} taps"
    _launch("lspan_causal_conv_run", struct, context, False, words)
    return out
