"""The operators of PyTorch: their registration, batches in memory of any layout, gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from longspan import LongspanError
from longspan import torch_ops as ops

torch.manual_seed(0)


def attention_operands(batch: int = 2, queries: int = 3, keys: int = 20, dtype: Any = torch.float32) -> list[Tensor]:
    shapes = (batch, 6, queries, 16), (batch, 2, keys, 16), (batch, 2, keys, 16)
    return [torch.randn(shape).to(dtype) for shape in shapes]


def selective_operands(tokens: int) -> tuple[Any, ...]:
    e, n = 12, 8
    u, dt, gate = (torch.randn(2, tokens, e) for _ in range(3))
    return u, dt, -torch.rand(e, n), *torch.randn(2, 2, tokens, n).unbind(), torch.randn(e), gate, torch.randn(e)


def ssd_operands(tokens: int) -> tuple[Any, ...]:
    h, p, g, n = 6, 8, 2, 16
    b, c = torch.randn(2, 2, tokens, g, n).unbind()
    return torch.randn(2, tokens, h, p), torch.randn(2, tokens, h), -torch.rand(h), b, c, torch.randn(h), None, None


STEP = True, 0.0, math.inf
ROWS = torch.tensor([[0, 20, 0, 3], [4, 18, 1, 3]])
SAMPLES: dict[str, tuple[Any, ...]] = {
    "attention": (ops.attention, (*attention_operands(), 0.25, True)),
    "attention, rows": (ops.attention, (*attention_operands(dtype=torch.bfloat16), 0.25, True, 5, 1, 3.0, ROWS)),
    "attention, prefill": (ops.attention, (*attention_operands(1, 12), 0.25, False)),
    "selective_scan": (ops.selective_scan, (*selective_operands(11), None, *STEP)),
    "selective_scan, continued": (ops.selective_scan, (*selective_operands(11), torch.randn(2, 12, 8), *STEP)),
    "selective_update": (ops.selective_update, (torch.randn(2, 12, 8), *selective_operands(1), *STEP)),
    "ssd_scan": (ops.ssd_scan, (*ssd_operands(11), torch.randn(2, 6, 8, 16), *STEP)),
    "ssd_update": (ops.ssd_update, (torch.randn(2, 6, 8, 16), *ssd_operands(1), *STEP)),
    "causal_conv": (ops.causal_conv, (torch.randn(2, 9, 12), torch.randn(12, 4), None, torch.randn(2, 3, 12), True)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(name: str) -> None:
    """Schema, fake implementation, gradients and tracing, by PyTorch's own checks."""
    operator, arguments = SAMPLES[name]
    torch.library.opcheck(operator, arguments)


def test_names() -> None:
    for name in ("attention", "selective_scan", "selective_update", "ssd_scan", "ssd_update", "causal_conv"):
        assert hasattr(torch.ops.longspan, name)


@pytest.mark.parametrize("queries", [1, 8, 9])
@pytest.mark.parametrize("layout", ["heads first", "tokens first", "grown", "separate"])
def test_layouts_of_batches(layout: str, queries: int) -> None:
    """Caches as models keep them are read where they lie, alike."""
    query, key, value = attention_operands(3, queries, 30)
    expected = [
        reference.attention(*(m[b].transpose(0, 1).numpy() for m in (query, key, value)), scale=0.25) for b in range(3)
    ]
    if layout == "tokens first":
        query, key, value = (m.transpose(1, 2).contiguous().transpose(1, 2) for m in (query, key, value))
    elif layout == "grown":  # with room for 50 tokens
        room = torch.full((2, 3, 2, 50, 16), math.nan)
        room[0, :, :, :30], room[1, :, :, :30] = key, value
        key, value = room[:, :, :, :30]
    elif layout == "separate":  # sequences a number of elements apart that is no number of rows
        memory = torch.zeros(3, 2 * 30 * 16 + 4)
        key = torch.as_strided(memory, key.shape, (memory.stride(0), 480, 16, 1)).copy_(key)
    out, lse = ops.attention(query, key, value, 0.25, True)
    for b in range(3):
        np.testing.assert_allclose(out[b], expected[b][0], atol=1e-5)
        np.testing.assert_allclose(lse[b], expected[b][1], atol=1e-5)


