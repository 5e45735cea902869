"""The part that the engines in Python share: the commands of serve.h, and operands from files."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    variant: str
    dtype: str
    query_heads: int
    kv_heads: int
    head_dim: int
    tokens: int
    keys: int
    window: int  # 0 for none
    copies: int
    entries: int  # of a list; 0 where every key is seen
    block: int  # tokens of an entry
    sequences: int
    state: int  # values that a channel carries from token to token; 0 in attention
    folder: Path

    @property
    def group(self) -> int:
        return self.query_heads // self.kv_heads

    def queries(self) -> Floats:
        """[T, Hq, D]"""
        return self._read("q", (self.tokens, self.query_heads, self.head_dim))

    def keys_and_values(self) -> tuple[Floats, Floats]:
        """[Hk, S, D] each"""
        shape = (self.kv_heads, self.keys, self.head_dim)
        return self._read("k", shape), self._read("v", shape)

    def lists(self) -> NDArray[np.int32]:
        """[copies, Hk, entries]: what each call sees of one copy of the operands, entry e standing for a block."""
        return np.fromfile(self.folder / "lists", dtype=np.int32).reshape(self.copies, self.kv_heads, self.entries)

    def operand(self, name: str, *shape: int) -> Floats:
        return self._read(name, shape)

    def _read(self, name: str, shape: tuple[int, ...]) -> Floats:
        return np.fromfile(self.folder / name, dtype=np.float32).reshape(shape)


@dataclass
class Row:
    """A call for each copy of the operands or each selection, and the output [B * T, Hq, D] of what a call returned."""

    calls: list[Callable[[], object]]
    output: Callable[[object], Floats]
    # what the calls read but do not own
    kept: list[object] = field(default_factory=list)
    next: int = 0
    last: object = None

    def run(self, count: int) -> list[int]:
        times: list[int] = []
        for _ in range(count):
            call = self.calls[self.next]
            start = time.perf_counter_ns()
            self.last = call()
            times.append(time.perf_counter_ns() - start)
            self.next = (self.next + 1) % len(self.calls)
        return times


def float_to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    """The upper halves: exact for operands, whose values fit."""
    return (np.ascontiguousarray(values).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def bfloat16_to_float(bits: NDArray[np.uint16]) -> Floats:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def serve(about: str, prepare: Callable[[Case], Row]) -> None:
    """Answers the commands of serve.h until stdin ends."""
    rows: dict[int, Row] = {}
    answer_commands(lambda line: _answer(line.split(), about, prepare, rows))


def answer_commands(respond: Callable[[str], str]) -> None:
    """Replies with a line to each line until stdin ends."""
    # libraries that print must not print into the replies
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = respond(line)
        except Exception as error:  # whatever a library raises is that row's failure, not the engine's
            answer = "error " + " ".join(f"{type(error).__name__}: {error}".split())[:300]
        replies.write(answer + "\n")


def _answer(words: list[str], about: str, prepare: Callable[[Case], Row], rows: dict[int, Row]) -> str:
    match words:
        case ["about"]:
            return f"ok {about}"
        case ["prepare", row, variant, dtype, *numbers, folder]:
            rows[int(row)] = prepare(Case(variant, dtype, *map(int, numbers), folder=Path(folder)))
            return "ok"
        case ["run", row, count]:
            return " ".join(map(str, ["ns", *rows[int(row)].run(int(count))]))
        case ["output", row, path]:
            values = rows[int(row)]
            values.output(values.last).astype(np.float32).tofile(path)
            return "ok"
        case ["drop", row]:
            rows.pop(int(row), None)
            return "ok"
        case _:
            return "error command not understood"
