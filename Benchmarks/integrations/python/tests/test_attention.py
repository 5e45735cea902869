"""Attention on arrays and tensors against float64, where they lie in memory, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import longspan
from longspan import LongspanError
from longspan.arrays import view
from reference import KINDS, attention, operand, values

OPTIONS: list[dict[str, Any]] = [
    {},
    {"causal": False},
    {"window": 9},
    {"window": 7, "sinks": 3},
    {"softcap": 5.0, "scale": 0.3},
]


def tolerance(kind: str, function: Any) -> float:
    """Weights of a prefill of bf16 are rounded to bf16 on some CPUs (attention.h)."""
    return 2e-2 if kind.endswith("bf16") and function is longspan.prefill else 1e-5


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("function", [longspan.decode, longspan.prefill])
@pytest.mark.parametrize("kind", KINDS)
def test_against_float64(kind: str, function: Callable[..., Any], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    query, q = operand(rng, (5, 6, 24), kind)
    # the same shapes but for the number of keys use a struct again
    for keys in (40, 41, 300):
        key, k = operand(rng, (keys, 2, 24), kind)
        value, v = operand(rng, (keys, 2, 24), kind)
        lse = np.empty((5, 6), np.float32)
        out = function(query, key, value, log_sum_exp=lse, **options)
        assert type(out) is type(query) and tuple(out.shape) == (5, 6, 24)
        expected, expected_lse = attention(q, k, v, **options)
        np.testing.assert_allclose(values(out), expected, atol=tolerance(kind, function))
        np.testing.assert_allclose(lse, expected_lse, atol=1e-5)


@pytest.mark.parametrize("kind", ["numpy f32", "torch bf16"])
def test_strides(kind: str) -> None:
    """A head-major cache with room to grow, and rows of a fused projection, are read where they lie."""
    rng = np.random.default_rng(2)
    cache, held = operand(rng, (2, 3, 64, 16), kind)  # K and V [Hk, capacity, D]
    fused, projected = operand(rng, (4, 6 * 16 + 10), kind)
    query, q = fused[:, 5:-5].reshape(4, 6, 16), projected[:, 5:-5].reshape(4, 6, 16)
    for keys in (10, 11, 64):
        if kind.startswith("numpy"):
            key, value = (cache[i].transpose(1, 0, 2)[:keys] for i in range(2))
        else:
            key, value = (cache[i].transpose(0, 1)[:keys] for i in range(2))
        wide = torch.full((4, 9, 20), 7.0)
        out = wide[:, 1:7, :16]
        assert longspan.decode(query, key, value, out=out) is out
        expected = attention(q, *(held[i].transpose(1, 0, 2)[:keys] for i in range(2)))[0]
        np.testing.assert_allclose(out, expected, atol=1e-5)
        assert (wide[:, 0] == 7).all() and (wide[:, 7:] == 7).all() and (wide[..., 16:] == 7).all()


def test_nothing_is_copied(tmp_path: Path) -> None:
    array = np.zeros((6, 4, 8), np.float32)
    tensor = torch.zeros((6, 4, 8), dtype=torch.bfloat16)
    strides = (32, 8, 1)
    assert view(array, "x") == (array.ctypes.data, 0, array.shape, strides)
    assert view(tensor, "x") == (tensor.data_ptr(), 2, tensor.shape, strides)
    assert view(array[1::2, 2:], "x") == (array.ctypes.data + 4 * (32 + 16), 0, (3, 2, 8), (64, 8, 1))
    assert view(tensor[1::2, 2:], "x") == (tensor.data_ptr() + 2 * (32 + 16), 2, (3, 2, 8), (64, 8, 1))
    array.flags.writeable = False
    assert view(array, "x")[0] == array.ctypes.data
    # a cache in a file is read from there
    path = tmp_path / "cache"
    np.random.default_rng(0).standard_normal((50, 1, 8)).astype(np.float32).tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=(50, 1, 8))
    query = np.ones((1, 1, 8), np.float32)
    np.testing.assert_allclose(longspan.decode(query, mapped, mapped), attention(query, mapped, mapped)[0], atol=1e-6)


@pytest.mark.parametrize("function", [longspan.decode, longspan.prefill])
@pytest.mark.parametrize("kind", ["numpy f32", "torch f32"])
def test_ragged_batch(function: Callable[..., Any], kind: str) -> None:
    rng = np.random.default_rng(3)
    query_indptr, kv_indptr = [0, 3, 3, 4, 9], [0, 20, 25, 25, 60]
    lengths = np.array([[20, 4], [5, 0], [0, 0], [35, 17]], dtype=np.int64)
    query, q = operand(rng, (9, 4, 32), kind)
    key, k = operand(rng, (60, 2, 32), kind)
    value, v = operand(rng, (60, 2, 32), kind)
    for given in (None, lengths):
        out = function(query, key, value, query_indptr=query_indptr, kv_indptr=np.array(kv_indptr), kv_lengths=given)
        for b in range(4):
            rows = slice(query_indptr[b], query_indptr[b + 1])
            for head in range(4):
                seen = kv_indptr[b + 1] - kv_indptr[b] if given is None else int(given[b, head // 2])
                keys = slice(kv_indptr[b], kv_indptr[b] + seen)
                group = slice(head // 2, head // 2 + 1)
                expected = attention(q[rows, head : head + 1], k[keys, group], v[keys, group])[0]
                np.testing.assert_allclose(values(out)[rows, head : head + 1], expected, atol=1e-5)


def test_empty() -> None:
    query, none = np.ones((2, 2, 8), np.float32), np.zeros((0, 1, 8), np.float32)
    lse = np.ones((2, 2), np.float32)
    assert not longspan.decode(query, none, none, log_sum_exp=lse).any() and (lse == -np.inf).all()
    assert longspan.prefill(query[:0], none, none).shape == (0, 2, 8)
    assert not longspan.decode(torch.ones(1, 2, 8), torch.zeros(0, 1, 8), torch.zeros(0, 1, 8)).any()


@pytest.mark.parametrize("kind", ["numpy f32", "torch f32"])
def test_merge(kind: str) -> None:
    """Attention over halves of the keys, merged, is attention over all of them."""
    rng = np.random.default_rng(4)
    query, q = operand(rng, (3, 4, 16), kind)
    key, k = operand(rng, (50, 2, 16), kind)
    value, v = operand(rng, (50, 2, 16), kind)
    outputs, sums = np.empty((2, 3, 4, 16), np.float32), np.empty((2, 3, 4), np.float32)
    for part, keys in enumerate((slice(0, 30), slice(30, 50))):
        longspan.prefill(query, key[keys], value[keys], causal=False, out=outputs[part], log_sum_exp=sums[part])
    lse = np.empty((3, 4), np.float32)
    out = longspan.merge(outputs, sums, log_sum_exp=lse)
    expected, expected_lse = attention(q, k, v, causal=False)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(lse, expected_lse, atol=1e-5)


@pytest.mark.parametrize("function", [longspan.sparse_decode, longspan.sparse_prefill])
@pytest.mark.parametrize("kind", ["numpy f32", "torch f32"])
@pytest.mark.parametrize("block,list_heads,query_tokens", [(1, 1, 0), (4, 2, 5), (3, 2, 2)])
def test_sparse(function: Callable[..., Any], kind: str, block: int, list_heads: int, query_tokens: int) -> None:
    if function is longspan.sparse_decode and query_tokens == 2:
        query_tokens = 0  # all tokens of a sequence share its lists in decoding
    rng = np.random.default_rng(5)
    query, q = operand(rng, (5, 4, 16), kind)
    key, k = operand(rng, (70, 2, 16), kind)
    value, v = operand(rng, (70, 2, 16), kind)
    step = query_tokens or 5
    tiles, blocks = -(-5 // step), -(-70 // block)
    chosen = [np.sort(rng.choice(blocks, blocks // 3, replace=False)) for _ in range(tiles * list_heads)]
    indptr = np.cumsum([0, *(len(c) for c in chosen)])
    indices = np.concatenate(chosen).astype(np.int32)
    out = function(
        query, key, value, indptr, indices, block=block, list_heads=list_heads, query_tokens=query_tokens
    )
    for t in range(5):
        for head in range(4):
            entries = chosen[(t // step) * list_heads + (head // 2 if list_heads == 2 else 0)]
            listed = np.isin(np.arange(70) // block, entries) & (np.arange(70) <= 65 + t)
            group = slice(head // 2, head // 2 + 1)
            expected = attention(
                q[t : t + 1, head : head + 1], k[:, group], v[:, group], causal=False, listed=listed[None]
            )[0]
            np.testing.assert_allclose(values(out)[t : t + 1, head : head + 1], expected, atol=1e-5)


F = np.zeros((2, 4, 16), np.float32)
K = np.zeros((9, 2, 16), np.float32)
READ_ONLY = np.zeros((2, 4, 16), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "arguments,options,words",
    [
        ((F.astype(np.float64), K, K), {}, "bad_dtype: query is float64; float32, float16 or bfloat16 arrays"),
        (([1.0], K, K), {}, "bad_dtype: query is list"),
        ((F, K, K.astype(np.float16)), {}, "bad_dtype: key and value differ"),
        ((F[0], K, K), {}, r"bad_shape: query is \[4, 16\], \[tokens, heads, head_dim\] is wanted"),
        ((F, K[..., :8], K[..., :8]), {}, "bad_shape: head_dim of query is 16, but that of key 8"),
        ((F, K, K[:5]), {}, r"bad_shape: value is \[5, 2, 16\], but key is \[9, 2, 16\]"),
        ((F[:, :3], K, K), {}, "bad_shape: 3 query heads are no multiple of 2"),
        ((F[..., :12], K[..., :12], K[..., :12]), {}, "bad_shape: head_dim is 12; multiples of 8 up to 256"),
        ((F.transpose(0, 2, 1), K, K), {}, "bad_stride: the last dimension of query is not contiguous"),
        ((F, torch.zeros(9, 2, 16, device="meta"), K), {}, "bad_value: key is on device meta, cpu is wanted"),
        ((F, K, K), {"scale": math.nan}, "bad_value: scale is nan"),
        ((F, K, K), {"softcap": -1.0}, r"bad_value: softcap is -1.0; 0 \(none\)"),
        ((F, K, K), {"window": -2}, "bad_value: window is -2"),
        ((F, K, K), {"out": np.zeros((2, 4, 8), np.float32)}, r"bad_shape: out is \[2, 4, 8\], \[2, 4, 16\]"),
        ((F, K, K), {"out": np.zeros((2, 4, 16), np.float16)}, "bad_dtype: out is no f32"),
        ((F, K, K), {"out": READ_ONLY}, "bad_value: out is read-only"),
        ((F, K, K), {"log_sum_exp": np.zeros((4, 2), np.float32)}, r"bad_shape: log_sum_exp is \[4, 2\]"),
        ((F, K, K), {"query_indptr": [0, 2]}, "null_pointer: query_indptr and kv_indptr come together"),
        ((F, K, K), {"query_indptr": [0, 2], "kv_indptr": [0, 10]}, "bad_index: kv_indptr ends at 10, but there are 9"),
        ((F, K, K), {"query_indptr": [0, 2, 1, 2], "kv_indptr": [0, 3, 6, 9]}, "bad_index: lspan_attention_prefill: "),
        ((np.zeros((9, 4, 16), np.float32), K, K), {"function": longspan.decode}, "bad_shape: lspan_attention_decode.* "),
        ((F, K, K[::-1]), {}, r"bad_stride: lspan_attention_prefill: .* value \(-32, 16\)"),
    ],
)  # fmt: skip
def test_refused(arguments: tuple[Any, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(LongspanError, match=words) as caught:
        options = dict(options)
        options.pop("function", longspan.prefill)(*arguments, **options)
    assert caught.value.name == words.split(":")[0]
    assert "\n" not in str(caught.value)


def test_a_refused_call_is_not_remembered() -> None:
    rng = np.random.default_rng(6)
    query, q = operand(rng, (1, 2, 8), "numpy f32")
    key, k = operand(rng, (9, 1, 8), "numpy f32")
    for _ in range(2):
        np.testing.assert_allclose(longspan.decode(query, key, key), attention(q, k, k)[0], atol=1e-6)
        with pytest.raises(LongspanError, match="bad_stride"):
            longspan.decode(query, key, key[::-1])
