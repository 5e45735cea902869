"""Small LagKV cases with random keys and values, and what they are stored as."""

import math
import statistics
from dataclasses import dataclass

import numpy as np

from lagkv import Cache, Lag, run, run_schedules, window_scores
from oracle_io import Blob

# Gaps that a test in float32 can rely on; the seeds are chosen for the widest.
SEEDS = 24
SMALLEST_GAP = 1e-5


@dataclass(frozen=True)
class Random:
    """A case: `edit` names what edit() does to the random keys and values; `prefill` is of the decode schedule."""

    name: str
    dtype: str
    heads: int
    dim: int
    tokens: int
    lag: Lag
    prefill: int
    edit: str = ""


CASES = [
    Random("within-sink", "f32", 2, 8, 3, Lag(5, 7, 0.5), 1),
    Random("just-below", "f32", 2, 8, 17, Lag(4, 7, 0.5), 16),
    Random("just-at", "f32", 2, 8, 18, Lag(4, 7, 0.5), 17),
    *(Random(f"rest-{rest}", "f32", 2, 8, 39 + rest, Lag(4, 7, 0.5), 20 + rest) for rest in range(7)),
    Random("many-windows", "bf16", 1, 8, 220, Lag(4, 7, 0.25), 50),
    Random("f16-lag-7", "f16", 3, 24, 71, Lag(5, 7, 0.25), 40),
    Random("f16-lag-16", "f16", 3, 24, 109, Lag(0, 16, 0.5), 2),
    Random("bf16-lag-16", "bf16", 4, 64, 112, Lag(16, 16, 0.125), 60),
    Random("f32-lag-33", "f32", 1, 64, 200, Lag(3, 33, 0.25), 69),
    Random("f16-lag-33", "f16", 2, 24, 136, Lag(4, 33, 0.125), 100),
    Random("f32-lag-128", "f32", 1, 24, 300, Lag(0, 128, 0.5), 255),
    Random("f16-lag-128", "f16", 1, 128, 401, Lag(16, 128, 0.25), 300),
    Random("bf16-lag-128", "bf16", 1, 24, 527, Lag(16, 128, 0.125), 272),
    Random("all-kept", "bf16", 2, 24, 145, Lag(3, 33, 1.0), 70),
    Random("weight-0", "f32", 2, 24, 90, Lag(4, 16, 0.25, 0.0), 50),
    Random("weight-half", "bf16", 2, 24, 93, Lag(4, 16, 0.25, 0.5), 50),
    Random("scaled-f32", "f32", 2, 24, 95, Lag(4, 16, 0.5), 50, "scale"),
    Random("scaled-f16", "f16", 2, 24, 95, Lag(4, 16, 0.5), 50, "scale"),
    Random("constant-channels", "f32", 2, 8, 103, Lag(2, 16, 0.25), 50, "constant channels"),
    Random("constant-channels-bf16", "bf16", 2, 24, 103, Lag(2, 16, 0.25), 50, "constant channels"),
    Random("one-channel-left", "f16", 1, 8, 44, Lag(2, 7, 0.5), 20, "one channel left"),
    Random("all-equal", "f32", 2, 8, 49, Lag(1, 16, 0.25), 40, "constant last reference"),
]

# Tokens, sink, lag, ratio and slots kept: worked out by hand.
WORKED_SIZES = [
    (4096, 16, 128, 0.5, 2176),
    (4096, 16, 128, 0.25, 1216),
    (65536, 16, 1024, 0.25, 17920),
    (32768, 16, 128, 0.125, 4320),
]
# The products of the last three are below the whole number they would be in exact arithmetic.
KEEPS = [(7, 0.125), (7, 0.25), (33, 0.125), (128, 1.0), (10, 0.3), (100, 0.29), (100, 0.57), (50, 0.58)]


