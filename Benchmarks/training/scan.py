"""The selective scan of scan.c as a differentiable torch function."""
from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

STATES = 16  # N in scan.c


@cache
def library() -> ctypes.CDLL:
    """Compiles scan.c for this machine, once per process."""
    built = Path(tempfile.mkdtemp()) / "scan.so"
    source = Path(__file__).with_name("scan.c")
    options = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run(["gcc", *options, str(source), "-o", str(built), "-lm"], check=True)
    return ctypes.CDLL(str(built))


def pointers(*tensors: torch.Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(t.data_ptr()) for t in tensors]


class SelectiveScan(torch.autograd.Function):
    """x and dt (batch, channels, length), a (channels, 16), b and c (batch, length, 16) -> y like x."""

    @staticmethod
    def forward(ctx, x, dt, a, b, c):  # type: ignore[no-untyped-def]
        inputs = [t.contiguous() for t in (x, dt, a, b, c)]
        assert a.shape[1] == b.shape[2] == STATES
        y = torch.empty_like(inputs[0])
        sizes = [ctypes.c_size_t(s) for s in x.shape]
        library().scan_forward(*sizes, *pointers(*inputs, y))
        ctx.save_for_backward(*inputs)
        return y

    @staticmethod
    def backward(ctx, gy):  # type: ignore[no-untyped-def]
        inputs = ctx.saved_tensors
        gy = gy.contiguous()
        gradients = [torch.zeros_like(t) for t in inputs]
        sizes = [ctypes.c_size_t(s) for s in gy.shape]
        if library().scan_backward(*sizes, *pointers(*inputs, gy, *gradients)):
            raise MemoryError("scan_backward")
        return tuple(gradients)


def selective_scan(
    x: torch.Tensor, dt: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """As above with x, dt and the result as (batch, length, channels)."""
    return SelectiveScan.apply(x.transpose(1, 2), dt.transpose(1, 2), a, b, c).transpose(1, 2)
