"""Times direct multi-token decoding beside ordinary decoding, in turns, and compares with what weight traffic allows.

Ordinary decoding reads every weight for every token. In cycles of T tokens the layers before the late ones are read
once a cycle, the late ones and the head for every token: the ideal is the ratio of these bytes.
"""

import argparse
import json
import math
import os
import re
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import gguf

from measure import DISTURBED
from model_runs import TEXT, Cell, CellResult, Longspan, RunResult, measure, output_of, ratio
from models import LONGSPAN, counts
from processes import PROGRAMS, ROOT, EngineError, Team
from progress import Progress
from report import Json, describe, machine

MODEL = ROOT / ".build/models/random-q8_0.gguf"
# of the ideal, that a cycle is to reach
TARGET = 0.8


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of a model's weights that a token needs; of the embeddings it needs one row, which does not count."""

    layers: list[int]
    head: int

    @property
    def total(self) -> int:
        return sum(self.layers) + self.head

    def a_token(self, cycle: int, late: int) -> float:
        first = len(self.layers) - late
        return sum(self.layers[:first]) / cycle + sum(self.layers[first:]) + self.head

    def ideal(self, cycle: int, late: int) -> float:
        """How many times as fast as ordinary decoding."""
        return self.total / self.a_token(cycle, late)


def read_weight_bytes(path: Path) -> WeightBytes:
    layers: dict[int, int] = defaultdict(int)
    others: dict[str, int] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        if block := re.match(r"blk\.(\d+)\.", tensor.name):
            layers[int(block[1])] += int(tensor.n_bytes)
        else:
            others[tensor.name] = int(tensor.n_bytes)
    head = others.get("output.weight", others.get("token_embd.weight"))
    if not layers or head is None:
        raise ValueError("it has no layers or no head")
    return WeightBytes([layers[i] for i in sorted(layers)], head + others.get("output_norm.weight", 0))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, metavar="FILE.gguf", help="by default the random one")
    parser.add_argument(
        "--longspan", type=Path, default=LONGSPAN, metavar="PROGRAM", help="by default the release build"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7, help="turns that each gets")
    parser.add_argument("--cycles", type=counts, default=[2, 3, 4, 6], metavar="T,...")
    parser.add_argument("--late", type=int, help="late layers; by default two in nine, as in 8 of Qwen3-4B's 36")
    parser.add_argument("--depth", type=int, default=32, help="tokens of prompt")
    parser.add_argument("--tokens", type=int, default=96, help="tokens that are generated, a multiple of every cycle")
    parser.add_argument("--cache-type", default="bf16")
    parser.add_argument("--quick", action="store_true", help="one round, few tokens: a trial, no measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn there")
    options = parser.parse_args()
    if min([options.threads, options.rounds, options.depth, options.tokens, *options.cycles]) < 1:
        parser.error("--threads, --rounds, --depth, --tokens and cycles must be positive")
    if not options.cycles:
        parser.error("--cycles has none")
    whole = math.lcm(*options.cycles)
    if options.quick:
        options.rounds, options.tokens = 1, whole
    if options.tokens % whole:
        parser.error(f"--tokens {options.tokens} is no multiple of {whole}: the last cycle would be cut short")
    return options


def cycle_line(row: RunResult, result: CellResult, weights: WeightBytes, cycle: int, late: int) -> tuple[str, float]:
    """A row of the Markdown table, and the share of the ideal."""
    gain, ideal = ratio(result.runs[0], row), weights.ideal(cycle, late)
    cells = [
        f"{cycle}",
        f"{result.rate(row.minimum):.2f} / {result.rate(row.median):.2f}",
        str(gain),
        f"{ideal:.2f}",
        str(gain.divided(ideal)),
    ]
    return f"| {' | '.join(cells)} |", gain.median / ideal


