"""LagKV in float64: scores, selection, and a cache that moves its tokens as it is compressed."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Lag:
    """Parameters: `sink` leading slots stay, of each scored window of `lag` tokens the share `ratio` stays."""

    sink: int
    lag: int
    ratio: float
    value_weight: float = 1.0

    @property
    def keep(self) -> int:
        return int(self.ratio * self.lag)

    def kept_size(self, tokens: int) -> int:
        """Slots left of `tokens`, in closed form."""
        if tokens < self.sink + 2 * self.lag:
            return tokens
        windows, rest = divmod(tokens - self.sink, self.lag)
        return self.sink + self.keep * (windows - 1) + self.lag + rest


def sigmas(window: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Deviations [L] of the tokens of `window` [L, D], each channel scaled by its range in `reference` [L, D]."""
    low, high = reference.min(axis=0), reference.max(axis=0)
    taking_part = high > low
    if taking_part.sum() < 2:
        return np.zeros(len(window))
    low, high = low[taking_part], high[taking_part]
    scaled = (window[:, taking_part] - low) / (high - low)
    return scaled.std(axis=1, ddof=1)


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def window_scores(keys: np.ndarray, values: np.ndarray, lag: Lag) -> np.ndarray:
    """Scores [L] of the first window of `keys` and `values`, both [2 L, D], against the second."""
    parts = [softmax(sigmas(z[: lag.lag], z[lag.lag :])) for z in (keys, values)]
    return parts[0] + lag.value_weight * parts[1]


def highest(scores: np.ndarray, keep: int) -> np.ndarray:
    """Ascending indices [keep] of the highest of `scores` [L]; of equal ones the lowest index goes first."""
    return np.sort(np.argsort(-scores, kind="stable")[:keep])


def boundary_gap(scores: np.ndarray, keep: int) -> float:
    """How far the lowest kept score is above the highest dropped one, over the former; inf if all are kept."""
    if keep == len(scores):
        return math.inf
    ordered = np.sort(scores)[::-1]
    return float((ordered[keep - 1] - ordered[keep]) / ordered[keep - 1])


@dataclass
class Cache:
    """What one layer holds: positions [Hk, slots], keys and values [Hk, slots, D], and what its compressions did."""

    lag: Lag
    positions: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    base: int
    appended: int = 0
    scores: list[np.ndarray] = field(default_factory=list)  # by scored window: [Hk, L]
    kept: list[np.ndarray] = field(default_factory=list)  # by scored window: positions [Hk, K]
    events: list[list[int]] = field(default_factory=list)  # tokens appended so far, slots before and after, base after

    @classmethod
    def empty(cls, lag: Lag, heads: int, dim: int) -> "Cache":
        nothing = np.zeros((heads, 0, dim))
        return cls(lag, np.zeros((heads, 0), dtype=np.int64), nothing, nothing, lag.sink)

    @property
    def slots(self) -> int:
        return self.positions.shape[1]

    def append(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Adds the next tokens; both [tokens, Hk, D]."""
        tokens, heads = keys.shape[:2]
        new = np.broadcast_to(np.arange(self.appended, self.appended + tokens), (heads, tokens))
        self.positions = np.concatenate([self.positions, new], axis=1)
        self.keys = np.concatenate([self.keys, keys.astype(np.float64).transpose(1, 0, 2)], axis=1)
        self.values = np.concatenate([self.values, values.astype(np.float64).transpose(1, 0, 2)], axis=1)
        self.appended += tokens

    def compress(self) -> None:
        """Scores every window that has a whole one behind it, and drops what it does not keep of each."""
        length, keep, before = self.lag.lag, self.lag.keep, self.slots
        windows = (before - self.base) // length
        if windows < 2:
            return
        # All choices come before any move, so that each reference is the whole next window.
        chosen = [self.choose(self.base + index * length) for index in range(windows - 1)]
        tail = np.arange(self.base + (windows - 1) * length, before)
        stay = [
            np.concatenate([np.arange(self.base), *(slots[head] for slots in chosen), tail])
            for head in range(len(self.positions))
        ]
        self.kept += [np.take_along_axis(self.positions, slots, axis=1) for slots in chosen]
        self.positions = np.stack([row[slots] for row, slots in zip(self.positions, stay)])
        self.keys = np.stack([row[slots] for row, slots in zip(self.keys, stay)])
        self.values = np.stack([row[slots] for row, slots in zip(self.values, stay)])
        self.base += (windows - 1) * keep
        self.events.append([self.appended, before, self.slots, self.base])

    def choose(self, first: int) -> np.ndarray:
        """Slots [Hk, K] kept of the window that begins at slot `first`."""
        both = slice(first, first + 2 * self.lag.lag)
        scores = np.stack([window_scores(k[both], v[both], self.lag) for k, v in zip(self.keys, self.values)])
        self.scores.append(scores)
        return first + np.stack([highest(row, self.lag.keep) for row in scores])

    def stacked_scores(self) -> np.ndarray:
        """[Hk, P, L], P scored windows."""
        heads, _, _ = self.keys.shape
        return np.stack(self.scores, axis=1) if self.scores else np.zeros((heads, 0, self.lag.lag))

    def stacked_kept(self) -> np.ndarray:
        """Positions [Hk, P, K]."""
        heads, _, _ = self.keys.shape
        return np.stack(self.kept, axis=1) if self.kept else np.zeros((heads, 0, self.lag.keep), dtype=np.int64)

    def gaps(self) -> np.ndarray:
        """[Hk, P]"""
        scores = self.stacked_scores()
        rows = [boundary_gap(row, self.lag.keep) for row in scores.reshape(-1, self.lag.lag)]
        return np.array(rows).reshape(scores.shape[:2])


def run(keys: np.ndarray, values: np.ndarray, lag: Lag, steps: list[int]) -> Cache:
    """The cache after appending `steps` tokens at a time, compressing after each; keys and values [n, Hk, D]."""
    assert lag.keep > 0 and sum(steps) == len(keys)
    cache = Cache.empty(lag, keys.shape[1], keys.shape[2])
    for count in steps:
        span = slice(cache.appended, cache.appended + count)
        cache.append(keys[span], values[span])
        cache.compress()
    return cache


def schedules(tokens: int, lag: Lag, prefill: int) -> dict[str, list[int]]:
    """Tokens of each append: all at once, window by window, and `prefill` followed by single tokens."""
    first = min(tokens, lag.sink + 2 * lag.lag)
    whole, rest = divmod(tokens - first, lag.lag)
    return {
        "oneshot": [tokens],
        "chunked": [first] + whole * [lag.lag] + ([rest] if rest else []),
        "decode": [prefill] + (tokens - prefill) * [1],
    }


def run_schedules(keys: np.ndarray, values: np.ndarray, lag: Lag, prefill: int) -> dict[str, Cache]:
    """The caches by schedule, found to hold the same tokens and to have given them the same scores."""
    steps = schedules(len(keys), lag, prefill)
    caches = {name: run(keys, values, lag, counts) for name, counts in steps.items()}
    one = caches["oneshot"]
    for cache in caches.values():
        assert cache.slots == lag.kept_size(len(keys))
        assert np.array_equal(cache.positions, one.positions)
        assert np.array_equal(cache.stacked_kept(), one.stacked_kept())
        assert np.array_equal(cache.stacked_scores(), one.stacked_scores())
        assert (np.diff(cache.positions, axis=1) > 0).all()
    return caches
