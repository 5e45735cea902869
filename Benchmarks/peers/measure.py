"""Times a case: our call and each peer's, round by round."""

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cases import Call, Case, tolerance
from processes import Engine, EngineError, Team, machine_busy_time

# A first call of more than this is its own and only sample.
SLOWEST_REPEATED = 10e9
# Calls faster than this are preceded by one that is not timed, in each round: it brings operands that may be warm back
# into the caches, and wakes the threads.
WORTH_WARMING = 0.25e9


# Cores that others may take before ratios say little: libraries whose threads wait for one another by spinning lose far
# more than the part that was taken.
DISTURBED = 0.1


@dataclass
class Result:
    call: Call
    tolerance: float
    samples: list[int] = field(default_factory=list)
    error: float | None = None  # root mean square of the difference from what is true, relative
    failure: str | None = None
    estimate: float = 0.0

    @property
    def minimum(self) -> float:
        return min(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def agrees(self) -> bool:
        return self.error is not None and self.error <= self.tolerance

    @property
    def counts(self) -> bool:
        return self.failure is None and bool(self.samples) and self.agrees


@dataclass
class CaseResult:
    case: Case
    copies: int
    ours: Result
    peers: list[Result]
    # cores that other programs and other guests of the host took meanwhile, on average
    disturbance: float

    @property
    def name(self) -> str:
        return f"{self.case.name} (disturbed)" if self.disturbance > DISTURBED else self.case.name

    @property
    def best(self) -> Result | None:
        """The peer with the least median, whatever it is made of."""
        return min((p for p in self.peers if p.counts), key=lambda p: p.median, default=None)

    @property
    def best_composition(self) -> Result | None:
        composed = (p for p in self.peers if p.counts and not p.call.dedicated)
        return min(composed, key=lambda p: p.median, default=None)

    def best_dedicated(self, engine: str = "", variant: str = "") -> Result | None:
        """The fastest operator of a library or of all, or the fastest that is called in one way."""
        operators = (
            p
            for p in self.peers
            if p.counts and p.call.dedicated and engine in ("", p.call.engine) and variant in ("", p.call.variant)
        )
        return min(operators, key=lambda p: p.median, default=None)


@contextmanager
def operand_folder(case: Case) -> Iterator[tuple[Path, NDArray[np.float64] | None]]:
    """A folder in memory with the operands that every engine reads, and the case's truth."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="longspan-peers-", dir=shared if shared.is_dir() else None))
    try:
        operands = case.operands()
        for name, values in operands.items():
            values.tofile(folder / name)
        truth = case.truth(operands)
        del operands  # the engines need the memory
        yield folder, truth
    finally:
        shutil.rmtree(folder)


def read_output(engine: Engine, row: int, case: Case, folder: Path) -> NDArray[np.float64]:
    """What is compared of the output of a row's last call."""
    path = folder / "output"
    engine.ask(f"output {row} {path}")
    values = np.fromfile(path, dtype=np.float32)
    if values.size != case.output_elements:
        raise EngineError(f"the output has {values.size} elements instead of {case.output_elements}")
    return case.compared(values).astype(np.float64)


def difference(values: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Root mean square of the difference over that of the truth."""
    error = float(np.sqrt(np.mean(np.square(values - truth)) / np.mean(np.square(truth))))
    return error if np.isfinite(error) else float("inf")


class CaseTimer:
    """Times one case. `on_step` is told which part of it is done."""

    def __init__(
        self, team: Team, case: Case, copies: int, rounds: int, seconds: float, on_step: Callable[[float], None]
    ) -> None:
        self.team = team
        self.case = case
        self.copies = copies
        self.rounds = rounds
        self.budget = seconds * 1e9
        self.on_step = on_step
        # a call takes a turn to prepare and one in each round
        self.turns = 0
        self.results = [Result(call, tolerance(case, call)) for call in (case.ours, *case.peers())]

    def run(self) -> CaseResult:
        try:
            with operand_folder(self.case) as (folder, truth):
                self._prepare(folder, truth)
            before, start = self._others(), time.monotonic_ns()
            for turn in range(self.rounds):
                self._round(turn)
            disturbance = max(0.0, (self._others() - before) / (time.monotonic_ns() - start))
        finally:
            self.team.drop_all()
        return CaseResult(self.case, self.copies, self.results[0], self.results[1:], disturbance)

    def _step(self) -> None:
        self.turns += 1
        self.on_step(self.turns / (len(self.results) * (1 + self.rounds)))

    def _others(self) -> int:
        return machine_busy_time() - self.team.cpu_time() - time.process_time_ns()

    def _prepare(self, folder: Path, truth: NDArray[np.float64] | None) -> None:
        """Loads the operands, makes the first calls and compares the outputs."""
        for row, result in enumerate(self.results):
            self._step()
            engine = self.team[result.call.engine]
            try:
                engine.prepare(row, result.call, self.case, self.copies, folder)
                first = engine.run(row, 1)[0]
                output = read_output(engine, row, self.case, folder)
                if truth is None:
                    truth = output[None]
                errors = [difference(output, truth[0])]
                for expected in truth[1:]:
                    engine.run(row, 1)
                    errors.append(difference(read_output(engine, row, self.case, folder), expected))
                result.error = max(errors)
                if first > SLOWEST_REPEATED:
                    result.samples.append(first)
                    engine.ask(f"drop {row}")
                    engine.rows.discard(row)
                else:
                    result.estimate = min(engine.run(row, 2)) if first < self.budget else first
            except EngineError as error:
                if row == 0:
                    raise
                result.failure = str(error)

    def _round(self, turn: int) -> None:
        # another order in each round, so that none always follows the same one
        order = list(range(len(self.results)))
        random.Random(turn).shuffle(order)
        for row in order:
            result = self.results[row]
            self._step()
            spent = len(result.samples) >= 2 and sum(result.samples) > self.budget
            if result.failure or not result.estimate or spent:
                continue
            calls = max(1, min(2000, int(self.budget / self.rounds / result.estimate)))
            warming = 1 if result.estimate < WORTH_WARMING else 0
            self.team.wait_until_idle()
            try:
                result.samples += self.team[result.call.engine].run(row, calls + warming)[warming:]
                result.estimate = min(result.estimate, result.minimum)
            except EngineError as error:
                result.failure = str(error)
