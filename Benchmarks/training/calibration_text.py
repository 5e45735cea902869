"""Writes a text for `longspan calibrate`: windows of the training mixture, facts and questions as their marker tokens."""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from data import SPECIAL_TOKENS, draw, draw_filler, load

LEAD = 10  # tokens that longspan leaves out before each window


def spell(tokens: np.ndarray) -> str:
    return "".join(SPECIAL_TOKENS[t - 256] if t >= 256 else chr(t) for t in tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    text = load(options.text)
    parts: list[str] = []
    while len(parts) < options.windows:
        tokens = np.concatenate([draw_filler(rng, text, LEAD), draw(rng, text, options.length, options.facts).tokens])
        # a character of several bytes could be cut in two
        if not np.any((tokens >= 128) & (tokens < 256)):
            parts.append(spell(tokens))
    options.output.write_text("".join(parts), encoding="ascii", newline="")


if __name__ == "__main__":
    main()
