"""The structs of the headers, field for field. tests/test_structs.py compares them with what a C compiler says."""

from __future__ import annotations

import ctypes

i32, i64, f32, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class Executor(ctypes.Structure):
    """`lspan_executor`"""

    _fields_ = [("run", pointer), ("user", pointer), ("worker_count", ctypes.c_size_t)]


class ContextOptions(ctypes.Structure):
    """`lspan_context_options`"""

    _fields_ = [
        ("threads", i32),
        ("isa", ctypes.c_char_p),
        ("executor", ctypes.POINTER(Executor)),
        ("fixed_split", i32),
    ]


class Heads(ctypes.Structure):
    """`lspan_heads` and `lspan_heads_out`"""

    _fields_ = [("data", pointer), ("dtype", ctypes.c_int), ("token_stride", i64), ("head_stride", i64)]


class Matrix(ctypes.Structure):
    """`lspan_matrix` and `lspan_matrix_out`"""

    _fields_ = [("data", pointer), ("dtype", ctypes.c_int), ("row_stride", i64)]


class Attention(ctypes.Structure):
    """`lspan_attention`"""

    _fields_ = [
        ("sequences", i64),
        ("query_heads", i64),
        ("kv_heads", i64),
        ("head_dim", i64),
        ("query_indptr", pointer),
        ("kv_indptr", pointer),
        ("queries", Heads),
        ("keys", Heads),
        ("values", Heads),
        ("kv_lengths", pointer),
        ("key_rotation", pointer),
        ("output", pointer),
        ("output_token_stride", i64),
        ("output_head_stride", i64),
        ("log_sum_exp", pointer),
        ("scale", f32),
        ("softcap", f32),
        ("causal", i32),
        ("window", i64),
        ("sinks", i64),
    ]


class SparseAttention(ctypes.Structure):
    """`lspan_sparse_attention`"""

    _fields_ = [
        ("attention", Attention),
        ("block", i64),
        ("list_heads", i64),
        ("query_tokens", i64),
        ("indptr", pointer),
        ("indices", pointer),
    ]


class DtFilter(ctypes.Structure):
    """`lspan_dt_filter`"""

    _fields_ = [("scales", pointer), ("thresholds", pointer), ("sequence_stride", i64)]


class DtRule(ctypes.Structure):
    """`lspan_dt_rule`"""

    _fields_ = [
        ("bias", pointer),
        ("softplus", i32),
        ("minimum", f32),
        ("maximum", f32),
        ("filter", ctypes.POINTER(DtFilter)),
    ]


class SelectiveScan(ctypes.Structure):
    """`lspan_selective_scan`"""

    _fields_ = [
        ("sequences", i64),
        ("indptr", pointer),
        ("channels", i64),
        ("state_size", i64),
        ("groups", i64),
        ("input", Matrix),
        ("dt", Matrix),
        ("rule", DtRule),
        ("a", pointer),
        ("b", Heads),
        ("c", Heads),
        ("d", pointer),
        ("gate", Matrix),
        ("initial_state", pointer),
        ("final_state", pointer),
        ("state_stride", i64),
        ("output", Matrix),
        ("kept", pointer),
    ]


class SsdScan(ctypes.Structure):
    """`lspan_ssd_scan`"""

    _fields_ = [
        ("sequences", i64),
        ("indptr", pointer),
        ("heads", i64),
        ("head_dim", i64),
        ("state_size", i64),
        ("groups", i64),
        ("input", Heads),
        ("dt", Matrix),
        ("rule", DtRule),
        ("a", pointer),
        ("b", Heads),
        ("c", Heads),
        ("d", pointer),
        ("gate", Heads),
        ("initial_state", pointer),
        ("final_state", pointer),
        ("state_stride", i64),
        ("output", Heads),
        ("kept", pointer),
        ("form", ctypes.c_int),
    ]


class CausalConv(ctypes.Structure):
    """`lspan_causal_conv`"""

    _fields_ = [
        ("sequences", i64),
        ("indptr", pointer),
        ("channels", i64),
        ("width", i64),
        ("input", Matrix),
        ("weight", pointer),
        ("bias", pointer),
        ("silu", i32),
        ("initial_state", pointer),
        ("final_state", pointer),
        ("state_stride", i64),
        ("output", Matrix),
    ]


# name in C -> struct here
BY_NAME: dict[str, type[ctypes.Structure]] = {
    "lspan_executor": Executor,
    "lspan_context_options": ContextOptions,
    "lspan_heads": Heads,
    "lspan_heads_out": Heads,
    "lspan_matrix": Matrix,
    "lspan_matrix_out": Matrix,
    "lspan_attention": Attention,
    "lspan_sparse_attention": SparseAttention,
    "lspan_dt_filter": DtFilter,
    "lspan_dt_rule": DtRule,
    "lspan_selective_scan": SelectiveScan,
    "lspan_ssd_scan": SsdScan,
    "lspan_causal_conv": CausalConv,
}
