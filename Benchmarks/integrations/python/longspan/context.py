"""What calls run with: a team of threads and an ISA variant."""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType

from .errors import LongspanError
from .library import ABI, STATUS_OK, failure, library
from .structs import ContextOptions


class Context:
    """A team of threads and an ISA variant, for any number of calls and of calling threads.

    `threads` 0 takes the physical cores that this process may run on, `isa` None the best variant (or LONGSPAN_ISA).
    With `fixed_split` n, calls are cut as for n threads whatever the team, so that their bits do not depend on it.
    """

    def __init__(self, threads: int = 0, isa: str | None = None, fixed_split: int = 0) -> None:
        self._handle = ctypes.c_void_p()
        loaded = library()
        for name, value in (("threads", threads), ("fixed_split", fixed_split)):
            if not 0 <= value <= 4096:
                raise LongspanError("bad_value", f"{name} is {value}, 0 to 4096 are possible")
        options = ContextOptions(threads, None if isa is None else isa.encode(), None, fixed_split)
        status = loaded.lspan_context_create_abi(ABI, ctypes.byref(options), ctypes.byref(self._handle))
        if status != STATUS_OK:
            raise failure(status, "lspan_context_create_abi", f"threads {threads}, isa {isa}, fixed_split {fixed_split}")
        # calls read it on every use, so it is a plain attribute
        self.address: int | None = self._handle.value

    @property
    def isa(self) -> str:
        """The ISA variant in use."""
        text: bytes = library().lspan_context_isa(self._open())
        return text.decode()

    @property
    def threads(self) -> int:
        """The number of threads in use."""
        workers: int = library().lspan_context_workers(self._open())
        return workers

    def close(self) -> None:
        """Frees the context, again without effect. No call that uses it may be running."""
        address, self.address = self.address, None
        if address is not None:
            library().lspan_context_destroy(address)

    def _open(self) -> int:
        if self.address is None:
            raise closed()
        return self.address

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "address", None) is not None:
            self.close()


def closed() -> LongspanError:
    return LongspanError("null_pointer", "the context is closed")


_default: Context | None = None
_default_lock = threading.Lock()


def default_context() -> Context:
    """The context of calls that are given none: made when it is first needed, with the defaults of `Context`."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = Context()
    return _default


def set_default_context(context: Context) -> None:
    """Makes calls that are given no context use this one from now on."""
    global _default
    with _default_lock:
        _default = context
