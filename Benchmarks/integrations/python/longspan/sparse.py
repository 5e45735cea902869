"""Exact attention over listed keys (sparse.h): what is not listed is not read."""

from __future__ import annotations

import ctypes
from typing import Any

from .arrays import Array, Integers, empty_like, floats, view, writable
from .attention import Indices, Kernel, check_inputs, check_output, ragged
from .context import Context, closed, default_context
from .errors import LongspanError
from .library import STATUS_OK, failure, library
from .structs import SparseAttention
from .workspace import workspace


def _lists(query_indptr: Integers, query_tokens: int, list_heads: int) -> int:
    """Lists of a batch: a tile of query tokens and a head has its own."""
    rows = query_indptr.values
    if query_tokens == 0:
        return (len(rows) - 1) * list_heads
    tiles = sum(-(-int(rows[b + 1] - rows[b]) // query_tokens) for b in range(len(rows) - 1))
    return tiles * list_heads


def _attend(
    name: str, query: Array, key: Array, value: Array, indptr: Indices, indices: Indices, block: int, list_heads: int,
    query_tokens: int, out: Array | None, log_sum_exp: Array | None, query_indptr: Indices | None,
    kv_indptr: Indices | None, kv_lengths: Array | None, scale: float | None, causal: bool, window: int, sinks: int,
    softcap: float, context: Context | None,
) -> Array:  # fmt: skip
    q, k, v = view(query, "query"), view(key, "key"), view(value, "value")
    check_inputs(q, k, v, scale, softcap, window, sinks)
    if out is None:
        out = empty_like(query, q[2])
    o = writable(out, "out")
    check_output(o, q)
    if (query_indptr is None) != (kv_indptr is None):
        raise LongspanError("null_pointer", "query_indptr and kv_indptr come together")
    rows = [0, q[2][0]] if query_indptr is None else query_indptr
    batch = ragged(rows, [0, k[2][0]] if kv_indptr is None else kv_indptr, kv_lengths, q, k)
    if list_heads not in (1, k[2][1]):
        raise LongspanError("bad_shape", f"list_heads is {list_heads}; 1 or {k[2][1]} (key/value heads) are possible")
    if block < 1 or query_tokens < 0:
        raise LongspanError("bad_shape", f"block is {block} and query_tokens {query_tokens}")
    pointers, entries = Integers(indptr, "indptr"), Integers(indices, "indices", 32)
    lists = _lists(batch.query, query_tokens, list_heads)
    if len(pointers) != lists + 1:
        raise LongspanError("bad_shape", f"indptr has {len(pointers)} entries, {lists + 1} (lists + 1) are wanted")
    if pointers.last() > len(entries):
        raise LongspanError("bad_index", f"indptr ends at {pointers.last()}, but indices has {len(entries)} entries")

    common = Kernel(name.replace("sparse", "attention"))
    common.fill(q, k, v, o, scale, softcap, causal, window, sinks)
    lse = None if log_sum_exp is None else floats(log_sum_exp, q[2][:2], "log_sum_exp", "[tokens, heads]", output=True)
    common.point(q[0], k[0], v[0], o[0], lse)
    batch.index(common)
    struct = SparseAttention(common.struct, block, list_heads, query_tokens, pointers.address, entries.address)
    used = default_context() if context is None else context
    if used.address is None:
        raise closed()
    bytes_needed = ctypes.c_size_t()
    run: Any = getattr(library(), name)
    status = getattr(library(), f"{name}_workspace_size")(used.address, ctypes.byref(struct), ctypes.byref(bytes_needed))
    if status == STATUS_OK:
        size = bytes_needed.value
        status = run(used.address, ctypes.byref(struct), workspace.reserve(size), size)
    if status != STATUS_OK:
        lists_words = f"block {block}, list_heads {list_heads}, query_tokens {query_tokens}, {len(entries)} indices"
        raise failure(status, name, f"{lists_words}, {common.describe()}")
    return out


def sparse_prefill(
    query: Array, key: Array, value: Array, indptr: Indices, indices: Indices, *, block: int = 1, list_heads: int = 1,
    query_tokens: int = 0, out: Array | None = None, log_sum_exp: Array | None = None,
    query_indptr: Indices | None = None, kv_indptr: Indices | None = None, kv_lengths: Array | None = None,
    scale: float | None = None, causal: bool = True, window: int = 0, sinks: int = 0, softcap: float = 0.0,
    context: Context | None = None,
) -> Array:  # fmt: skip
    """Attention of any number of queries over the keys of lists; the rest as `attention.prefill`.

    List l has the entries indices[indptr[l]] .. indices[indptr[l+1]-1] (int64, int32); entry e stands for the slots
    e*block .. e*block+block-1 of its sequence. Lists are in order of sequence, tile of query_tokens tokens (0: all of a
    sequence) and head (list_heads 1: shared).
    """
    return _attend(
        "lspan_sparse_prefill", query, key, value, indptr, indices, block, list_heads, query_tokens, out, log_sum_exp,
        query_indptr, kv_indptr, kv_lengths, scale, causal, window, sinks, softcap, context,
    )  # fmt: skip


def sparse_decode(
    query: Array, key: Array, value: Array, indptr: Indices, indices: Indices, *, block: int = 1, list_heads: int = 1,
    query_tokens: int = 0, out: Array | None = None, log_sum_exp: Array | None = None,
    query_indptr: Indices | None = None, kv_indptr: Indices | None = None, kv_lengths: Array | None = None,
    scale: float | None = None, causal: bool = True, window: int = 0, sinks: int = 0, softcap: float = 0.0,
    context: Context | None = None,
) -> Array:  # fmt: skip
    """The same for 0 to 8 query tokens a sequence."""
    return _attend(
        "lspan_sparse_decode", query, key, value, indptr, indices, block, list_heads, query_tokens, out, log_sum_exp,
        query_indptr, kv_indptr, kv_lengths, scale, causal, window, sinks, softcap, context,
    )  # fmt: skip
