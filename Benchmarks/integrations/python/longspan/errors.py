"""The one error type."""

from __future__ import annotations


class LongspanError(Exception):
    """What a call refused, in one line that names the argument. `name` is the status of status.h without its prefix."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
