"""What models.py and decoding.py time: whole models in longspan, llama.cpp and transformers, a turn at a time."""

import json
import os
import random
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from processes import PEERS, ROOT, EngineError, Team, machine_busy_time

TEXT = ROOT / "Benchmarks/Data/persuasion.txt"
LLAMA_BENCH = PEERS / "ggml/bin/llama-bench"
# A peer reads a prompt of up to so many tokens once before it is timed, as llama-bench does by default. Beyond, what
# that gains is nothing beside the time that it takes. longspan never does.
WARMED_TOKENS = 2048


@dataclass(frozen=True)
class Cell:
    kind: Literal["generation", "prompt"]
    # that are read: those before the first that is generated, or the prompt's
    tokens: int
    # that are timed
    count: int

    @property
    def name(self) -> str:
        if self.kind == "generation":
            return f"generation of {self.count} tokens at depth {self.tokens}"
        return f"prompt of {self.tokens} tokens"

    @property
    def weight(self) -> float:
        """What a turn takes, roughly, in tokens of a short prompt; attention grows with the length."""
        return 300 + self.tokens * (1 + self.tokens / 4000) + 8 * (self.count if self.kind == "generation" else 0)

    def rounds(self, rounds: int) -> int:
        """Turns that each run gets: twice as many where one is short."""
        return rounds if self.tokens > WARMED_TOKENS else 2 * rounds


class Run(Protocol):
    """A program with its options."""

    @property
    def name(self) -> str: ...

    def seconds(self, cell: Cell) -> float:
        """Takes a turn. Throws `EngineError` or `OSError`."""
        ...


def output_of(command: Sequence[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        name = Path(command[0]).name
        raise EngineError(f"{name}: {lines[-1].removeprefix(f'{name}: ') if lines else f'status {done.returncode}'}")
    return done.stdout


def parsed(text: str, program: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise EngineError(f"{program} printed no JSON: {error}") from error


@dataclass(frozen=True)
class Longspan:
    """`longspan generate` of a text's first tokens. Nothing is read before what is timed."""

    program: Path
    model: Path
    threads: int
    cache_type: str
    decode: str = ""

    @property
    def name(self) -> str:
        return self.decode or f"longspan, {self.cache_type} cache"

    def seconds(self, cell: Cell) -> float:
        generates = cell.kind == "generation"
        # a prompt has one token at least. The first token is drawn from its logits, so that one more than are timed are
        # generated: as many go through the model as in llama-bench.
        command = [
            str(self.program), "generate", "--model", str(self.model), "--threads", str(self.threads),
            "--cache-type", self.cache_type, "--prompt-file", str(TEXT), "--prompt-tokens", str(max(1, cell.tokens)),
            "--max-tokens", str(cell.count + 1 if generates else 0), "--ignore-end", "--json",
        ]  # fmt: skip
        if self.decode:
            command += ["--decode", self.decode]
        report = parsed(output_of(command, {"OMP_NUM_THREADS": str(self.threads)}), "longspan")
        match report:
            case {"generated_tokens": int(generated), "generation_seconds": int() | float() as seconds} if generates:
                if generated != cell.count + 1:
                    raise EngineError(f"longspan generated {generated} tokens instead of {cell.count + 1}")
                return float(seconds)
            case {"prompt_seconds": int() | float() as seconds} if not generates:
                return float(seconds)
        raise EngineError("longspan printed no times")


@dataclass(frozen=True)
class LlamaBench:
    """llama-bench with its defaults (f16 cache, batches of 2048 in parts of 512), with or without flash attention."""

    model: Path
    threads: int
    flash_attention: bool

    @property
    def name(self) -> str:
        return f"llama.cpp, f16 cache, -fa {int(self.flash_attention)}"

    def seconds(self, cell: Cell) -> float:
        what = (
            ["-p", "0", "-n", str(cell.count), "-d", str(cell.tokens)]
            if cell.kind == "generation"
            else ["-p", str(cell.tokens), "-n", "0"]
        )
        if cell.kind == "prompt" and cell.tokens > WARMED_TOKENS:
            what.append("--no-warmup")
        command = [
            str(LLAMA_BENCH), "-m", str(self.model), "-t", str(self.threads), "-fa", str(int(self.flash_attention)),
            "-r", "1", "-o", "json", *what,
        ]  # fmt: skip
        match parsed(output_of(command, {"OMP_NUM_THREADS": str(self.threads)}), "llama-bench"):
            case [{"samples_ns": [int(nanoseconds)]}]:
                return nanoseconds / 1e9
        raise EngineError("llama-bench printed no time")


@dataclass(frozen=True)
class Transformers:
    """A process that keeps the model, in f32."""

    team: Team
    name: str = "transformers, f32, SDPA"

    def seconds(self, cell: Cell) -> float:
        warm = int(cell.tokens <= WARMED_TOKENS)
        return int(self.team["transformers"].ask(f"prompt {cell.tokens} {warm}")) / 1e9


@dataclass
class RunResult:
    run: Run
    samples: dict[int, float] = field(default_factory=dict)  # seconds by round
    failure: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.samples.values())

    @property
    def minimum(self) -> float:
        return min(self.samples.values())

    @property
    def counts(self) -> bool:
        return self.failure is None and bool(self.samples)


@dataclass
class Ratio:
    """How many times as long one run takes as another: of their medians, and the least and greatest of a round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"

    def divided(self, by: float) -> "Ratio":
        return Ratio(self.median / by, self.low / by, self.high / by)


def ratio(slower: RunResult, faster: RunResult) -> Ratio:
    rounds = [slower.samples[i] / faster.samples[i] for i in sorted(slower.samples.keys() & faster.samples.keys())]
    return Ratio(slower.median / faster.median, min(rounds), max(rounds))


@dataclass
class CellResult:
    cell: Cell
    runs: list[RunResult]
    # cores that other programs and other guests of the host took meanwhile, on average
    disturbance: float

    def rate(self, seconds: float) -> float:
        return self.cell.count / seconds


def own_cpu_time(team: Team) -> int:
    """Nanoseconds of this process, of children that have ended and of the team's."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time_ns() + int((ended.ru_utime + ended.ru_stime) * 1e9) + team.cpu_time()


def measure(cell: Cell, runs: Sequence[Run], rounds: int, team: Team, on_step: Callable[[float], None]) -> CellResult:
    """Lets all runs take their turns. `on_step` is told which part is done. Throws if one of longspan's fails."""
    results = [RunResult(run) for run in runs]
    before, start = machine_busy_time() - own_cpu_time(team), time.monotonic_ns()
    for turn in range(rounds):
        # another order in each round, so that none always follows the same one
        order = list(results)
        random.Random(turn).shuffle(order)
        for step, result in enumerate(order):
            on_step((turn + step / len(order)) / rounds)
            if result.failure:
                continue
            team.wait_until_idle()
            try:
                result.samples[turn] = result.run.seconds(cell)
            except EngineError as error:
                if isinstance(result.run, Longspan):
                    raise
                result.failure = str(error)
    elapsed = time.monotonic_ns() - start
    disturbance = (machine_busy_time() - own_cpu_time(team) - before) / elapsed
    return CellResult(cell, results, max(0.0, disturbance))
