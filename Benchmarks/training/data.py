"""The training mixture: English prose with facts inserted early and asked for late.

Token ids 0...255 are bytes. A fact is `<|fact|> K V <|end|>`, a question `<|query|> K <|is|> V`;
keys are the letters A...Z, values the letters a...z.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FACT, IS, QUERY, END = 256, 257, 258, 259
SPECIAL_TOKENS = ["<|fact|>", "<|is|>", "<|query|>", "<|end|>"]
VOCABULARY = 256 + len(SPECIAL_TOKENS)
KEYS = np.arange(ord("A"), ord("Z") + 1)
VALUES = np.arange(ord("a"), ord("z") + 1)
UNIT = 4  # tokens of a fact, and of a question with its answer

IGNORED, TEXT, ANSWER = 0, 1, 2  # what a token is to the loss, as the target of the token before it


@dataclass
class Sample:
    tokens: np.ndarray  # int64, one sequence
    kinds: np.ndarray  # IGNORED, TEXT or ANSWER for each token


def load(files: list[Path]) -> np.ndarray:
    """The files' bytes in a row."""
    return np.concatenate([np.frombuffer(f.read_bytes(), np.uint8) for f in files]).astype(np.int64)


def compose(
    filler: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    fact_places: np.ndarray,
    query_order: np.ndarray,
    query_places: np.ndarray,
) -> Sample:
    """Inserts fact i after `fact_places[i]` bytes of filler and question j after `query_places[j]`."""
    pieces: list[np.ndarray] = []
    kinds: list[np.ndarray] = []
    at = 0

    def add_filler(end: int) -> None:
        nonlocal at
        pieces.append(filler[at:end])
        kinds.append(np.full(end - at, TEXT))
        at = end

    for i, place in enumerate(fact_places):
        add_filler(int(place))
        pieces.append(np.array([FACT, keys[i], values[i], END]))
        kinds.append(np.full(UNIT, IGNORED))
    for i, place in zip(query_order, query_places):
        add_filler(int(place))
        pieces.append(np.array([QUERY, keys[i], IS, values[i]]))
        kinds.append(np.array([IGNORED, IGNORED, IGNORED, ANSWER]))
    add_filler(len(filler))
    return Sample(np.concatenate(pieces), np.concatenate(kinds))


def draw_filler(rng: np.random.Generator, text: np.ndarray, count: int) -> np.ndarray:
    start = int(rng.integers(0, len(text) - count))
    return text[start : start + count]


def draw(rng: np.random.Generator, text: np.ndarray, length: int, facts: int) -> Sample:
    """One training sequence: facts within the first half of the filler, every one asked for in the second.

    How far each group spreads is drawn too, from "back to back" to half the filler.
    """
    keys = rng.permutation(KEYS)[:facts]
    values = rng.choice(VALUES, facts)
    filler = draw_filler(rng, text, length - 2 * UNIT * facts)
    half = len(filler) // 2
    fact_places = np.sort(rng.integers(0, rng.integers(0, half + 1) + 1, facts))
    query_places = len(filler) - np.sort(rng.integers(0, rng.integers(0, half + 1) + 1, facts))[::-1]
    return compose(filler, keys, values, fact_places, rng.permutation(facts), query_places)


def batch(
    rng: np.random.Generator, text: np.ndarray, size: int, length: int, facts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and kinds, (size, length); every sequence holds between 2 and `facts` facts."""
    samples = [draw(rng, text, length, int(rng.integers(2, facts + 1))) for _ in range(size)]
    return np.stack([s.tokens for s in samples]), np.stack([s.kinds for s in samples])


def recall_prompt(
    rng: np.random.Generator, text: np.ndarray, length: int, facts: int, depth: float
) -> Sample:
    """The evaluation prompt: all facts back to back at `depth` (0 = start), all questions at the end."""
    keys = rng.permutation(KEYS)[:facts]
    values = rng.choice(VALUES, facts)
    filler = draw_filler(rng, text, length - 2 * UNIT * facts)
    place = int(depth * len(filler))
    return compose(
        filler, keys, values, np.full(facts, place), rng.permutation(facts), np.full(facts, len(filler))
    )