@pytest.mark.parametrize("queries", [3, 12])
@pytest.mark.parametrize("causal", [True, False])
def test_rows(queries: int, causal: bool) -> None:
    query, key, value = attention_operands(3, queries, 20)
    rows = torch.tensor([[0, 20, 0, queries], [5, 17, 1, queries], [20, 20, queries, queries]])
    whole, sums = ops.attention(query, key, value, 0.25, causal, 4, 1, 0.0, rows)
    for b, (key_begin, key_end, query_begin, query_end) in enumerate(rows.tolist()):
        expected, lse = reference.attention(
            query[b, :, query_begin:query_end].transpose(0, 1).numpy(),
            *(m[b, :, key_begin:key_end].transpose(0, 1).numpy() for m in (key, value)),
            scale=0.25, causal=causal, window=4, sinks=1,
        )  # fmt: skip
        np.testing.assert_allclose(whole[b, query_begin:query_end], expected, atol=1e-5)
        np.testing.assert_allclose(sums[b, query_begin:query_end], lse, atol=1e-5)
        assert not whole[b, :query_begin].any() and not whole[b, query_end:].any()


def test_empty() -> None:
    query, key = torch.ones(2, 4, 1, 8), torch.ones(2, 2, 5, 8)
    out, lse = ops.attention(query, key[:, :, :0], key[:, :, :0], 1.0, True)
    assert not out.any() and (lse == -math.inf).all()
    assert ops.attention(query[:, :, :0], key, key, 1.0, True)[0].shape == (2, 0, 4, 8)
    assert ops.attention(query[:0], key[:0], key[:0], 1.0, True)[0].shape == (0, 1, 4, 8)


def test_updates_continue_scans() -> None:
    for scan, update, operands in (
        (ops.selective_scan, ops.selective_update, selective_operands(12)),
        (ops.ssd_scan, ops.ssd_update, ssd_operands(12)),
    ):

        def part(begin: int, end: int, operands: tuple[Any, ...] = operands) -> tuple[Any, ...]:
            return tuple(m[:, begin:end].contiguous() if m is not None and m.dim() > 2 else m for m in operands)

        whole, final = scan(*operands, None, *STEP)
        first, state = scan(*part(0, 9), None, *STEP)
        second = update(state, *part(9, 12), *STEP)
        torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(state, final, atol=2e-5, rtol=1e-5)


def test_gradients_are_refused() -> None:
    query, key, value = (m.requires_grad_() for m in attention_operands())
    out, _ = ops.attention(query, key, value, 0.25, True)
    with pytest.raises(LongspanError, match="no_gradient: longspan::attention is forward only"):
        out.sum().backward()
    x = torch.randn(1, 4, 6, requires_grad=True)
    with pytest.raises(LongspanError, match="no_gradient: longspan::causal_conv"):
        ops.causal_conv(x, torch.randn(6, 4), None, None, True).sum().backward()
    state, *operands = SAMPLES["selective_update"][1]
    with pytest.raises(RuntimeError):
        ops.selective_update(state.clone(), operands[0].clone().requires_grad_(), *operands[1:]).sum().backward()


def test_compiled() -> None:
    """Traced with other operators into one graph, whose shapes come of the fake implementations."""
    query, key, value = attention_operands()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def layer(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out: Tensor = ops.attention(query * 2, key, value, 0.25, True)[0]
        return out.flatten(2) + 1

    torch.testing.assert_close(layer(query, key, value), ops.attention(query * 2, key, value, 0.25, True)[0].flatten(2) + 1)


@pytest.mark.parametrize(
    "changed,words",
    [
        ({0: torch.zeros(6, 3, 16)}, r"bad_shape: query is \[6, 3, 16\], \[batch, heads, tokens, head_dim\]"),
        ({0: torch.zeros(1, 6, 3, 16)}, "bad_shape: query has 1 sequences and key 2"),
        ({2: torch.zeros(2, 2, 19, 16)}, r"bad_shape: value is \[2, 2, 19, 16\], but key is"),
        ({1: torch.zeros(2, 2, 20, 16, dtype=torch.float64)}, "bad_dtype: key is torch.float64"),
        ({8: ROWS[:1]}, r"bad_shape: rows is torch.int64 \[1, 4\], int64 \[2, 4\]"),
        ({8: ROWS + 3}, "bad_index: rows has"),
        ({3: math.inf}, "bad_value: scale is inf"),
    ],
)
def test_refused(changed: dict[int, Any], words: str) -> None:
    arguments: list[Any] = [*attention_operands(), 0.25, True, 0, 0, 0.0, None]
    for index, value in changed.items():
        arguments[index] = value
    with pytest.raises(LongspanError, match=words):
        ops.attention(*arguments)