def table(result: CellResult, weights: WeightBytes, cycles: list[int], late: int) -> tuple[str, float]:
    """The Markdown table and the least share of the ideal; tokens/s are those of the fastest turn and of the median."""
    ordinary = result.runs[0]
    lines = [
        "| cycle | tokens/s | times as fast | ideal | of the ideal |",
        "| ---: | ---: | ---: | ---: | ---: |",
        f"| ordinary | {result.rate(ordinary.minimum):.2f} / {result.rate(ordinary.median):.2f} | - | - | - |",
    ]
    shares: list[float] = []
    for cycle, row in zip(cycles, result.runs[1:], strict=True):
        line, share = cycle_line(row, result, weights, cycle, late)
        lines.append(line)
        shares.append(share)
    return "\n".join(lines), min(shares)


def environment(options: argparse.Namespace, weights: WeightBytes, late: int) -> Json:
    about = json.loads(output_of([str(options.longspan), "info", "--json", "--threads", str(options.threads)], {}))
    return machine(options.threads) | {
        "model": f"{options.model.name}: {len(weights.layers)} layers, {late} late; {weights.total / 1e6:.0f} MB a "
        f"token, {weights.head / 1e6:.0f} MB of them the head",
        "longspan": f"{about['machine']['version']}, variant {about['machine']['isa']}, native weights, "
        f"{options.cache_type} cache",
        "wait_policy": {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "default")},
    }


def json_document(facts: Json, result: CellResult, weights: WeightBytes, cycles: list[int], late: int) -> Json:
    rows: list[Json] = []
    for cycle, row in zip([1, *cycles], result.runs, strict=True):
        ideal = weights.ideal(cycle, late)
        gain = ratio(result.runs[0], row)
        rows.append(
            {
                "cycle": cycle,
                "decode": "ordinary" if cycle == 1 else row.run.name,
                "seconds": list(row.samples.values()),
                "tokens_per_second_median": result.rate(row.median),
                "bytes_a_token": weights.a_token(cycle, late),
                "gain": asdict(gain),
                "ideal": ideal,
                "of_ideal": asdict(gain.divided(ideal)),
            }
        )
    return {
        "environment": facts,
        "cell": asdict(result.cell),
        "late_layers": late,
        "cores_taken_by_others": result.disturbance,
        "rows": rows,
    }


def main() -> int:
    options = arguments()
    for path in (options.model, options.longspan, TEXT):
        if not path.is_file():
            print(f"decoding.py: {path} is not there: see README.md for how to get it", file=sys.stderr)
            return 1
    try:
        weights = read_weight_bytes(options.model)
    except (OSError, ValueError) as error:
        print(f"decoding.py: {options.model}: {error}", file=sys.stderr)
        return 1
    late = options.late if options.late is not None else max(1, round(len(weights.layers) * 2 / 9))
    if not 0 < late < len(weights.layers):
        print(f"decoding.py: --late {late} is not between 1 and {len(weights.layers) - 1}", file=sys.stderr)
        return 1
    decodes = ["", *(f"dmtd:cycle={cycle},late={late},early=0,phase=prompt" for cycle in options.cycles)]
    runs = [
        Longspan(options.longspan, options.model, options.threads, options.cache_type, decode) for decode in decodes
    ]
    cell = Cell("generation", options.depth, options.tokens)
    progress = Progress([1])
    try:
        facts = environment(options, weights, late)
        print(describe(facts), end="\n\n", flush=True)
        with Team(options.threads, PROGRAMS / "logs", ()) as team:
            result = measure(cell, runs, options.rounds, team, lambda part: progress.show(0, cell.name, part))
    except (EngineError, OSError) as error:
        progress.clear()
        print(f"decoding.py: {error}", file=sys.stderr)
        return 1
    progress.clear()
    rows, least = table(result, weights, options.cycles, late)
    print(rows)
    bandwidth = weights.total * result.rate(result.runs[0].median) / 1e9
    print(f"\nordinary decoding reads {bandwidth:.1f} GB/s of weights; at least {least:.2f} of the ideal", end="")
    print(f", which {'meets' if least >= TARGET else 'misses'} {TARGET}")
    print(f"load average {facts['load_average']} before, {Path('/proc/loadavg').read_text().strip()} after")
    print(
        f"other programs took {result.disturbance:.2f} cores"
        + (": disturbed" if result.disturbance > DISTURBED else "")
    )
    if options.json:
        document = json_document(facts, result, weights, options.cycles, late)
        options.json.write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
