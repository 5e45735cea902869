"""A bar with the time left."""

import sys
import time
from collections.abc import Sequence


class Progress:
    """A bar with the time left on stderr, if that is a terminal; parts weigh what they are likely to take."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = weights
        self.start = time.monotonic()

    def show(self, index: int, text: str, part_of_case: float) -> None:
        if not sys.stderr.isatty():
            return
        part = (sum(self.weights[:index]) + part_of_case * self.weights[index]) / sum(self.weights)
        elapsed = time.monotonic() - self.start
        left = f"{elapsed / part * (1 - part) / 60:.0f} min left" if part > 0 else ""
        bar = "#" * round(20 * part)
        print(f"\r\033[K[{bar:20}] {100 * part:3.0f}% {left}  {text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
