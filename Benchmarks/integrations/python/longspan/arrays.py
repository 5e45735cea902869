"""Views of NumPy arrays and CPU tensors of PyTorch: where the elements are, of what type, how far apart. Nothing is copied.

bf16 is torch.bfloat16, a NumPy dtype of that name (ml_dtypes), or numpy.uint16 as bit patterns.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .errors import LongspanError

if TYPE_CHECKING:
    import torch

    Array: TypeAlias = np.ndarray[Any, Any] | torch.Tensor
else:
    Array: TypeAlias = Any

F32, F16, BF16 = 0, 1, 2

# pointer, dtype of lspan_dtype, shape, strides in elements. A plain tuple, because it is made several times a call.
View: TypeAlias = tuple[int, int, tuple[int, ...], tuple[int, ...]]

_NUMPY_DTYPES = {np.dtype(np.float32): F32, np.dtype(np.float16): F16, np.dtype(np.uint16): BF16}
_TORCH_DTYPES: dict[Any, int] = {}
_NAMES = {F32: "f32", F16: "f16", BF16: "bf16"}

_address = ctypes.addressof
_first_byte: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer


def _numpy_pointer(array: np.ndarray[Any, Any]) -> int:
    # a quarter of the time of __array_interface__, but only for what is contiguous, writable and not empty
    try:
        return _address(_first_byte(array))
    except (TypeError, ValueError, BufferError):
        pointer: int = array.__array_interface__["data"][0]
        return pointer


def _torch_dtype(dtype: object) -> int | None:
    if not _TORCH_DTYPES:
        torch = sys.modules["torch"]
        _TORCH_DTYPES.update({torch.float32: F32, torch.float16: F16, torch.bfloat16: BF16})
    return _TORCH_DTYPES.get(dtype)


def is_tensor(array: object) -> bool:
    """Whether it is a tensor of PyTorch, which this package does not import by itself."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def view(array: Array, name: str) -> View:
    """A view of an input. Errors: bad_dtype, bad_stride (a last dimension that is not contiguous), bad_value."""
    if type(array) is np.ndarray or isinstance(array, np.ndarray):
        dtype = _NUMPY_DTYPES.get(array.dtype)
        if dtype is None:
            dtype = BF16 if array.dtype.name == "bfloat16" else None
        if dtype is None:
            raise bad_dtype(name, array.dtype)
        size = array.itemsize
        shape = array.shape
        strides = tuple([stride // size for stride in array.strides])
        if any(stride % size for stride in array.strides):
            raise LongspanError("bad_stride", f"{name} has strides that are not multiples of its elements")
        pointer = _numpy_pointer(array)
    elif is_tensor(array):
        dtype = _torch_dtype(array.dtype)
        if dtype is None:
            raise bad_dtype(name, array.dtype)
        if not array.is_cpu:
            raise LongspanError("bad_value", f"{name} is on device {array.device}, cpu is wanted")
        shape = array.shape
        strides = array.stride()
        pointer = array.data_ptr()
    else:
        raise bad_dtype(name, type(array).__name__)
    if shape and shape[-1] > 1 and strides[-1] != 1 and 0 not in shape:
        raise LongspanError("bad_stride", f"the last dimension of {name} is not contiguous (strides {strides})")
    return pointer, dtype, shape, strides


def writable(array: Array, name: str) -> View:
    """The same for an output."""
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        raise LongspanError("bad_value", f"{name} is read-only")
    return view(array, name)


def bad_dtype(name: str, found: object) -> LongspanError:
    return LongspanError("bad_dtype", f"{name} is {found}; float32, float16 or bfloat16 arrays or tensors are wanted")


def expect_shape(view: View, shape: Sequence[int], name: str, meaning: str) -> None:
    if tuple(view[2]) != tuple(shape):
        raise LongspanError("bad_shape", f"{name} is {list(view[2])}, {list(shape)} ({meaning}) is wanted")


def expect_rank(view: View, ranks: tuple[int, ...], name: str, meaning: str) -> None:
    if len(view[2]) not in ranks:
        raise LongspanError("bad_shape", f"{name} is {list(view[2])}, {meaning} is wanted")


def floats(array: Array | None, shape: Sequence[int], name: str, meaning: str, output: bool = False) -> int | None:
    """The address of a contiguous f32 array of that shape, None for None."""
    if array is None:
        return None
    found = writable(array, name) if output else view(array, name)
    expect_shape(found, shape, name, meaning)
    if found[1] != F32:
        raise LongspanError("bad_dtype", f"{name} is {_NAMES[found[1]]}, f32 is wanted")
    if not is_packed(found):
        raise LongspanError("bad_stride", f"{name} is not contiguous (strides {tuple(found[3])})")
    return found[0]


def is_packed(view: View, inner: int = 1) -> bool:
    """Whether the elements lie one after another, in rows of `inner` elements at least."""
    step = inner
    for size, stride in zip(reversed(view[2]), reversed(view[3])):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


class Integers:
    """Contiguous int64 or int32 values: an array's own memory, or a copy of a list. Keep it as long as its address."""

    def __init__(self, values: Array | Sequence[int], name: str, bits: int = 64) -> None:
        kept: Any = values if isinstance(values, np.ndarray) or is_tensor(values) else np.array(values, dtype=f"i{bits // 8}")
        if str(kept.dtype).removeprefix("torch.") != f"int{bits}":
            raise LongspanError("bad_dtype", f"{name} is {kept.dtype}, int{bits} is wanted")
        if is_tensor(kept):
            if not kept.is_cpu:
                raise LongspanError("bad_value", f"{name} is on device {kept.device}, cpu is wanted")
            kept = kept.numpy()
        if not kept.flags.c_contiguous:
            raise LongspanError("bad_stride", f"{name} is not contiguous")
        self.values: np.ndarray[Any, Any] = kept
        self.address: int = kept.__array_interface__["data"][0]

    def __len__(self) -> int:
        return int(self.values.size)

    def last(self) -> int:
        return int(self.values.flat[-1])


def empty_like(array: Array, shape: Sequence[int]) -> Array:
    """An f32 array or tensor of that shape, of the kind of `array`."""
    if is_tensor(array):
        torch = sys.modules["torch"]
        tensor: Array = torch.empty(tuple(shape), dtype=torch.float32)
        return tensor
    return np.empty(shape, dtype=np.float32)


def empty_of_type(array: Array, shape: Sequence[int]) -> Array:
    """An array or tensor of that shape, of the kind and type of `array`."""
    if is_tensor(array):
        tensor: Array = sys.modules["torch"].empty(tuple(shape), dtype=array.dtype)
        return tensor
    return np.empty(shape, dtype=array.dtype)


def rows(view: View, dimensions: int, name: str) -> int:
    """The stride of the rows of a view whose last `dimensions` are a row's and whose others are packed rows: [L, ...] or
    [B, L, ...] with sequences that follow one another."""
    shape, strides = view[2], view[3]
    outer = len(shape) - dimensions
    if outer == 1:
        return strides[0]
    batch, tokens = shape[0], shape[1]
    if tokens <= 1:
        return strides[0]
    if batch > 1 and strides[0] != tokens * strides[1]:
        raise LongspanError("bad_stride", f"the sequences of {name} do not follow one another (strides {tuple(strides)})")
    return strides[1]

