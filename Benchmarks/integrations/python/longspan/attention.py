"""Exact attention (attention.h) on packed arrays: query [sum T, Hq, D], key and value [sum S, Hk, D], output as the query.

The heads of a cache that lies head-major, [Hk, S, D], are viewed as [S, Hk, D] by a transpose: any strides will do, as
long as the last dimension is contiguous. Queries sit at the end of their keys. f32, f16 and bf16 in, f32 out.

A batch is ragged: sequence b has query rows query_indptr[b] .. query_indptr[b+1]-1 and key rows kv_indptr[b] ..
kv_indptr[b+1]-1; without both there is one sequence. Of its keys each head of a sequence sees the first
kv_lengths[b, head] where these are given.

Any number of threads may call at once; each has its own workspace and structs, kept between calls.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

from .arrays import Array, Integers, View, bad_dtype, empty_like, expect_rank, expect_shape, floats, view, writable
from .context import Context, closed, default_context
from .errors import LongspanError
from .library import STATUS_OK, failure, library
from .structs import Attention
from .workspace import workspace

Indices: TypeAlias = "Array | Sequence[int]"

_Pair = ctypes.c_int64 * 2


class Kernel:
    """A C function with an lspan_attention that is kept from call to call, of one thread.

    Filling a struct anew costs more than a short decode, so a call that differs from the last only in its addresses and
    the number of keys writes only those. Workspace does not depend on the number of keys.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.struct = Attention()
        self.pointer = ctypes.pointer(self.struct)
        self.run: Any = getattr(library(), name)
        self.size: Any = getattr(library(), f"{name}_workspace_size")
        self.bytes = ctypes.c_size_t()
        self.query_indptr = _Pair(0, 0)
        self.kv_indptr = _Pair(0, 0)
        self.signature: tuple[Any, ...] | None = None
        self.context: Context | None = None

    def fill(
        self, query: View, key: View, value: View, output: View, scale: float | None, softcap: float, causal: bool,
        window: int, sinks: int,
    ) -> None:  # fmt: skip
        """Everything but addresses and index pointers. Strides of `output` are those of its rows and heads."""
        struct, head_dim = self.struct, query[2][-1]
        struct.query_heads, struct.kv_heads, struct.head_dim = query[2][1], key[2][1], head_dim
        for target, source in ((struct.queries, query), (struct.keys, key), (struct.values, value)):
            target.dtype, target.token_stride, target.head_stride = source[1], source[3][0], source[3][1]
        struct.output_token_stride, struct.output_head_stride = output[3][0], output[3][1]
        struct.scale = 1 / math.sqrt(head_dim) if scale is None and head_dim > 0 else scale
        struct.softcap, struct.causal, struct.window, struct.sinks = softcap, causal, window, sinks
        struct.key_rotation = None

    def point(self, query: int, key: int, value: int, output: int, log_sum_exp: int | None) -> None:
        struct = self.struct
        struct.queries.data, struct.keys.data, struct.values.data = query, key, value
        struct.output, struct.log_sum_exp = output, log_sum_exp

    def index(self, sequences: int, query_indptr: int, kv_indptr: int, kv_lengths: int | None) -> None:
        struct = self.struct
        struct.sequences, struct.query_indptr, struct.kv_indptr = sequences, query_indptr, kv_indptr
        struct.kv_lengths = kv_lengths

    def measure(self, context: Context) -> None:
        """Asks for the workspace of what the struct now says."""
        if context.address is None:
            raise closed()
        self.check(self.size(context.address, self.pointer, ctypes.byref(self.bytes)))

    def launch(self, context: Context) -> None:
        if context.address is None:
            raise closed()
        size = self.bytes.value
        status = self.run(context.address, self.pointer, workspace.reserve(size), size)
        if status != STATUS_OK:
            self.check(status)

    def check(self, status: int) -> None:
        if status != STATUS_OK:
            self.signature = None
            raise failure(status, self.name, self.describe())

    def describe(self) -> str:
        s = self.struct
        return (
            f"sequences {s.sequences}, query heads {s.query_heads}, kv heads {s.kv_heads}, head_dim {s.head_dim}, "
            f"scale {s.scale:g}, softcap {s.softcap:g}, causal {s.causal}, window {s.window}, sinks {s.sinks}, strides "
            f"(token, head) query {_strides(s.queries)}, key {_strides(s.keys)}, value {_strides(s.values)}, "
            f"out {(s.output_token_stride, s.output_head_stride)}"
        )


def _strides(heads: Any) -> tuple[int, int]:
    return heads.token_stride, heads.head_stride


class _Kernels(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, Kernel] = {}


_kernels = _Kernels()


def kernel(name: str) -> Kernel:
    """This thread's kernel of that name."""
    by_name = _kernels.by_name
    found = by_name.get(name)
    if found is None:
        found = by_name[name] = Kernel(name)
    return found


