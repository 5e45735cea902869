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
from processes import EngineError, Team, machine_busy_time

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
    error: float | None = None  # root mean square of the difference from ours, relative to ours
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

    def best_dedicated(self, engine: str, variant: str = "") -> Result | None:
        """A library's fastest attention operator, or the fastest that is called in one way."""
        operators = (
            p
            for p in self.peers
            if p.counts and p.call.dedicated and p.call.engine == engine and variant in ("", p.call.variant)
        )
        return min(operators, key=lambda p: p.median, default=None)


@contextmanager
def operand_folder(case: Case) -> Iterator[Path]:
    """A folder in memory with the operands that every engine reads."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="longspan-peers-", dir=shared if shared.is_dir() else None))
    try:
        for name, values in case.operands().items():
            values.tofile(folder / name)
        yield folder
    finally:
        shutil.rmtree(folder)


def difference(folder: Path, ours: NDArray[np.float32], team: Team, row: int, call: Call) -> float:
    path = folder / "output"
    team[call.engine].ask(f"output {row} {path}")
    values = np.fromfile(path, dtype=np.float32)
    if values.size != ours.size:
        raise EngineError(f"the output has {values.size} elements instead of {ours.size}")
    scale = float(np.sqrt(np.mean(np.square(ours, dtype=np.float64))))
    error = float(np.sqrt(np.mean(np.square(values - ours, dtype=np.float64)))) / scale
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
            with operand_folder(self.case) as folder:
                self._prepare(folder)
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

    def _prepare(self, folder: Path) -> None:
        """Loads the operands, makes the first calls and compares the outputs."""
        ours: NDArray[np.float32] | None = None
        for row, result in enumerate(self.results):
            self._step()
            engine = self.team[result.call.engine]
            try:
                engine.prepare(row, result.call, self.case, self.copies, folder)
                first = engine.run(row, 1)[0]
                if ours is None:
                    engine.ask(f"output {row} {folder / 'ours'}")
                    ours = np.fromfile(folder / "ours", dtype=np.float32)
                result.error = difference(folder, ours, self.team, row, result.call)
                if first > SLOWEST_REPEATED:
                    result.samples.append(first)
                    engine.ask(f"drop {row}")
                    engine.rows.discard(row)
                else:
                    result.estimate = min(engine.run(row, 2)) if first < self.budget else first
            except EngineError as error:
                if ours is None:
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