def rounded(x: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """`x` to nearest even in `dtype`: the values in float64, and what is stored (float32, or 16 bits as uint16)."""
    single = x.astype(np.float32)
    if dtype == "f32":
        return single.astype(np.float64), single
    if dtype == "f16":
        half = single.astype(np.float16)
        return half.astype(np.float64), half.view(np.uint16)
    bits = single.view(np.uint32)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return (upper.astype(np.uint32) << 16).view(np.float32).astype(np.float64), upper


def noise(generator: np.random.Generator, tokens: int, heads: int, dim: int) -> np.ndarray:
    """[tokens, heads, dim]: channels of differing mean and spread, and some tokens further out than the rest."""
    mean = generator.normal(size=(heads, dim))
    spread = np.exp(0.5 * generator.normal(size=(heads, dim)))
    further = np.exp(0.3 * generator.normal(size=(tokens, heads, 1)))
    return mean + spread * further * generator.normal(size=(tokens, heads, dim))


def edit(case: Random, keys: np.ndarray, values: np.ndarray) -> None:
    """Changes `keys` and `values` [n, Hk, D] in place."""
    sink, lag = case.lag.sink, case.lag.lag
    if case.edit == "scale":
        keys *= 1000
        values *= 0.01
    elif case.edit == "constant channels":
        values[:, :, 3] = 0.375
        keys[sink + 2 * lag : sink + 3 * lag, :, 5] = -1.3
    elif case.edit == "one channel left":
        values[sink + 2 * lag : sink + 3 * lag, :, 1:] = 0.7
    elif case.edit == "constant last reference":
        # Nothing is scored by how this window itself stands out, only by its lack of any range.
        last = slice(sink + 2 * lag, sink + 3 * lag)
        keys[last], values[last] = 0.7, -0.2


def draw(case: Random, seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Keys and values [n, Hk, D], each in float64 and as stored."""
    generator = np.random.default_rng([*case.name.encode(), seed])
    keys, values = (noise(generator, case.tokens, case.heads, case.dim) for _ in range(2))
    edit(case, keys, values)
    return rounded(keys, case.dtype), rounded(values, case.dtype)


def smallest_gap(cache: Cache) -> float:
    """Of the windows that have a choice that is no tie; inf if there is none."""
    gaps = cache.gaps()
    return float(gaps[gaps > 0].min(initial=math.inf))


def seed_gap(case: Random, seed: int) -> float:
    (keys, _), (values, _) = draw(case, seed)
    return smallest_gap(run(keys, values, case.lag, [case.tokens]))


def add(blobs: dict[str, Blob], array: np.ndarray, kind: str) -> dict[str, object]:
    """`kind` f32 or u16: the file that `array` goes to."""
    return {"type": kind, **blobs[kind].add(array)}


def outcome(blobs: dict[str, Blob], cache: Cache) -> dict[str, object]:
    """The arrays that tell what compression should give."""
    return {
        "scores": add(blobs, cache.stacked_scores(), "f32"),
        "gaps": add(blobs, cache.gaps(), "f32"),
        "kept": add(blobs, cache.positions, "u16"),
    }


def parameters(lag: Lag, tokens: int, heads: int, dim: int) -> dict[str, object]:
    return {
        "tokens": tokens,
        "heads": heads,
        "head_dim": dim,
        "sink": lag.sink,
        "lag": lag.lag,
        "ratio": lag.ratio,
        "keep": lag.keep,
        "value_weight": lag.value_weight,
        "kept_slots": lag.kept_size(tokens),
    }


def finite(gap: float) -> float | None:
    return gap if math.isfinite(gap) else None


def random_case(blobs: dict[str, Blob], case: Random) -> dict[str, object]:
    seed = max(range(SEEDS), key=lambda seed: seed_gap(case, seed))
    (keys, stored_keys), (values, stored_values) = draw(case, seed)
    caches = run_schedules(keys, values, case.lag, case.prefill)
    gap = smallest_gap(caches["oneshot"])
    assert gap > SMALLEST_GAP, (case.name, gap)
    kind = "f32" if case.dtype == "f32" else "u16"
    return {
        "name": case.name,
        "dtype": case.dtype,
        "parameters": parameters(case.lag, case.tokens, case.heads, case.dim),
        "prefill": case.prefill,
        "smallest_gap": finite(gap),
        "events": {name: cache.events for name, cache in caches.items()},
        "arrays": {
            "keys": add(blobs, stored_keys, kind),
            "values": add(blobs, stored_values, kind),
            **outcome(blobs, caches["oneshot"]),
        },
    }


def random_cases(blobs: dict[str, Blob]) -> list[dict[str, object]]:
    check_scores()
    return [random_case(blobs, case) for case in CASES]


def check_scores() -> None:
    """window_scores() against the formulas one number at a time, with exact standard deviations."""
    generator = np.random.default_rng(1)
    lag = Lag(0, 5, 0.5, 0.7)
    arrays = [noise(generator, 10, 1, 6)[:, 0] for _ in range(2)]
    arrays[1][5:, 2] = 0.25
    expected = np.zeros(5)
    for z, weight in zip(arrays, (1.0, 0.7)):
        tokens, columns = z[:5].tolist(), z[5:].T.tolist()
        ranges = [(d, min(column), max(column)) for d, column in enumerate(columns)]
        open_ranges = [(d, low, high) for d, low, high in ranges if high != low]
        deviations = [
            statistics.stdev((token[d] - low) / (high - low) for d, low, high in open_ranges) for token in tokens
        ]
        total = sum(math.exp(sigma) for sigma in deviations)
        expected += [weight * math.exp(sigma) / total for sigma in deviations]
    assert np.allclose(window_scores(*arrays, lag), expected, rtol=1e-13, atol=0)


def size_after(tokens: int, lag: Lag) -> int:
    """Slots after compressing as each token comes, by counting alone."""
    slots, base = 0, lag.sink
    for _ in range(tokens):
        slots += 1
        if slots == base + 2 * lag.lag:
            slots, base = slots - lag.lag + lag.keep, base + lag.keep
    return slots


def sizes() -> list[dict[str, object]]:
    """The worked examples, and every size about the first two compressions of a small cache."""
    small = Lag(3, 5, 0.4)
    rows = [(Lag(sink, lag, ratio), tokens, kept) for tokens, sink, lag, ratio, kept in WORKED_SIZES]
    rows += [(small, tokens, size_after(tokens, small)) for tokens in range(22)]
    for lag, tokens, kept in rows:
        assert kept == lag.kept_size(tokens) == size_after(tokens, lag), (lag, tokens)
    return [
        {"tokens": tokens, "sink": lag.sink, "lag": lag.lag, "ratio": lag.ratio, "kept_slots": kept}
        for lag, tokens, kept in rows
    ]


def keeps() -> list[dict[str, object]]:
    """K of a lag and a ratio; 0 is for the caller to refuse."""
    return [{"lag": lag, "ratio": ratio, "keep": Lag(0, lag, ratio).keep} for lag, ratio in KEEPS]
