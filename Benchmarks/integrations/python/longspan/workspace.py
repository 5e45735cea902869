"""Scratch memory of a calling thread: aligned, grown when a call needs more, reused by every call of that thread."""

from __future__ import annotations

import ctypes
import threading

# LSPAN_WORKSPACE_ALIGNMENT
ALIGNMENT = 64


class Workspace(threading.local):
    """Each thread sees its own, so that no two calls that run at the same time share memory."""

    def __init__(self) -> None:
        self.bytes = 0
        self.address: int | None = None

    def reserve(self, wanted: int) -> int | None:
        """The address of at least `wanted` bytes, whose content is unspecified."""
        if wanted > self.bytes:
            self._memory = ctypes.create_string_buffer(wanted + ALIGNMENT - 1)
            start = ctypes.addressof(self._memory)
            self.address = (start + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
            self.bytes = wanted
        return self.address


workspace = Workspace()