def _check_heads(query: View, key: View, value: View) -> None:
    """That [tokens, heads, D] views belong together."""
    for name, viewed in (("query", query), ("key", key), ("value", value)):
        expect_rank(viewed, (3,), name, "[tokens, heads, head_dim]")
    if key[2] != value[2]:
        raise LongspanError("bad_shape", f"value is {list(value[2])}, but key is {list(key[2])}")
    if key[1] != value[1]:
        raise LongspanError("bad_dtype", "key and value differ in their dtype")
    if key[2][2] != query[2][2]:
        raise LongspanError("bad_shape", f"head_dim of query is {query[2][2]}, but that of key {key[2][2]}")
    _check_counts(query[2][1], key[2][1], query[2][2])


def _check_counts(query_heads: int, kv_heads: int, head_dim: int) -> None:
    if kv_heads < 1 or query_heads < 1 or query_heads % kv_heads:
        raise LongspanError("bad_shape", f"{query_heads} query heads are no multiple of {kv_heads} key/value heads")
    if head_dim % 8 or not 8 <= head_dim <= 256:
        raise LongspanError("bad_shape", f"head_dim is {head_dim}; multiples of 8 up to 256 are possible")


def _check_values(scale: float | None, softcap: float, window: int, sinks: int) -> None:
    if scale is not None and not math.isfinite(scale):
        raise LongspanError("bad_value", f"scale is {scale}")
    if not 0 <= softcap < math.inf:
        raise LongspanError("bad_value", f"softcap is {softcap}; 0 (none) or a positive number is wanted")
    for name, value in (("window", window), ("sinks", sinks)):
        if not 0 <= value < 2**63:
            raise LongspanError("bad_value", f"{name} is {value}; 0 (none) or a positive number is wanted")


def check_output(output: View, query: View) -> None:
    expect_shape(output, query[2], "out", "as query")
    if output[1] != 0:
        raise bad_dtype("out", "no f32")


class Batch:
    """Index pointers of a batch. Keep it as long as a call that uses it runs."""

    def __init__(self, query: Integers, kv: Integers, lengths: Integers | None) -> None:
        self.sequences = len(query) - 1
        self.query, self.kv, self.lengths = query, kv, lengths

    def index(self, target: Kernel) -> None:
        lengths = None if self.lengths is None else self.lengths.address
        target.index(self.sequences, self.query.address, self.kv.address, lengths)


def ragged(query_indptr: Indices, kv_indptr: Indices, kv_lengths: Array | None, query: View, key: View) -> Batch:
    """A batch whose index pointers are checked against the rows that are there."""
    pointers = Integers(query_indptr, "query_indptr"), Integers(kv_indptr, "kv_indptr")
    if len(pointers[0]) < 1 or len(pointers[0]) != len(pointers[1]):
        raise LongspanError("bad_shape", f"query_indptr has {len(pointers[0])} entries and kv_indptr {len(pointers[1])}")
    for name, found, available in (("query_indptr", pointers[0], query[2][0]), ("kv_indptr", pointers[1], key[2][0])):
        if found.last() > available:
            raise LongspanError("bad_index", f"{name} ends at {found.last()}, but there are {available} rows")
    lengths = None if kv_lengths is None else Integers(kv_lengths, "kv_lengths")
    wanted = (len(pointers[0]) - 1, key[2][1])
    if lengths is not None and lengths.values.shape != wanted:
        raise LongspanError("bad_shape", f"kv_lengths is {list(lengths.values.shape)}, {list(wanted)} is wanted")
    return Batch(*pointers, lengths)


def attend(
    name: str, q: View, k: View, v: View, o: View, lse: int | None, batch: Batch | None, scale: float | None, causal: bool,
    window: int, sinks: int, softcap: float, context: Context | None,
) -> None:  # fmt: skip
    """One call on views whose first dimension is tokens. `batch` None is one sequence."""
    if context is None:
        context = default_context()
    target = kernel(name)
    if batch is not None:
        _check(q, k, v, o, scale, softcap, window, sinks)
        target.signature = None
        target.fill(q, k, v, o, scale, softcap, causal, window, sinks)
        batch.index(target)
        target.measure(context)
    else:
        signature = (
            q[1:], k[1], k[2][1:], k[3], v[1], v[2][1:], v[3], o[1:], scale, softcap, causal, window, sinks,
        )  # fmt: skip
        if signature != target.signature or context is not target.context or k[2][0] != v[2][0]:
            _check(q, k, v, o, scale, softcap, window, sinks)
            target.signature = None
            target.fill(q, k, v, o, scale, softcap, causal, window, sinks)
            target.index(1, ctypes.addressof(target.query_indptr), ctypes.addressof(target.kv_indptr), None)
            target.query_indptr[1], target.kv_indptr[1] = q[2][0], k[2][0]
            target.measure(context)
            target.signature, target.context = signature, context
        target.kv_indptr[1] = k[2][0]
    target.point(q[0], k[0], v[0], o[0], lse)
    target.launch(context)


