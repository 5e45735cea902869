"""Operators of PyTorch over the kernels: torch.ops.longspan.attention, .selective_scan, .selective_update, .ssd_scan,
.ssd_update and .causal_conv. CPU, forward only: going backward through one is an error.

Tensors of a batch are read where they are; where one call cannot describe how its sequences lie in memory, attention
makes a call for each.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import scans
from .arrays import F32, Integers, View, expect_rank, view
from .attention import Batch, attend
from .errors import LongspanError

# Attention reads each key once for all queries of a call up to this many (LSPAN_ATTENTION_MAX_DECODE_TOKENS).
MAX_DECODE_TOKENS = 8
# The same for the scans' updates (LSPAN_SSM_MAX_UPDATE_TOKENS).
MAX_UPDATE_TOKENS = 8


# ---- Attention --------------------------------------------------------------------------------------------------------


def _tokens(tensor: View, sequence: int, element: int) -> View:
    """Sequence `sequence` of a [B, H, T, D] view, as [T, H, D]."""
    pointer, dtype, (_, heads, tokens, width), (batch, head, token, last) = tensor
    return pointer + sequence * batch * element, dtype, (tokens, heads, width), (token, head, last)


def _pitch(tensor: View) -> tuple[int, int]:
    """The token stride of a [B, H, T, D] view, and the rows from a sequence to the next, 0 if they are no whole number."""
    _, _, (_, _, tokens, _), (batch, _, token, _) = tensor
    if tokens == 1:
        return batch, 1
    if token < 1 or batch % token or batch // token < tokens:
        return token, 0
    return token, batch // token


def _batch(sequences: int, queries: int, keys: int, pitch: int, kv_heads: int, rows: list[list[int]] | None) -> Batch:
    """Index pointers of sequences `queries` and `pitch` rows apart.

    Rows that are no part of a sequence (padding, and what lies between sequences) are sequences of their own that have
    no keys, which makes their outputs zero.
    """
    query, kv, lengths = [0], [0], []
    for b in range(sequences):
        key_begin, key_end, query_begin, query_end = rows[b] if rows else (0, keys, 0, queries)
        query += [b * queries + query_begin, b * queries + query_end, (b + 1) * queries]
        kv += [b * pitch + key_begin, b * pitch + key_end, b * pitch + keys]
        lengths += [[0] * kv_heads, [key_end - key_begin] * kv_heads, [0] * kv_heads]
    return Batch(
        Integers(query, "query_indptr"),
        Integers(kv, "kv_indptr"),
        Integers(np.array(lengths, dtype=np.int64), "kv_lengths"),
    )


def _checked_rows(rows: Tensor, sequences: int, queries: int, keys: int) -> list[list[int]]:
    if rows.dtype != torch.int64 or tuple(rows.shape) != (sequences, 4):
        wanted = f"int64 [{sequences}, 4] (key begin, key end, query begin, query end)"
        raise LongspanError("bad_shape", f"rows is {rows.dtype} {list(rows.shape)}, {wanted} is wanted")
    checked: list[list[int]] = rows.tolist()
    for key_begin, key_end, query_begin, query_end in checked:
        if not (0 <= key_begin <= key_end <= keys and 0 <= query_begin <= query_end <= queries):
            raise LongspanError("bad_index", f"rows has {checked}, for {keys} keys and {queries} queries")
    return checked


def _check_attention(query: View, key: View, value: View) -> None:
    for name, viewed in (("query", query), ("key", key), ("value", value)):
        expect_rank(viewed, (4,), name, "[batch, heads, tokens, head_dim]")
    if key[2] != value[2]:
        raise LongspanError("bad_shape", f"value is {list(value[2])}, but key is {list(key[2])}")
    if query[2][0] != key[2][0]:
        raise LongspanError("bad_shape", f"query has {query[2][0]} sequences and key {key[2][0]}")


@torch.library.custom_op("longspan::attention", mutates_args=(), device_types="cpu")
def attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool, window: int = 0, sinks: int = 0,
    softcap: float = 0.0, rows: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Attention of query [B, Hq, T, D] over key and value [B, Hk, S, D]: output [B, T, Hq, D] and log-sum-exp [B, T, Hq],
    both f32. Queries sit at the end of the keys; `causal`, `window`, `sinks` and `softcap` are attention.h's.

    rows, int64 [B, 4], limits a sequence to its keys rows[b, 0] .. rows[b, 1]-1 and its queries rows[b, 2] ..
    rows[b, 3]-1, which sit at the end of those keys; the outputs of other queries are 0.
    """
    q, k, v = view(query, "query"), view(key, "key"), view(value, "value")
    _check_attention(q, k, v)
    sequences, heads, queries, width = q[2]
    _, kv_heads, keys, _ = k[2]
    limits = None if rows is None else _checked_rows(rows, sequences, queries, keys)
    out = torch.empty((sequences, queries, heads, width), dtype=torch.float32)
    log_sum_exp = torch.empty((sequences, queries, heads), dtype=torch.float32)
    name = "lspan_attention_decode" if queries <= MAX_DECODE_TOKENS else "lspan_attention_prefill"
    o = out.data_ptr(), F32, (queries, heads, width), (heads * width, width, 1)
    options = scale, causal, window, sinks, softcap, None

    if sequences > 1 and keys > 0:
        (query_stride, query_pitch), (key_stride, pitch), (value_stride, value_pitch) = _pitch(q), _pitch(k), _pitch(v)
        if query_pitch == queries and pitch == value_pitch > 0:
            # every row from the first token of the first sequence to the last of the last one
            extent = (sequences - 1) * pitch + keys
            attend(
                name,
                (q[0], q[1], (sequences * queries, q[2][1], q[2][3]), (query_stride, q[3][1], 1)),
                (k[0], k[1], (extent, kv_heads, k[2][3]), (key_stride, k[3][1], 1)),
                (v[0], v[1], (extent, kv_heads, v[2][3]), (value_stride, v[3][1], 1)),
                (o[0], F32, (sequences * queries, heads, width), o[3]),
                log_sum_exp.data_ptr(),
                _batch(sequences, queries, keys, pitch, kv_heads, limits),
                *options,
            )
            return out, log_sum_exp
    for b in range(sequences):
        attend(
            name,
            _tokens(q, b, query.element_size()),
            _tokens(k, b, key.element_size()),
            _tokens(v, b, value.element_size()),
            (o[0] + b * queries * heads * width * 4, *o[1:]),
            log_sum_exp.data_ptr() + b * queries * heads * 4,
            None if limits is None else _batch(1, queries, keys, keys, kv_heads, limits[b : b + 1]),
            *options,
        )
    return out, log_sum_exp


@attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool, window: int = 0, sinks: int = 0,
    softcap: float = 0.0, rows: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch, heads, tokens, width = query.shape
    sized = query.new_empty((batch, tokens, heads, width), dtype=torch.float32)
    return sized, query.new_empty((batch, tokens, heads), dtype=torch.float32)


# ---- Scans ------------------------------------------------------------------------------------------------------------


@torch.library.custom_op("longspan::selective_scan", mutates_args=(), device_types="cpu")
def selective_scan(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None, gate: Tensor | None, dt_bias: Tensor | None,
    initial_state: Tensor | None, dt_softplus: bool, dt_minimum: float, dt_maximum: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mamba's scan of u [B, L, E]: y as u, and the final state [B, E, N] f32. See `scans.selective_scan`."""
    if u.dim() != 3:
        raise LongspanError("bad_shape", f"u is {list(u.shape)}, [sequences, tokens, channels] is wanted")
    y = torch.empty(u.shape, dtype=u.dtype)
    state = torch.empty((u.shape[0], u.shape[2], b.shape[-1]), dtype=torch.float32)
    scans.selective_scan(
        u, dt, a, b, c, d=d, gate=gate, dt_bias=dt_bias, dt_softplus=dt_softplus, dt_limits=(dt_minimum, dt_maximum),
        initial_state=initial_state, final_state=state, out=y,
    )  # fmt: skip
    return y, state


@selective_scan.register_fake
def _(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None, gate: Tensor | None, dt_bias: Tensor | None,
    initial_state: Tensor | None, dt_softplus: bool, dt_minimum: float, dt_maximum: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    state = u.new_empty((u.shape[0], u.shape[2], b.shape[-1]), dtype=torch.float32)
    return u.new_empty(u.shape), state


@torch.library.custom_op("longspan::selective_update", mutates_args=("state",), device_types="cpu")
def selective_update(
    state: Tensor, u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None, gate: Tensor | None,
    dt_bias: Tensor | None, dt_softplus: bool, dt_minimum: float, dt_maximum: float,
) -> Tensor:  # fmt: skip
    """The same for up to 8 tokens a sequence, with `state` [B, E, N] f32 updated in place."""
    y = torch.empty(u.shape, dtype=u.dtype)
    scans.selective_update(
        state, u, dt, a, b, c, d=d, gate=gate, dt_bias=dt_bias, dt_softplus=dt_softplus,
        dt_limits=(dt_minimum, dt_maximum), out=y,
    )  # fmt: skip
    return y


@selective_update.register_fake
def _(
    state: Tensor, u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None, gate: Tensor | None,
    dt_bias: Tensor | None, dt_softplus: bool, dt_minimum: float, dt_maximum: float,
) -> Tensor:  # fmt: skip
    return u.new_empty(u.shape)


@torch.library.custom_op("longspan::ssd_scan", mutates_args=(), device_types="cpu")
def ssd_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None, gate: Tensor | None, dt_bias: Tensor | None,
    initial_state: Tensor | None, dt_softplus: bool, dt_minimum: float, dt_maximum: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mamba-2's scan of x [B, L, H, P]: y as x, and the final state [B, H, P, N] f32. See `scans.ssd_scan`."""
    if x.dim() != 4:
        raise LongspanError("bad_shape", f"x is {list(x.shape)}, [sequences, tokens, heads, head_dim] is wanted")
    y = torch.empty(x.shape, dtype=x.dtype)
    state = torch.empty((x.shape[0], *x.shape[2:], b.shape[-1]), dtype=torch.float32)
    scans.ssd_scan(
        x, dt, a, b, c, d=d, gate=gate, dt_bias=dt_bias, dt_softplus=dt_softplus, dt_limits=(dt_minimum, dt_maximum),
        initial_state=initial_state, final_state=state, out=y,
    )  # fmt: skip
    return y, state


@ssd_scan.register_fake
def _(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None, gate: Tensor | None, dt_bias: Tensor | None,
    initial_state: Tensor | None, dt_softplus: bool, dt_minimum: float, dt_maximum: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    state = x.new_empty((x.shape[0], *x.shape[2:], b.shape[-1]), dtype=torch.float32)
    return x.new_empty(x.shape), state


@torch.library.custom_op("longspan::ssd_update", mutates_args=("state",), device_types="cpu")
def ssd_update(
    state: Tensor, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None, gate: Tensor | None,
    dt_bias: Tensor | None, dt_softplus: bool, dt_minimum: float, dt_maximum: float,
) -> Tensor:  # fmt: skip
    """The same for up to 8 tokens a sequence, with `state` [B, H, P, N] f32 updated in place."""
    y = torch.empty(x.shape, dtype=x.dtype)
    scans.ssd_update(
        state, x, dt, a, b, c, d=d, gate=gate, dt_bias=dt_bias, dt_softplus=dt_softplus,
        dt_limits=(dt_minimum, dt_maximum), out=y,
    )  # fmt: skip
    return y


@ssd_update.register_fake
def _(
    state: Tensor, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None, gate: Tensor | None,
    dt_bias: Tensor | None, dt_softplus: bool, dt_minimum: float, dt_maximum: float,
) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape)


@torch.library.custom_op("longspan::causal_conv", mutates_args=(), device_types="cpu")
def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, silu: bool) -> Tensor:
    """Depthwise causal convolution of x [B, L, E] with weight [E, W]; initial_state [B, W - 1, E] f32."""
    y = torch.empty(x.shape, dtype=x.dtype)
    scans.causal_conv(x, weight, bias=bias, silu=silu, initial_state=initial_state, out=y)
    return y


@causal_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, silu: bool) -> Tensor:
    return x.new_empty(x.shape)


# ---- Gradients --------------------------------------------------------------------------------------------------------


def _refuse(name: str) -> None:
    operator = f"longspan::{name}"

    def backward(context: object, *gradients: object) -> None:
        raise LongspanError("no_gradient", f"{operator} is forward only; call the model within torch.no_grad()")

    torch.library.register_autograd(operator, backward)


for _name in ("attention", "selective_scan", "ssd_scan", "causal_conv"):
    _refuse(_name)
