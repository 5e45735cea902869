"""A bar chart of a run as SVG: for each case, how many times as long as ours each peer takes, on a logarithmic axis."""

import math
from collections.abc import Callable, Sequence
from html import escape

from measure import CaseResult, Result

COLOURS = {
    "longspan": "#1b1b1b",
    "torch": "#c8553d",
    "onnxruntime": "#2a7f8e",
    "openvino": "#7a5ba6",
    "ggml": "#8a9a3b",
}
LABEL_WIDTH, BAR_WIDTH, MARGIN = 380, 420, 16
BAR_HEIGHT, CASE_GAP, HEADER = 15, 14, 64
LOWEST = 0.5


def text(x: float, y: float, value: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(value)}</text>'


def bar_chart(results: Sequence[CaseResult], facts: dict[str, object]) -> str:
    ratios = [r.median / c.ours.median for c in results for r in c.peers if r.samples]
    decades = math.log10(max(ratios, default=10.0) / LOWEST)
    left = MARGIN + LABEL_WIDTH

    def position(ratio: float) -> float:
        return left + BAR_WIDTH * max(0.0, math.log10(ratio / LOWEST)) / decades

    parts: list[str] = []
    y = float(HEADER)
    for whole in results:
        y += CASE_GAP + BAR_HEIGHT
        parts.append(text(MARGIN, y - 4, whole.name, 'font-weight="bold"'))
        for result in (whole.ours, *whole.peers):
            parts += bar(result, whole, position, left, y)
            y += BAR_HEIGHT
    width, height = left + BAR_WIDTH + 110, y + MARGIN
    axis = [
        f'<line x1="{position(tick):.1f}" x2="{position(tick):.1f}" y1="{HEADER}" y2="{y:.0f}" stroke="#ddd"/>'
        + text(position(tick), HEADER - 6, f"{tick:g}", 'text-anchor="middle"')
        for tick in (0.5, 1, 2, 5, 10, 20, 50, 100)
        if tick == LOWEST or tick <= max(ratios, default=10.0)
    ]
    heading = [
        text(MARGIN, 22, "Median time of a call over longspan's in the same run", 'font-size="15" font-weight="bold"'),
        text(MARGIN, 40, f"{facts['cpu']}, {facts['threads']} threads; logarithmic axis; longer is slower"),
    ]
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        'font-family="sans-serif" font-size="11" fill="#1b1b1b">'
    )
    background = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([root, background, *heading, *axis, *parts, "</svg>\n"])


def bar(result: Result, whole: CaseResult, position: Callable[[float], float], left: float, y: float) -> list[str]:
    label = text(left - 6, y + 11, result.call.name, 'text-anchor="end"')
    if not result.samples:
        return [label, text(left + 4, y + 11, "failed", 'fill="#b00"')]
    ratio = result.median / whole.ours.median
    end = position(ratio)
    note = "" if result.agrees else " differs"
    return [
        label,
        f'<rect x="{left}" y="{y + 2:.1f}" width="{max(end - left, 1):.1f}" height="{BAR_HEIGHT - 4}" '
        f'fill="{COLOURS[result.call.engine]}"/>',
        text(end + 4, y + 11, f"{ratio:.2f} \u00b7 {result.median / 1e6:.3g} ms{note}"),
    ]
