"""Finds and loads the shared library, and turns its statuses into errors.

LONGSPAN_LIBRARY names the file; without it the loader looks where it looks for every library. Functions are called
through ctypes, which lets other Python threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

from . import structs
from .errors import LongspanError

# LSPAN_ABI of the headers that structs.py follows
ABI = 1

STATUS_OK = 0

_size_pointer = ctypes.POINTER(ctypes.c_size_t)


def _runs(struct: type[ctypes.Structure]) -> list[object]:
    """A kernel with workspace: context, call, workspace, bytes."""
    return [ctypes.c_void_p, ctypes.POINTER(struct), ctypes.c_void_p, ctypes.c_size_t]


def _sizes(struct: type[ctypes.Structure]) -> list[object]:
    return [ctypes.c_void_p, ctypes.POINTER(struct), _size_pointer]


_PROTOTYPES: dict[str, tuple[object, list[object]]] = {
    "lspan_version": (ctypes.c_char_p, []),
    "lspan_abi": (ctypes.c_int32, []),
    "lspan_status_name": (ctypes.c_char_p, [ctypes.c_int]),
    "lspan_status_description": (ctypes.c_char_p, [ctypes.c_int]),
    "lspan_isa_count": (ctypes.c_size_t, []),
    "lspan_isa_name": (ctypes.c_char_p, [ctypes.c_size_t]),
    "lspan_isa_is_supported": (ctypes.c_int, [ctypes.c_size_t]),
    "lspan_context_create_abi": (
        ctypes.c_int,
        [ctypes.c_int32, ctypes.POINTER(structs.ContextOptions), ctypes.POINTER(ctypes.c_void_p)],
    ),
    "lspan_context_destroy": (None, [ctypes.c_void_p]),
    "lspan_context_isa": (ctypes.c_char_p, [ctypes.c_void_p]),
    "lspan_context_workers": (ctypes.c_size_t, [ctypes.c_void_p]),
    "lspan_attention_prefill_workspace_size": (ctypes.c_int, _sizes(structs.Attention)),
    "lspan_attention_prefill": (ctypes.c_int, _runs(structs.Attention)),
    "lspan_attention_decode_workspace_size": (ctypes.c_int, _sizes(structs.Attention)),
    "lspan_attention_decode": (ctypes.c_int, _runs(structs.Attention)),
    "lspan_attention_merge": (
        ctypes.c_int,
        [ctypes.c_void_p, *[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 4],
    ),
    "lspan_sparse_prefill_workspace_size": (ctypes.c_int, _sizes(structs.SparseAttention)),
    "lspan_sparse_prefill": (ctypes.c_int, _runs(structs.SparseAttention)),
    "lspan_sparse_decode_workspace_size": (ctypes.c_int, _sizes(structs.SparseAttention)),
    "lspan_sparse_decode": (ctypes.c_int, _runs(structs.SparseAttention)),
    "lspan_selective_scan_workspace_size": (ctypes.c_int, _sizes(structs.SelectiveScan)),
    "lspan_selective_scan_run": (ctypes.c_int, _runs(structs.SelectiveScan)),
    "lspan_selective_update": (ctypes.c_int, [ctypes.c_void_p, ctypes.POINTER(structs.SelectiveScan)]),
    "lspan_ssd_scan_workspace_size": (ctypes.c_int, _sizes(structs.SsdScan)),
    "lspan_ssd_scan_run": (ctypes.c_int, _runs(structs.SsdScan)),
    "lspan_ssd_update": (ctypes.c_int, [ctypes.c_void_p, ctypes.POINTER(structs.SsdScan)]),
    "lspan_causal_conv_run": (ctypes.c_int, [ctypes.c_void_p, ctypes.POINTER(structs.CausalConv)]),
}


def _candidates() -> list[str]:
    named = os.environ.get("LONGSPAN_LIBRARY")
    if named:
        return [named]
    if sys.platform == "darwin":
        return [f"liblongspan.{ABI}.dylib", "liblongspan.dylib"]
    return [f"liblongspan.so.{ABI}", "liblongspan.so"]


def _open() -> ctypes.CDLL:
    failures = []
    for candidate in _candidates():
        try:
            return ctypes.CDLL(candidate)
        except OSError as error:
            failures.append(f"{candidate} ({error})")
    hint = "" if os.environ.get("LONGSPAN_LIBRARY") else "; LONGSPAN_LIBRARY can name the file"
    raise LongspanError("no_library", f"tried {', '.join(failures)}{hint}")


@functools.cache
def library() -> ctypes.CDLL:
    """The library, loaded once and found to have the interface that this package was written for."""
    opened = _open()
    try:
        opened.lspan_abi.restype = ctypes.c_int32
        number = opened.lspan_abi()
    except AttributeError:
        raise LongspanError("abi_mismatch", f"{opened._name} has no lspan_abi, {ABI} is wanted") from None
    if number != ABI:
        raise LongspanError("abi_mismatch", f"{opened._name} has interface {number}, {ABI} is wanted")
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(opened, name)
        function.restype = result
        function.argtypes = arguments
    return opened


def version() -> str:
    """The version of the library that runs, as "0.1.0"."""
    text: bytes = library().lspan_version()
    return text.decode()


def isa_variants() -> dict[str, bool]:
    """The ISA variants of the library, best first, and whether this machine can run them."""
    loaded = library()
    indices = range(loaded.lspan_isa_count())
    return {loaded.lspan_isa_name(i).decode(): bool(loaded.lspan_isa_is_supported(i)) for i in indices}


def failure(status: int, function: str, arguments: str) -> LongspanError:
    """The error of a status that is not 0. `arguments` says in words what the call was given."""
    loaded = library()
    name: str = loaded.lspan_status_name(status).decode()
    description: str = loaded.lspan_status_description(status).decode()
    return LongspanError(name, f"{function}: {description} ({arguments})")
