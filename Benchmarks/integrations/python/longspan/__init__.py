"""Longspan's kernels on NumPy arrays and CPU tensors of PyTorch, without copies.

`longspan.torch_ops` registers them as operators of PyTorch; `longspan.transformers_attention` and
`longspan.transformers_mamba` run models of transformers on those.
"""

from .attention import decode, merge, prefill
from .context import Context, default_context, set_default_context
from .errors import LongspanError
from .library import isa_variants, version
from .scans import causal_conv, selective_scan, selective_update, ssd_scan, ssd_update
from .sparse import sparse_decode, sparse_prefill

__all__ = [
    "Context",
    "LongspanError",
    "causal_conv",
    "decode",
    "default_context",
    "isa_variants",
    "merge",
    "prefill",
    "selective_scan",
    "selective_update",
    "set_default_context",
    "sparse_decode",
    "sparse_prefill",
    "ssd_scan",
    "ssd_update",
    "version",
]
