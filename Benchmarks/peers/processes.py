"""Engines as child processes: each has the environment that suits it, and is idle while another is timed."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cases import Call, Case

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = Path(os.environ.get("LONGSPAN_PEERS", ROOT / ".build/peers"))
PROGRAMS = ROOT / ".build/peers-engines"

# of run.py; models.py has "transformers"
ENGINES = ("longspan", "torch", "onnxruntime", "openvino", "ggml")

# Large temporaries stay mapped, in huge pages. OpenVINO crashes with it (it frees what another allocator gave).
# Ours and ggml's operands are mapped in huge pages by serve.c, and their calls allocate nothing.
JEMALLOC_ENGINES = ("torch", "onnxruntime", "transformers")
JEMALLOC_OPTIONS = (
    "oversize_threshold:0,background_thread:false,metadata_thp:auto,thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1"
)
# libomp's threads spin for 200 ms after a call by default, libgomp's for about one; none matters within a series of
# calls, and a short spin makes the switch to the next engine quick.
WAIT_POLICY = {"KMP_BLOCKTIME": "20"}

IDLE_WINDOW = 0.01
IDLE_PART = 0.05
IDLE_PATIENCE = 3.0


class EngineError(Exception):
    """What an engine said went wrong, or that it ended."""


def find_jemalloc() -> Path | None:
    folders = [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib")]
    return next((f / "libjemalloc.so.2" for f in folders if (f / "libjemalloc.so.2").exists()), None)


def engine_environment(engine: str, threads: int) -> dict[str, str]:
    """What an engine's process has beyond our own environment."""
    extra = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} | WAIT_POLICY
    if engine == "torch":
        extra |= {"TORCHINDUCTOR_CACHE_DIR": str(PEERS / "inductor"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    jemalloc = find_jemalloc()
    if engine in JEMALLOC_ENGINES and jemalloc:
        extra |= {"LD_PRELOAD": str(jemalloc), "MALLOC_CONF": JEMALLOC_OPTIONS}
    return extra


def engine_command(engine: str, threads: int) -> list[str]:
    if engine in ("longspan", "ggml"):
        return [str(PROGRAMS / f"{engine}-engine"), str(threads)]
    return [str(PEERS / "venv/bin/python"), str(HERE / "engines" / f"{engine}_engine.py"), str(threads)]


@dataclass
class Engine:
    name: str
    threads: int
    log: IO[bytes]
    process: subprocess.Popen[str] | None = None
    about: str = ""
    rows: set[int] = field(default_factory=set)

    def start(self) -> None:
        self.process = subprocess.Popen(
            engine_command(self.name, self.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
            env=os.environ | engine_environment(self.name, self.threads),
        )
        self.about = self.ask("about")

    def ask(self, command: str) -> str:
        """Sends a command and waits for its reply, as long as it takes."""
        if self.process is None:
            self.start()
        assert self.process and self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(command + "\n")
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            status = self.process.wait()
            self.process = None
            self.rows.clear()
            raise EngineError(f"{self.name} ended with status {status}: see {Path(self.log.name).name}")
        kind, _, rest = reply.strip().partition(" ")
        if kind == "error":
            raise EngineError(rest)
        return rest

    def prepare(self, row: int, call: Call, case: Case, copies: int, folder: Path) -> None:
        entries, block = case.list_shape
        self.ask(
            f"prepare {row} {call.variant} {call.dtype} {case.query_heads} {case.kv_heads} {case.head_dim} "
            f"{case.tokens} {case.keys} {case.window} {copies} {entries} {block} {case.sequences} {case.state} "
            f"{folder}"
        )
        self.rows.add(row)

    def run(self, row: int, calls: int) -> list[int]:
        """Nanoseconds of each call."""
        return [int(word) for word in self.ask(f"run {row} {calls}").split()]

    def drop_all(self) -> None:
        for row in sorted(self.rows):
            self.ask(f"drop {row}")
        self.rows.clear()

    def stop(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()
            self.process.wait()
        self.process = None


class Team:
    """All engines of a run."""

    def __init__(self, threads: int, log_folder: Path, names: Sequence[str] = ENGINES) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        self.engines = {
            name: Engine(name, threads, open(log_folder / f"{name}.log", "wb", buffering=0)) for name in names
        }
        # switches to another engine that found one still busy after all patience
        self.busy_switches = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in self.engines.values():
            engine.stop()
            engine.log.close()

    def __getitem__(self, name: str) -> Engine:
        return self.engines[name]

    def drop_all(self) -> None:
        for engine in self.engines.values():
            if engine.process:
                engine.drop_all()

    def cpu_time(self) -> int:
        """Nanoseconds of the engines' threads so far."""
        return cpu_time([engine.process.pid for engine in self.engines.values() if engine.process])

    def wait_until_idle(self) -> None:
        """Returns once the engines' threads have stopped spinning, measured by the CPU time that they use."""
        deadline = time.monotonic() + IDLE_PATIENCE
        while time.monotonic() < deadline:
            before, start = self.cpu_time(), time.monotonic_ns()
            time.sleep(IDLE_WINDOW)
            if self.cpu_time() - before < IDLE_PART * (time.monotonic_ns() - start):
                return
        self.busy_switches += 1


def cpu_time(processes: list[int]) -> int:
    """Nanoseconds of all threads of processes, from Linux's CPU-time clock of each."""
    return sum(time.clock_gettime_ns((~process << 3) | 2) for process in processes)


def machine_busy_time() -> int:
    """Nanoseconds that all cores have been busy or taken by the host."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    ticks = dict(zip(names, map(int, Path("/proc/stat").read_text().split()[1:9]), strict=True))
    busy = sum(count for name, count in ticks.items() if name not in ("idle", "iowait"))
    return busy * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
