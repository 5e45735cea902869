"""Time of one call of attention decode where there is nearly nothing to compute: one key (S = 1), 9 query heads, 3 key/value
heads, head_dim 64, a context of one thread. What is left is the cost of the call itself.

    python call_cost.py [--batches 200] [--calls 1000]

Prints a table, ns a call, and the same as a line of JSON. A batch is that many calls in a row; the least and the median of
the batches' means are given.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import longspan
from longspan import torch_ops
from longspan.attention import kernel
from longspan.workspace import workspace

QUERY_HEADS, KV_HEADS, HEAD_DIM = 9, 3, 64


def ways(keys: torch.dtype) -> dict[str, Callable[[], Any]]:
    """What a call can go through, by name. Queries are f32, keys and values of dtype `keys`."""
    query = torch.randn(1, QUERY_HEADS, HEAD_DIM)
    key, value = (torch.randn(1, KV_HEADS, HEAD_DIM).to(keys) for _ in range(2))
    out = torch.empty_like(query)
    arrays = [m.view(torch.uint16).numpy() if m.dtype == torch.bfloat16 else m.numpy() for m in (query, key, value, out)]
    q, k, v, o = arrays
    batch = [m[None].transpose(1, 2) for m in (query, key, value)]

    # the struct as the call below leaves it
    longspan.decode(q, k, v, out=o)
    bound = kernel("lspan_attention_decode")
    size = bound.bytes.value
    arguments = longspan.default_context().address, bound.pointer, workspace.reserve(size), size
    return {
        "ctypes, struct filled once": lambda: bound.run(*arguments),
        "NumPy, out given": lambda: longspan.decode(q, k, v, out=o),
        "NumPy": lambda: longspan.decode(q, k, v),
        "torch, out given": lambda: longspan.decode(query, key, value, out=out),
        "torch": lambda: longspan.decode(query, key, value),
        "torch.ops.longspan.attention": lambda: torch_ops.attention(*batch, 0.125, True),
    }


def measure(call: Callable[[], Any], batches: int, calls: int) -> list[float]:
    """ns a call of each batch, the first of which is left out."""
    times = []
    for _ in range(batches + 1):
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        times.append((time.perf_counter_ns() - start) / calls)
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--calls", type=int, default=1000, help="of a batch")
    options = parser.parse_args()

    longspan.set_default_context(longspan.Context(threads=1))
    torch.set_num_threads(1)
    gc.disable()
    rows = []
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            for name, call in ways(dtype).items():
                times = measure(call, options.batches, options.calls)
                kv = "f32" if dtype == torch.float32 else "bf16"
                rows.append({"call": name, "kv": kv, "min_ns": min(times), "median_ns": statistics.median(times)})
    print(f"{'attention decode, S = 1':32} {'kv':5} {'min ns':>8} {'median':>8}")
    for row in rows:
        print(f"{row['call']:32} {row['kv']:5} {row['min_ns']:8.0f} {row['median_ns']:8.0f}")
    context = longspan.default_context()
    about = {"isa": context.isa, "threads": context.threads, "batches": options.batches, "calls": options.calls}
    versions = {"longspan": longspan.version(), "numpy": np.__version__, "torch": torch.__version__}
    print(json.dumps({**about, **versions, "rows": rows}))


if __name__ == "__main__":
    main()
