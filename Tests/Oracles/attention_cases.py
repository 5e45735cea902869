"""Attention cases in float64: grouped queries, masks, soft-cap, ragged batches."""

import math

import numpy as np
import torch

from oracle_io import Blob

# One record of the table that C reads: see attention_table.
RECORD_WORDS = 24

# Each sequence is (query tokens, key tokens). `spread` scales the queries; `kv` is a type that holds
# every key and value of the case exactly.
CASES: dict[str, dict[str, object]] = {
    "decode": {"heads": 6, "kv_heads": 2, "dim": 64, "sequences": [(1, 37)]},
    "square": {"heads": 3, "kv_heads": 1, "dim": 24, "sequences": [(33, 33)]},
    "chunk": {"heads": 4, "kv_heads": 2, "dim": 32, "sequences": [(7, 45)]},
    "more-queries": {"heads": 2, "kv_heads": 2, "dim": 16, "sequences": [(12, 5)]},
    "window": {"heads": 4, "kv_heads": 1, "dim": 16, "window": 8, "sequences": [(20, 37)]},
    "window-sinks": {"heads": 3, "kv_heads": 1, "dim": 24, "window": 6, "sinks": 3, "sequences": [(29, 29)]},
    "window-one": {"heads": 1, "kv_heads": 1, "dim": 8, "window": 1, "sinks": 2, "sequences": [(9, 14)]},
    "softcap": {"heads": 2, "kv_heads": 1, "dim": 40, "softcap": 5.0, "spread": 6.0, "sequences": [(9, 31)]},
    "ragged": {"heads": 6, "kv_heads": 2, "dim": 16, "sequences": [(5, 17), (1, 23), (2, 0), (9, 9)]},
    "ragged-all": {
        "heads": 8, "kv_heads": 1, "dim": 8, "window": 5, "sinks": 2, "softcap": 20.0, "scale": 0.7,
        "sequences": [(0, 4), (3, 19), (6, 4), (1, 1)],
    },
    "full": {"heads": 3, "kv_heads": 1, "dim": 80, "causal": False, "sequences": [(6, 21)]},
    "full-more-queries": {"heads": 2, "kv_heads": 1, "dim": 8, "causal": False, "sequences": [(7, 3)]},
    "wide": {"heads": 4, "kv_heads": 1, "dim": 256, "sequences": [(2, 11)]},
    "large-scores": {"heads": 2, "kv_heads": 1, "dim": 16, "spread": 3e3, "sequences": [(5, 19)]},
    "equal-scores": {"heads": 2, "kv_heads": 1, "dim": 8, "spread": 0.0, "sequences": [(4, 13)]},
    "f16": {"heads": 2, "kv_heads": 1, "dim": 24, "kv": "f16", "sequences": [(3, 21)]},
    "bf16": {"heads": 2, "kv_heads": 1, "dim": 24, "kv": "bf16", "sequences": [(3, 21)]},
}  # fmt: skip


def visible(queries: int, keys: int, causal: bool, window: int, sinks: int) -> torch.Tensor:
    """Mask [queries, keys]: query i stands at key position keys - queries + i."""
    position = torch.arange(queries)[:, None] + keys - queries
    key = torch.arange(keys)[None, :]
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if window > 0:
        seen &= (key > position - window) | (key < sinks)
    if causal:
        seen &= key <= position
    return seen


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, softcap: float, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [T, heads, dim] and log-sum-exp [T, heads]; a row that sees nothing gives 0 and -inf."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = scale * torch.einsum("thd,shd->hts", q, k)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, -math.inf)
    lse = scores.logsumexp(-1)
    weights = torch.where(seen.any(-1)[:, None], (scores - lse[..., None]).exp(), 0.0)
    return torch.einsum("hts,shd->thd", weights, v), lse.T


def attention_case(blob: Blob, generator: torch.Generator, name: str, case: dict) -> dict[str, object]:
    lengths = case["sequences"]
    heads, kv_heads, dim = case["heads"], case["kv_heads"], case["dim"]
    queries, keys = sum(t for t, _ in lengths), sum(s for _, s in lengths)
    kv = case.get("kv", "f32")
    kv_type = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kv]
    q = case.get("spread", 1.5) * torch.randn(queries, heads, dim, generator=generator)
    k = torch.randn(keys, kv_heads, dim, generator=generator).to(kv_type).float()
    v = torch.randn(keys, kv_heads, dim, generator=generator).to(kv_type).float()
    scale = float(np.float32(case.get("scale", 1 / math.sqrt(dim))))
    causal, softcap = case.get("causal", True), case.get("softcap", 0.0)
    window, sinks = case.get("window", 0), case.get("sinks", 0)

    outs, sums = [], []
    first_query = first_key = 0
    for t, s in lengths:
        rows, columns = slice(first_query, first_query + t), slice(first_key, first_key + s)
        seen = visible(t, s, causal, window, sinks)
        out, lse = attend(q[rows].double(), k[columns].double(), v[columns].double(), scale, softcap, seen)
        outs.append(out)
        sums.append(lse)
        first_query, first_key = first_query + t, first_key + s
    return {
        "kernel": "attention",
        "name": name,
        "parameters": {
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": dim,
            "causal": causal,
            "window": window,
            "sinks": sinks,
            "softcap": softcap,
            "scale": scale,
            "kv": kv,
            "query_lengths": [t for t, _ in lengths],
            "key_lengths": [s for _, s in lengths],
        },
        "arrays": {
            "q": blob.add(q),
            "k": blob.add(k),
            "v": blob.add(v),
            "out": blob.add(torch.cat(outs)),
            "lse": blob.add(torch.cat(sums)),
        },
    }


def attention_cases(blob: Blob, generator: torch.Generator) -> list[dict[str, object]]:
    return [attention_case(blob, generator, name, case) for name, case in CASES.items()]


def attention_table(cases: list[dict[str, object]]) -> np.ndarray:
    """The cases as records of 32-bit words.

    0 heads, 1 kv_heads, 2 head_dim, 3 causal, 4 window, 5 sinks, 6 bits of softcap, 7 bits of scale,
    8 kv (0 f32, 1 f16, 2 bf16), 9 sequences, 10-13 query lengths, 14-17 key lengths,
    18-22 offsets of q, k, v, out, lse in floats, 23 zero.
    """
    table = np.zeros((len(cases), RECORD_WORDS), dtype=np.uint32)
    for record, case in zip(table, cases):
        p, arrays = case["parameters"], case["arrays"]
        keys = ("heads", "kv_heads", "head_dim", "causal", "window", "sinks")
        record[:6] = [int(p[key]) for key in keys]
        record[6:8] = np.array([p["softcap"], p["scale"]], dtype=np.float32).view(np.uint32)
        record[8] = ("f32", "f16", "bf16").index(p["kv"])
        count = len(p["query_lengths"])
        record[9] = count
        record[10 : 10 + count] = p["query_lengths"]
        record[14 : 14 + count] = p["key_lengths"]
        record[18:23] = [arrays[key]["offset"] for key in ("q", "k", "v", "out", "lse")]
    return table
