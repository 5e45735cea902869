"""Tables and JSON of models.py."""

from collections.abc import Sequence
from dataclasses import asdict

from model_runs import CellResult, Longspan, Ratio, RunResult, Transformers, ratio
from report import Json

LEGEND = (
    "over: how many times as long a peer takes as longspan with that type of cache, medians; in brackets the least\n"
    "and the greatest ratio of a round   * faster one of a peer's rows"
)


def ours(result: CellResult) -> list[RunResult]:
    return [r for r in result.runs if isinstance(r.run, Longspan)]


def best_llama(result: CellResult) -> RunResult | None:
    rows = [r for r in result.runs if not isinstance(r.run, Longspan | Transformers) and r.counts]
    return min(rows, key=lambda r: r.median, default=None)


def transformers_row(result: CellResult) -> RunResult | None:
    return next((r for r in result.runs if isinstance(r.run, Transformers) and r.counts), None)


def is_best(row: RunResult, result: CellResult) -> bool:
    return row is best_llama(result) or row is transformers_row(result)


def number(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def cell_table(result: CellResult) -> str:
    own = ours(result)
    headings = "".join(f"{f'over {r.run.cache_type}':>22}" for r in own if isinstance(r.run, Longspan))
    lines = [
        f"{result.cell.name}; other programs took {result.disturbance:.2f} cores",
        f"  {'':32}{'turns':>6}{'best t/s':>10}{'median':>10}{headings}",
    ]
    for row in result.runs:
        name = f"{'*' if is_best(row, result) else ' '} {row.run.name}"
        if not row.counts:
            lines.append(f"{name:34}  failed: {row.failure or 'nothing was timed'}")
            continue
        ratios = "" if row in own else "".join(f"{ratio(row, r)!s:>22}" for r in own)
        rates = f"{number(result.rate(row.minimum)):>10}{number(result.rate(row.median)):>10}"
        lines.append(f"{name:34}{len(row.samples):6}{rates}{ratios}")
    return "\n".join(lines)


def rates_cell(row: RunResult | None, result: CellResult, with_name: bool = False) -> str:
    if row is None:
        return "-"
    name = f"{row.run.name.rsplit(', ', 1)[-1]}: " if with_name else ""
    return f"{name}{number(result.rate(row.minimum))} / {number(result.rate(row.median))}"


def summary(results: Sequence[CellResult]) -> str:
    """A Markdown table: a line for each cell; tokens/s are those of the fastest turn and of the median one."""
    own = [r.run for r in ours(results[0]) if isinstance(r.run, Longspan)]
    headings = ["tokens/s", *(run.name for run in own), "llama.cpp, f16 cache"]
    headings += [f"times over, {run.cache_type}" for run in own]
    headings += ["transformers", *(f"times over, {run.cache_type}" for run in own)]
    lines = [f"| {' | '.join(headings)} |", f"| --- |{' ---: |' * (len(headings) - 1)}"]
    for result in results:
        rows = ours(result)
        cells = [result.cell.name, *(rates_cell(r, result) for r in rows)]
        for peer, with_name in ((best_llama(result), True), (transformers_row(result), False)):
            cells.append(rates_cell(peer, result, with_name))
            cells += [str(ratio(peer, r)) if peer else "-" for r in rows]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio_json(value: Ratio) -> Json:
    return dict(asdict(value))


def result_row(row: RunResult, result: CellResult) -> Json:
    document: Json = {
        "cell": asdict(result.cell),
        "run": row.run.name,
        "failure": row.failure,
        "cores_taken_by_others": result.disturbance,
        "seconds": list(row.samples.values()),
    }
    if row.counts:
        document |= {
            "tokens_per_second_best": result.rate(row.minimum),
            "tokens_per_second_median": result.rate(row.median),
            "best_of_its_peer": is_best(row, result),
            "times_over": {
                r.run.name: ratio_json(ratio(row, r)) for r in ours(result) if not isinstance(row.run, Longspan)
            },
        }
    return document


def json_document(facts: Json, results: Sequence[CellResult]) -> Json:
    return {"environment": facts, "rows": [result_row(row, result) for result in results for row in result.runs]}
