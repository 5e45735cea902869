"""Times attention and state-space layers of this library beside PyTorch, onnxruntime, OpenVINO and ggml, in turns."""

import argparse
import json
import os
import re
import sys
from functools import partial
from pathlib import Path

from cases import Case, all_cases
from measure import CaseResult, CaseTimer
from plot import bar_chart
from processes import ENGINES, PROGRAMS, EngineError, Team
from progress import Progress
from report import (
    LEGEND,
    case_table,
    describe,
    environment,
    json_document,
    last_level_bytes,
    pairs_summary,
    summary,
)
from sparse_cases import sparse_cases
from ssm_cases import ssm_cases


def weight(case: Case, seconds: float) -> float:
    """What a case is likely to take."""
    # peers make at least four calls
    return sum(max(seconds, 4 * case.peer_seconds) + 1 for _ in range(1 + len(case.peers())))


def pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter", type=pattern, default=pattern(""), metavar="REGEX", help="cases whose name has it")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every library")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each call gets in a case")
    parser.add_argument("--seconds", type=float, default=1.5, help="time for each call of a case, over all rounds")
    parser.add_argument("--quick", action="store_true", help="fewer cases and half a second for each call")
    parser.add_argument("--list", action="store_true", help="print the cases and what is timed in each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row there")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw a bar chart there")
    options = parser.parse_args()
    if options.threads < 1 or options.rounds < 1 or options.seconds <= 0:
        parser.error("--threads, --rounds and --seconds must be positive")
    if options.quick:
        options.seconds = min(options.seconds, 0.5)
    return options


def measure(team: Team, cases: list[Case], options: argparse.Namespace) -> list[CaseResult]:
    progress = Progress([weight(case, options.seconds) for case in cases])
    results: list[CaseResult] = []
    for index, case in enumerate(cases):
        copies = case.copies(last_level_bytes())
        show = partial(progress.show, index, case.name)
        show(0)
        result = CaseTimer(team, case, copies, options.rounds, options.seconds, show).run()
        results.append(result)
        progress.clear()
        print(case_table(result), end="\n\n", flush=True)
    return results


def main() -> int:
    options = arguments()
    everything = [
        *all_cases(last_level_bytes(), options.quick),
        *sparse_cases(last_level_bytes(), options.quick),
        *ssm_cases(options.quick),
    ]
    cases = [c for c in everything if options.filter.search(c.name)]
    if options.list:
        for case in cases:
            print(case.name, *(f"  {call.name}" for call in (case.ours, *case.peers())), sep="\n")
        return 0
    if not cases:
        print(f"run.py: no case matches {options.filter.pattern!r}; --list shows them", file=sys.stderr)
        return 1
    try:
        with Team(options.threads, PROGRAMS / "logs") as team:
            wanted = {call.engine for case in cases for call in (case.ours, *case.peers())}
            for name in ENGINES:
                if name in wanted:
                    team[name].start()
            facts = environment(team, options.threads)
            print(describe(facts), LEGEND, sep="\n\n", end="\n\n", flush=True)
            results = measure(team, cases, options)
            facts["load_average_after"] = Path("/proc/loadavg").read_text().strip()
            facts["busy_switches"] = team.busy_switches
    except (EngineError, OSError) as error:
        print(f"run.py: {error}; has setup.sh been run?", file=sys.stderr)
        return 1
    dense = [r for r in results if r.case.kind in ("decode", "prefill")]
    others = [r for r in results if r.case.kind not in ("decode", "prefill")]
    print(*([summary(dense)] if dense else []), *([pairs_summary(others)] if others else []), sep="\n\n")
    print(f"\nload average {facts['load_average']} before, {facts['load_average_after']} after")
    print(f"other programs took up to {max(r.disturbance for r in results):.2f} cores")
    print(f"switches to a library while another was still busy: {facts['busy_switches']}")
    if options.json:
        options.json.write_text(json.dumps(json_document(facts, results), indent=1))
    if options.plot:
        options.plot.write_text(bar_chart(results, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