def _attend(
    name: str, query: Array, key: Array, value: Array, out: Array | None, log_sum_exp: Array | None,
    query_indptr: Indices | None, kv_indptr: Indices | None, kv_lengths: Array | None, scale: float | None, causal: bool,
    window: int, sinks: int, softcap: float, context: Context | None,
) -> Array:  # fmt: skip
    q, k, v = view(query, "query"), view(key, "key"), view(value, "value")
    if out is None:
        out = empty_like(query, q[2])
    lse = None if log_sum_exp is None else floats(log_sum_exp, q[2][:2], "log_sum_exp", "[tokens, heads]", output=True)
    batch = None
    if query_indptr is not None or kv_indptr is not None or kv_lengths is not None:
        check_inputs(q, k, v, scale, softcap, window, sinks)
        if query_indptr is None or kv_indptr is None:
            raise LongspanError("null_pointer", "query_indptr and kv_indptr come together, and kv_lengths with both")
        batch = ragged(query_indptr, kv_indptr, kv_lengths, q, k)
    attend(name, q, k, v, writable(out, "out"), lse, batch, scale, causal, window, sinks, softcap, context)
    return out


def _check(q: View, k: View, v: View, o: View, scale: float | None, softcap: float, window: int, sinks: int) -> None:
    check_inputs(q, k, v, scale, softcap, window, sinks)
    check_output(o, q)


def check_inputs(q: View, k: View, v: View, scale: float | None, softcap: float, window: int, sinks: int) -> None:
    _check_heads(q, k, v)
    _check_values(scale, softcap, window, sinks)


def prefill(
    query: Array, key: Array, value: Array, *, out: Array | None = None, log_sum_exp: Array | None = None,
    query_indptr: Indices | None = None, kv_indptr: Indices | None = None, kv_lengths: Array | None = None,
    scale: float | None = None, causal: bool = True, window: int = 0, sinks: int = 0, softcap: float = 0.0,
    context: Context | None = None,
) -> Array:  # fmt: skip
    """Attention for any number of query tokens; returns `out`, or a new array.

    log_sum_exp, if given, receives [tokens, heads] f32. scale None is 1 / sqrt(D). A window of w sees w keys, its own
    included, and the first `sinks` keys besides; 0 is none. softcap c turns logits s into c * tanh(s / c); 0 is none.
    """
    return _attend(
        "lspan_attention_prefill", query, key, value, out, log_sum_exp, query_indptr, kv_indptr, kv_lengths, scale, causal,
        window, sinks, softcap, context,
    )  # fmt: skip


def decode(
    query: Array, key: Array, value: Array, *, out: Array | None = None, log_sum_exp: Array | None = None,
    query_indptr: Indices | None = None, kv_indptr: Indices | None = None, kv_lengths: Array | None = None,
    scale: float | None = None, causal: bool = True, window: int = 0, sinks: int = 0, softcap: float = 0.0,
    context: Context | None = None,
) -> Array:  # fmt: skip
    """The same for 0 to 8 query tokens a sequence: each key is read once, and the keys are divided among the threads."""
    return _attend(
        "lspan_attention_decode", query, key, value, out, log_sum_exp, query_indptr, kv_indptr, kv_lengths, scale, causal,
        window, sinks, softcap, context,
    )  # fmt: skip


def merge(
    outputs: Array, log_sum_exps: Array, *, out: Array | None = None, log_sum_exp: Array | None = None,
    context: Context | None = None,
) -> Array:  # fmt: skip
    """Results over disjoint key sets, [parts, ..., D] with log_sum_exps [parts, ...], merged into that over all keys."""
    parts = view(outputs, "outputs")
    if len(parts[2]) < 2:
        raise LongspanError("bad_shape", f"outputs is {list(parts[2])}, [parts, ..., head_dim] is wanted")
    shape = parts[2][1:]
    if out is None:
        out = empty_like(outputs, shape)
    if context is None:
        context = default_context()
    if context.address is None:
        raise closed()
    status = library().lspan_attention_merge(
        context.address,
        parts[2][0],
        math.prod(shape[:-1]),
        shape[-1],
        floats(outputs, parts[2], "outputs", "[parts, ..., head_dim]"),
        floats(log_sum_exps, parts[2][:-1], "log_sum_exps", "[parts, ...]"),
        floats(out, shape, "out", "[..., head_dim]", output=True),
        floats(log_sum_exp, shape[:-1], "log_sum_exp", "[...]", output=True),
    )
    if status != STATUS_OK:
        raise failure(status, "lspan_attention_merge", f"outputs {list(parts[2])}")
    return out
