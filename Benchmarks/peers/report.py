"""The table of a case, the Markdown summary of a run, its JSON and the lines about the machine."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from measure import CaseResult, Result
from processes import JEMALLOC_ENGINES, WAIT_POLICY, Team, find_jemalloc

# Columns of the summary: heading, engine, and one way to call it where not any will do.
OPERATORS = (
    ("torch", "torch", ""),
    ("onnxruntime", "onnxruntime", ""),
    ("openvino", "openvino", ""),
    ("ggml", "ggml", ""),
    ("ggml, its cache layout", "ggml", "flash-cache"),
)
LEGEND = (
    "* fastest peer of any kind   + fastest operator of its library   ratio: peer over longspan\n"
    "error: root mean square of the difference from longspan, or but for dense attention from float64, relative\n"
    "!: more than the tolerance, row not counted"
)
Json = dict[str, object]


def read_first(path: str, default: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return default


def cpu_name() -> str:
    fields = dict[str, str]()
    for line in read_first("/proc/cpuinfo", "").split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    model = fields.get("model name", platform.processor())
    return f"{model} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def last_level_bytes() -> int:
    """The largest cache that the first core sees."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = [32 << 20]
    found = [p.read_text().strip() for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    if found:
        sizes = [int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size) for size in found]
    return max(sizes)


def machine(threads: int) -> Json:
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "last_level_cache_mib": last_level_bytes() / 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "huge_pages": read_first("/sys/kernel/mm/transparent_hugepage/enabled", "unknown"),
        "load_average": read_first("/proc/loadavg", "unknown"),
        "threads": threads,
    }


def environment(team: Team, threads: int) -> Json:
    on_jemalloc = ", ".join(name for name in JEMALLOC_ENGINES if name in team.engines)
    return machine(threads) | {
        "engines": {name: engine.about for name, engine in team.engines.items() if engine.about},
        "allocator": f"jemalloc for {on_jemalloc}" if find_jemalloc() else "jemalloc is not installed",
        "wait_policy": {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "default")} | WAIT_POLICY,
    }


def describe(facts: Json) -> str:
    lines: list[str] = []
    for name, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        if name == "engines" and isinstance(value, dict):
            lines += [f"{engine:22}{about}" for engine, about in value.items()]
        else:
            lines.append(f"{name.replace('_', ' '):22}{text}")
    return "\n".join(lines)


def milliseconds(nanoseconds: float) -> str:
    value = nanoseconds / 1e6
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def marks(result: Result, whole: CaseResult) -> str:
    best = "*" if result is whole.best else " "
    dedicated = "+" if result is not whole.ours and result is whole.best_dedicated(result.call.engine) else " "
    return best + dedicated


def case_table(whole: CaseResult) -> str:
    rotated = "selections" if whole.case.kind == "sparse" else "copies"
    copies = f", {whole.copies} {rotated}" if whole.copies > 1 else ""
    _, unit = whole.case.rate(1)
    header = f"  {'':58}{'calls':>7}{'min ms':>10}{'median':>10}{'ratio':>8}{'of min':>8}{unit:>10}{'error':>10}"
    others = f"other programs took {whole.disturbance:.2f} cores"
    lines = [f"{whole.name}{copies}; {others}", header]
    for result in (whole.ours, *whole.peers):
        name = f"{marks(result, whole)} {result.call.name}"
        if result.failure or not result.samples:
            lines.append(f"{name:60}  failed: {result.failure or 'nothing was timed'}")
            continue
        rate, _ = whole.case.rate(result.minimum)
        flag = "" if result.agrees else "!"
        lines.append(
            f"{name:60}{len(result.samples):7}{milliseconds(result.minimum):>10}{milliseconds(result.median):>10}"
            f"{result.median / whole.ours.median:8.2f}{result.minimum / whole.ours.minimum:8.2f}{rate:10.1f}"
            f"{result.error or 0.0:9.0e}{flag:1}"
        )
    return "\n".join(lines)


def ratio_cell(result: Result | None, ours: Result, with_text: bool) -> str:
    if result is None:
        return "-"
    ratio = f"{result.median / ours.median:.2f}"
    return f"{ratio} {result.call.name if with_text else result.call.dtype}"


def summary(results: Sequence[CaseResult]) -> str:
    """A Markdown table: a line for each case, ratios of medians."""
    lines = [
        "| case | longspan ms | fastest peer | " + " | ".join(heading for heading, _, _ in OPERATORS) + " |",
        "| --- | ---: | --- | " + " | ".join("---:" for _ in OPERATORS) + " |",
    ]
    for whole in results:
        cells = [
            whole.name,
            milliseconds(whole.ours.median),
            ratio_cell(whole.best, whole.ours, with_text=True),
            *(
                ratio_cell(whole.best_dedicated(engine, variant), whole.ours, with_text=False)
                for _, engine, variant in OPERATORS
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def times_cell(result: Result) -> str:
    return f"{milliseconds(result.minimum)} / {milliseconds(result.median)}"


def peer_cells(peer: Result | None, ours: Result) -> list[str]:
    """Its name, its times and the ratios, of minima and of medians."""
    if peer is None:
        return ["-", "-", "-"]
    ratios = f"{peer.minimum / ours.minimum:.2f} / {peer.median / ours.median:.2f}"
    return [peer.call.name, times_cell(peer), ratios]


def pairs_summary(results: Sequence[CaseResult]) -> str:
    """A Markdown table: a line for each case, the fastest composition and the fastest operator; least and median."""
    headings = ("case", "longspan ms", "fastest composition", "ms", "ratio", "fastest operator", "ms", "ratio")
    rules = ("---", "---:", "---", "---:", "---:", "---", "---:", "---:")
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, rules)]
    for whole in results:
        cells = [
            whole.name,
            times_cell(whole.ours),
            *peer_cells(whole.best_composition, whole.ours),
            *peer_cells(whole.best_dedicated(), whole.ours),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def result_row(result: Result, whole: CaseResult) -> Json:
    row: Json = {
        "case": whole.case.name,
        "shape": asdict(whole.case),
        "copies": whole.copies,
        "cores_taken_by_others": whole.disturbance,
        "call": asdict(result.call),
        "failure": result.failure,
        "error": result.error,
        "agrees": result.agrees,
        "calls": len(result.samples),
    }
    if result.samples:
        row |= {
            "ns_min": result.minimum,
            "ns_median": result.median,
            "ratio_median": result.median / whole.ours.median,
            "ratio_min": result.minimum / whole.ours.minimum,
        }
    return row


def json_document(facts: Json, results: Sequence[CaseResult]) -> Json:
    rows = [result_row(result, whole) for whole in results for result in (whole.ours, *whole.peers)]
    return {"environment": facts, "rows": rows}
