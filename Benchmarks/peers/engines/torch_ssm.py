"""PyTorch's forms of state-space layers, composed of its operators: it has none for a scan.

Variants; dt gets its softplus and D * u is added in all, and states end in memory that the caller keeps:
  selective-loop       a loop over tokens with states [N, E], into buffers that are kept
  selective-compiled   a loop over 16 tokens at a time, unrolled in a graph that torch.compile made
  ssd-chunks           a loop over chunks of tokens: products within a chunk and with the state, [N, H * P], before it,
                       into buffers that are kept
  selective-update-..., ssd-update-...   one token of each sequence:
    reference   the formula as the reference implementations of Mamba have it
    fused       the same with products in place on the state
    compiled    torch.compile of the formula
  conv                 conv1d with a group for each channel, then silu in place; [1, E, W - 1 + L], zeros in front
  conv-compiled        torch.compile of W shifted products and silu on [L, E]
Compiling is not timed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv1d, silu, softplus

from engine import Case, Floats, Row
from torch_sparse import DTYPES

UNROLLED, CHUNK = 16, 64


@dataclass
class Scan:
    """Inputs u [B, T, H, P], dt [B, T, H], a [H, N] or [H, 1], b and c [B, T, N], d [H], state [B, H, P, N]."""

    u: Tensor
    dt: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    state: Tensor


def operand(case: Case, name: str, *shape: int, dtype: str = "f32") -> Tensor:
    # a copy, so that it lies in memory of PyTorch's allocator
    return torch.from_numpy(case.operand(name, *shape)).to(DTYPES[dtype], copy=True)


def load(case: Case) -> Scan:
    if case.kv_heads != 1:
        raise ValueError("B and C of one group are expected")
    rows, heads, dim, n = (case.sequences, case.tokens), case.query_heads, case.head_dim, case.state
    shape = (case.sequences, heads, dim, n)
    return Scan(
        u=operand(case, "u", *rows, heads, dim, dtype=case.dtype),
        dt=operand(case, "dt", *rows, heads),
        a=operand(case, "a", heads, n if dim == 1 else 1),
        b=operand(case, "b", *rows, n, dtype=case.dtype),
        c=operand(case, "c", *rows, n, dtype=case.dtype),
        d=operand(case, "d", heads),
        state=operand(case, "state", *shape) if case.tokens == 1 else torch.zeros(shape),
    )


def selective_loop(case: Case) -> Callable[[], object]:
    x = load(case)
    u, dt, b, c = x.u[0, :, :, 0], x.dt[0], x.b[0], x.c[0]
    a = x.a.t().contiguous()
    state, decay = torch.empty_like(a), torch.empty_like(a)
    outputs = torch.empty_like(u)

    def call() -> Tensor:
        state.zero_()
        steps = softplus(dt)
        inputs = steps * u
        for t in range(case.tokens):
            torch.mul(a, steps[t], out=decay).exp_()
            state.mul_(decay).addr_(b[t], inputs[t])
            torch.mv(state.t(), c[t], out=outputs[t])
        return outputs.addcmul_(x.d, u)

    return call


def some_tokens(u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor, y: Tensor) -> None:
    """Tokens u, dt [t, E] with b, c [t, N] and a, state [E, N]; y [t, E] and the state are written."""
    h = state
    for t in range(UNROLLED):
        step = softplus(dt[t])
        h = h * torch.exp(step[:, None] * a) + (step * u[t])[:, None] * b[t]
        y[t] = (h * c[t]).sum(1) + d * u[t]
    state.copy_(h)


def selective_compiled(case: Case) -> Callable[[], object]:
    if case.tokens % UNROLLED:
        raise ValueError(f"the tokens must be a multiple of {UNROLLED}")
    x = load(case)
    state, outputs = x.state[0, :, 0], torch.empty(case.tokens, case.query_heads)
    parts = (x.u[0, :, :, 0], x.dt[0], x.b[0], x.c[0], outputs)
    pieces = list(zip(*(part.split(UNROLLED) for part in parts), strict=True))
    compiled = torch.compile(some_tokens, dynamic=False)

    def call() -> Tensor:
        state.zero_()
        for u, dt, b, c, y in pieces:
            compiled(u, dt, x.a, b, c, x.d, state, y)
        return outputs

    call()
    return call


def ssd_chunks(case: Case) -> Callable[[], object]:
    if case.tokens % CHUNK:
        raise ValueError(f"the tokens must be a multiple of {CHUNK}")
    x = load(case)
    heads, dim, n = case.query_heads, case.head_dim, case.state
    u, dtype = x.u[0], x.u.dtype
    outputs = torch.empty_like(u)
    state = torch.empty(n, heads * dim)
    future = torch.zeros(CHUNK, CHUNK).masked_fill_(torch.ones(CHUNK, CHUNK, dtype=torch.bool).triu(1), -torch.inf)
    # of a chunk
    weights = torch.empty(heads, CHUNK, CHUNK)
    inputs, within = (torch.empty(heads, CHUNK, dim, dtype=dtype) for _ in range(2))
    across, weighted = (torch.empty(CHUNK, heads * dim, dtype=dtype) for _ in range(2))

    def call() -> Tensor:
        state.zero_()
        steps = softplus(x.dt[0]).view(-1, CHUNK, heads)
        # the logarithm of the decay from before a chunk to each of its tokens, [chunks, CHUNK, H]
        logs = (steps * x.a[:, 0]).cumsum(1)
        # what a token reads of the state before its chunk, and what the state after it has of a token
        read, left = logs.exp().to(dtype), ((logs[:, -1:] - logs).exp() * steps).to(dtype)
        kept = logs[:, -1].exp()
        by_head = (v.transpose(1, 2).contiguous() for v in (logs, steps))
        chunks = (v.split(CHUNK) for v in (u, x.b[0], x.c[0], outputs))
        for log, step, r, w, keep, v, b, c, y in zip(*by_head, read, left, kept, *chunks, strict=True):
            torch.sub(log[:, :, None], log[:, None, :], out=weights)
            weights.add_(future).exp_().mul_(torch.mm(c, b.t())).mul_(step[:, None])
            inputs.copy_(v.transpose(0, 1))
            torch.bmm(weights.to(dtype), inputs, out=within)
            torch.mm(c, state.to(dtype), out=across)
            torch.addcmul(within.transpose(0, 1), across.view(v.shape), r[..., None], out=y)
            torch.mul(v, w[..., None], out=weighted.view(v.shape))
            state.view(n, heads, dim).mul_(keep[:, None])
            if dtype == torch.float32:
                state.addmm_(b.t(), weighted)
            else:
                state.add_(torch.mm(b.t(), weighted))
        return outputs.addcmul_(x.d.to(dtype)[:, None], u)

    return call


def reference_update(u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor) -> Tensor:
    """One token: u [B, H, P], dt [B, H], b, c [B, N]; the outputs [B, H, P]."""
    step = softplus(dt)[..., None, None]
    state.copy_(state * torch.exp(step * a[:, None]) + step * b[:, None, None] * u[..., None])
    return torch.einsum("bhpn,bn->bhp", state, c) + d[:, None] * u


def fused_update(u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor) -> Tensor:
    step = softplus(dt)[..., None]
    state.mul_(torch.exp(step * a)[:, :, None])
    rows = state.view(len(u), -1, state.shape[-1])
    rows.baddbmm_((step * u).view(len(u), -1, 1), b[:, None])
    return torch.bmm(rows, c[:, :, None]).view(u.shape).addcmul_(d[:, None], u)


def update(case: Case) -> Callable[[], object]:
    x = load(case)
    inputs = (x.u[:, 0], x.dt[:, 0], x.a, x.b[:, 0], x.c[:, 0], x.d)
    match case.variant.rpartition("-")[2]:
        case "reference":
            return lambda: reference_update(*inputs, x.state)
        case "fused":
            return lambda: fused_update(*inputs, x.state)
    compiled = torch.compile(reference_update, dynamic=False)
    compiled(*inputs, x.state.clone())
    return lambda: compiled(*inputs, x.state)


def shifted_products(x: Tensor, weight: Tensor) -> Tensor:
    """x [W - 1 + L, E] with zeros in front, weight [W, E]."""
    width = weight.shape[0]
    tokens = x.shape[0] - width + 1
    return silu(sum(x[k : k + tokens] * weight[k] for k in range(width)))


def conv(case: Case) -> Callable[[], object]:
    tokens, channels, width = case.tokens, case.query_heads, case.state + 1
    padded = torch.zeros(case.state + tokens, channels)
    padded[case.state :] = operand(case, "u", tokens, channels)
    weight = operand(case, "w", channels, width)
    if case.variant == "conv-compiled":
        taps = weight.t().contiguous()
        compiled = torch.compile(shifted_products, dynamic=False)
        compiled(padded, taps)
        return lambda: compiled(padded, taps)
    inputs, taps = padded.t().contiguous()[None], weight[:, None]
    return lambda: silu(conv1d(inputs, taps, groups=channels), inplace=True)


def prepare(case: Case) -> Row:
    makers = {
        "selective-loop": selective_loop,
        "selective-compiled": selective_compiled,
        "ssd-chunks": ssd_chunks,
        "conv": conv,
        "conv-compiled": conv,
    }
    call = makers.get(case.variant, update)(case)

    def output(result: object) -> Floats:
        assert isinstance(result, Tensor)
        if case.variant == "conv":
            result = result[0].t()
        return np.ascontiguousarray(result.float().reshape(-1, case.query_heads, case.head_dim).numpy())

    return Row([call], output)
