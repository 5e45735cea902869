"""Attention under the chunk mask of lag-relative sparse attention, and by reading window by window, in float64."""

import math
from dataclasses import dataclass

import numpy as np

from lagkv import Cache, Lag, run
from lagkv_cases import add, noise, parameters, rounded
from oracle_io import Blob


@dataclass(frozen=True)
class Attention:
    """The last `queries` of `tokens` are queries, of `heads` heads."""

    name: str
    heads: int
    kv_heads: int
    dim: int
    tokens: int
    queries: int
    raw_windows: int
    lag: Lag


# With one raw window a query in a last window that is not whole would see nothing of the one before it, for which no
# choice has been made yet: such windows come with two.
CASES = [
    Attention("used-then-compressed", 4, 2, 16, 3 + 5 * 7 + 4, 3 + 5 * 7 + 4, 2, Lag(3, 7, 0.5)),
    Attention("compressed-then-used", 4, 2, 16, 3 + 5 * 7, 3 + 5 * 7, 1, Lag(3, 7, 0.5)),
    Attention("last-queries", 3, 1, 24, 5 + 6 * 16 + 9, 37, 2, Lag(5, 16, 0.25)),
    Attention("last-queries-compressed", 3, 1, 24, 5 + 6 * 16, 21, 1, Lag(5, 16, 0.25)),
    Attention("no-sink-all-kept", 2, 2, 8, 6 * 5 + 2, 6 * 5 + 2, 2, Lag(0, 5, 1.0)),
]


def visible(case: Attention, kept: np.ndarray) -> np.ndarray:
    """What each token sees, [Hk, n, n]; `kept` [Hk, P, K]."""
    seen = np.zeros((case.kv_heads, case.tokens, case.tokens), dtype=bool)
    sink, lag = case.lag.sink, case.lag.lag
    for query in range(case.tokens):
        window = (query - sink) // lag if query >= sink else 0
        first_raw = max(0, window - case.raw_windows + 1)
        seen[:, query, :sink] = True
        seen[:, query, sink + first_raw * lag :] = True
        for head in range(case.kv_heads):
            seen[head, query, kept[head, :first_raw].reshape(-1)] = True
        seen[:, query, query + 1 :] = False
    return seen


def attend(q: np.ndarray, keys: np.ndarray, values: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """Output [D] and log-sum-exp of one query [D] over keys and values [S, D]."""
    scores = scale * (keys @ q)
    highest = scores.max()
    total = np.exp(scores - highest).sum()
    return np.exp(scores - highest) @ values / total, float(highest + math.log(total))


def by_mask(
    case: Attention, q: np.ndarray, k: np.ndarray, v: np.ndarray, kept: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Output [n, Hq, D] and log-sum-exp [n, Hq] of every token; q [n, Hq, D], k and v [n, Hk, D]."""
    seen = visible(case, kept)
    out, lse = np.zeros(q.shape), np.zeros(q.shape[:2])
    for token in range(case.tokens):
        for head in range(case.heads):
            group = head // (case.heads // case.kv_heads)
            slots = seen[group, token]
            out[token, head], lse[token, head] = attend(q[token, head], k[slots, group], v[slots, group], scale)
    return out, lse


def by_reading(
    case: Attention, q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The same from a cache that reads a window at a time, and is used before or after it is compressed."""
    out, lse = np.zeros(q.shape), np.zeros(q.shape[:2])
    cache = Cache.empty(case.lag, case.kv_heads, case.dim)
    while cache.appended < case.tokens:
        first = cache.appended
        span = slice(first, min(case.tokens, first + case.lag.lag + (case.lag.sink if first == 0 else 0)))
        cache.append(k[span], v[span])
        if case.raw_windows == 1:
            cache.compress()
        for token in range(first, span.stop):
            for head in range(case.heads):
                group = head // (case.heads // case.kv_heads)
                behind = cache.positions[group] <= token
                found = attend(q[token, head], cache.keys[group, behind], cache.values[group, behind], scale)
                out[token, head], lse[token, head] = found
        if case.raw_windows == 2:
            cache.compress()
    return out, lse


def attention_case(blobs: dict[str, Blob], case: Attention) -> dict[str, object]:
    generator = np.random.default_rng([*case.name.encode()])
    q, stored_q = rounded(generator.normal(size=(case.tokens, case.heads, case.dim)), "f32")
    k, stored_k = rounded(noise(generator, case.tokens, case.kv_heads, case.dim), "f32")
    v, stored_v = rounded(noise(generator, case.tokens, case.kv_heads, case.dim), "f32")
    scale = float(np.float32(1 / math.sqrt(case.dim)))
    kept = run(k, v, case.lag, [case.tokens]).stacked_kept()
    out, lse = by_mask(case, q, k, v, kept, scale)
    for found, expected in zip(by_reading(case, q, k, v, scale), (out, lse)):
        assert np.allclose(found, expected, rtol=1e-12, atol=1e-12), case.name
    last = slice(case.tokens - case.queries, None)
    return {
        "name": case.name,
        "parameters": {
            **parameters(case.lag, case.tokens, case.kv_heads, case.dim),
            "query_heads": case.heads,
            "queries": case.queries,
            "raw_windows": case.raw_windows,
            "kept_windows": kept.shape[1],
            "scale": scale,
        },
        "arrays": {
            "q": add(blobs, stored_q[last], "f32"),
            "k": add(blobs, stored_k, "f32"),
            "v": add(blobs, stored_v, "f32"),
            "kept": add(blobs, kept, "u16"),
            "out": add(blobs, out[last], "f32"),
            "lse": add(blobs, lse[last], "f32"),
        },
    }


def check_mask() -> None:
    """The mask of eight tokens drawn out: sink 1, lag 2, two raw windows, slots 1 and 4 kept."""
    rows = ["1.......", "11......", "111.....", "1111....", "11111...", "11.111..", "11.1111.", "11..1111"]
    case = Attention("", 1, 1, 1, 8, 8, 2, Lag(1, 2, 0.5))
    drawn = np.array([[mark == "1" for mark in row] for row in rows])
    assert np.array_equal(visible(case, np.array([[[1], [4]]]))[0], drawn)


def attention_cases(blobs: dict[str, Blob]) -> list[dict[str, object]]:
    check_mask()
    return [attention_case(blobs, case) for case in CASES]
