"""Times whole models, generation and prompts, in longspan, llama.cpp and transformers, in turns on one GGUF file."""

import argparse
import json
import os
import sys
from pathlib import Path

from measure import DISTURBED
from model_report import LEGEND, cell_table, json_document, summary
from model_runs import LLAMA_BENCH, TEXT, Cell, CellResult, LlamaBench, Longspan, Run, Transformers, measure, output_of
from processes import JEMALLOC_ENGINES, PROGRAMS, ROOT, EngineError, Team, engine_environment, find_jemalloc
from progress import Progress
from report import Json, describe, machine

LONGSPAN = ROOT / ".build/release/longspan"
SMOLLM2 = ROOT / ".build/models/SmolLM2-135M-Instruct.Q4_1.gguf"
PEERS = ("llama.cpp", "transformers")


def counts(text: str) -> list[int]:
    """A list of token counts."""
    if not text:
        return []
    try:
        values = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 512,2048") from error
    if min(values) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} has a number below 0")
    return values


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SMOLLM2, metavar="FILE.gguf", help="by default SmolLM2")
    parser.add_argument(
        "--longspan", type=Path, default=LONGSPAN, metavar="PROGRAM", help="by default the release build"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every program")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each gets; twice as many at short lengths")
    parser.add_argument("--depths", type=counts, default=[0, 4096, 8192], metavar="N,...", help="of generation")
    parser.add_argument("--prompts", type=counts, default=[512, 2048, 8192], metavar="N,...", help="lengths")
    parser.add_argument("--tokens", type=int, default=64, help="tokens that are generated")
    parser.add_argument("--cache-types", type=words, default=["f16", "bf16"], metavar="TYPE,...", help="of longspan")
    parser.add_argument("--peers", type=words, default=list(PEERS), metavar="NAME,...", help=", ".join(PEERS))
    parser.add_argument("--quick", action="store_true", help="short lengths, one round: a trial, no measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn there")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.depths, options.prompts, options.tokens = 1, [0, 256], [64, 256], 16
    if options.threads < 1 or options.rounds < 1 or options.tokens < 1 or 0 in options.prompts:
        parser.error("--threads, --rounds, --tokens and lengths of prompts must be positive")
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"{', '.join(sorted(unknown))}: no such peer; {', '.join(PEERS)} are")
    if not options.cache_types or not options.depths + options.prompts:
        parser.error("there is nothing to time")
    return options


def runs_of(cell: Cell, team: Team, options: argparse.Namespace) -> list[Run]:
    runs: list[Run] = [Longspan(options.longspan, options.model, options.threads, t) for t in options.cache_types]
    if "llama.cpp" in options.peers:
        runs += [LlamaBench(options.model, options.threads, flash) for flash in (False, True)]
    if "transformers" in options.peers and cell.kind == "prompt":
        runs.append(Transformers(team))
    return runs


def llama_version() -> str:
    ggml = sorted(path.name.removeprefix("libggml.so.") for path in LLAMA_BENCH.parent.glob("libggml.so.*.*"))
    package = sorted(path.name for path in (LLAMA_BENCH.parents[2] / "sdist").glob("llama_cpp_python-*[0-9]"))
    return f"llama-bench of {', '.join(package)}, ggml {', '.join(ggml)}, f16 cache, other defaults"


def environment(team: Team, options: argparse.Namespace) -> Json:
    about = json.loads(output_of([str(options.longspan), "info", "--json", "--threads", str(options.threads)], {}))
    engines = {"longspan": f"{about['machine']['version']}, variant {about['machine']['isa']}, native weights"}
    if "llama.cpp" in options.peers:
        engines["llama.cpp"] = llama_version()
    allocator = "the system's"
    if "transformers" in team.engines:
        engines["transformers"] = team["transformers"].about
        if find_jemalloc() and "transformers" in JEMALLOC_ENGINES:
            allocator += "; jemalloc for transformers"
    policies = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "default")}
    if "transformers" in team.engines:
        policies["KMP_BLOCKTIME of transformers"] = engine_environment("transformers", options.threads)["KMP_BLOCKTIME"]
    return machine(options.threads) | {
        "model": f"{options.model.name}, {options.model.stat().st_size / 1e6:.0f} MB",
        "engines": engines,
        "allocator": allocator,
        "wait_policy": policies,
    }


def measure_all(cells: list[Cell], team: Team, options: argparse.Namespace) -> list[CellResult]:
    progress = Progress(
        [cell.weight * cell.rounds(options.rounds) * len(runs_of(cell, team, options)) for cell in cells]
    )
    results: list[CellResult] = []
    for index, cell in enumerate(cells):

        def show(part: float, index: int = index, cell: Cell = cell) -> None:
            progress.show(index, cell.name, part)

        result = measure(cell, runs_of(cell, team, options), cell.rounds(options.rounds), team, show)
        results.append(result)
        progress.clear()
        print(cell_table(result), end="\n\n", flush=True)
    return results


def main() -> int:
    options = arguments()
    cells = [Cell("generation", depth, options.tokens) for depth in options.depths]
    cells += [Cell("prompt", length, length) for length in options.prompts]
    needed = [options.model, options.longspan, TEXT] + ([LLAMA_BENCH] if "llama.cpp" in options.peers else [])
    for path in needed:
        if not path.is_file():
            print(f"models.py: {path} is not there: see README.md for how to get it", file=sys.stderr)
            return 1
    engines = ["transformers"] if "transformers" in options.peers and options.prompts else []
    try:
        with Team(options.threads, PROGRAMS / "logs", engines) as team:
            for name in engines:
                team[name].start()
                team[name].ask(f"load {options.model.resolve()}")
            facts = environment(team, options)
            print(describe(facts), LEGEND, sep="\n\n", end="\n\n", flush=True)
            results = measure_all(cells, team, options)
            facts["busy_switches"] = team.busy_switches
    except (EngineError, OSError) as error:
        print(f"models.py: {error}", file=sys.stderr)
        return 1
    facts["load_average_after"] = Path("/proc/loadavg").read_text().strip()
    print(summary(results))
    print(f"\nload average {facts['load_average']} before, {facts['load_average_after']} after")
    worst = max(result.disturbance for result in results)
    print(f"other programs took up to {worst:.2f} cores" + (": disturbed" if worst > DISTURBED else ""))
    if options.json:
        options.json.write_text(json.dumps(json_document(facts, results), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
