"""PyTorch on listed keys: one query token, a list for each key/value head, entries of one token or of a block.

What is listed is copied out, and attention is what PyTorch has for keys that lie together. Variants, which name how
keys and values are copied and what is then called:
  buffers-matmul     index_select of both heads and entries at once, into buffers that are kept
  select-matmul      the same into new tensors
  gather-matmul      torch.gather over the heads' lists, expanded to the elements of an entry
  buffers-folded     scaled_dot_product_attention, the query heads of a key/value head as rows of one head
  buffers-gqa        scaled_dot_product_attention with enable_gqa
  buffers-*-float    the same as without, what was copied converted to f32 first
  flex               flex_attention, compiled; its block mask has the lists, and nothing is copied
`matmul` is bmm, softmax, bmm, the query heads of a key/value head as rows of one product.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from engine import Case, Floats, Row

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

Copier = Callable[[Tensor], tuple[Tensor, Tensor]]
Attention = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Cache:
    """Keys and values, [Hk, S, D] each."""

    keys: Tensor
    values: Tensor


# Rows of a case share one copy: at 131072 tokens each has 0.5 or 1 GiB.
caches: WeakValueDictionary[tuple[Path, str], Cache] = WeakValueDictionary()


def shared_cache(case: Case) -> Cache:
    key = (case.folder, case.dtype)
    cache = caches.get(key)
    if cache is None:
        # copies, so that they lie in memory of PyTorch's allocator
        keys, values = (torch.from_numpy(x).to(DTYPES[case.dtype], copy=True) for x in case.keys_and_values())
        cache = caches[key] = Cache(keys, values)
    return cache


def flat_lists(case: Case) -> list[Tensor]:
    """[Hk * entries] for each call: rows of the cache as [Hk * S / block, block * D]."""
    first = np.arange(case.kv_heads)[:, None] * (case.keys // case.block)
    return [torch.from_numpy((entries + first).reshape(-1)) for entries in case.lists()]


def select(case: Case, cache: Cache) -> Copier:
    """Copies rows [Hk * entries] of the flat cache into new [Hk, n, D]."""
    shape = (case.kv_heads, -1, case.head_dim)
    keys, values = (x.view(-1, case.block * case.head_dim) for x in (cache.keys, cache.values))
    return lambda rows: (keys.index_select(0, rows).view(shape), values.index_select(0, rows).view(shape))


def select_into(case: Case, cache: Cache) -> Copier:
    """As select, into buffers that every call writes anew."""
    shape = (case.kv_heads, -1, case.head_dim)
    keys, values = (x.view(-1, case.block * case.head_dim) for x in (cache.keys, cache.values))
    buffers = [torch.empty(case.kv_heads * case.entries, x.shape[1], dtype=x.dtype) for x in (keys, values)]

    def copy(rows: Tensor) -> tuple[Tensor, Tensor]:
        torch.index_select(keys, 0, rows, out=buffers[0])
        torch.index_select(values, 0, rows, out=buffers[1])
        return buffers[0].view(shape), buffers[1].view(shape)

    return copy


def gather(case: Case, cache: Cache) -> Copier:
    """Copies entries [Hk, entries, block * D], expanded, of the cache as [Hk, S / block, block * D]."""
    shape = (case.kv_heads, -1, case.head_dim)
    keys, values = (x.view(case.kv_heads, -1, case.block * case.head_dim) for x in (cache.keys, cache.values))
    return lambda entries: (keys.gather(1, entries).view(shape), values.gather(1, entries).view(shape))


def attention(case: Case, query: Tensor) -> Attention:
    """Attention of query [Hq, D] over [Hk, n, D]."""
    if case.variant.endswith("-float"):
        attend = attention(replace(case, variant=case.variant.removesuffix("-float")), query.float())
        return lambda k, v: attend(k.float(), v.float())
    folded = query.view(case.kv_heads, case.group, case.head_dim)
    scale = case.head_dim**-0.5
    match case.variant.partition("-")[2]:
        case "matmul":
            return lambda k, v: torch.bmm(torch.softmax(torch.bmm(folded * scale, k.transpose(1, 2)), dim=-1), v)
        case "folded":
            return lambda k, v: scaled_dot_product_attention(folded[None], k[None], v[None])
        case "gqa":
            heads = query.view(1, case.query_heads, 1, case.head_dim)
            return lambda k, v: scaled_dot_product_attention(heads, k[None], v[None], enable_gqa=True)
    raise ValueError(f"unknown variant {case.variant}")


def copied_calls(case: Case, cache: Cache, query: Tensor) -> list[Callable[[], object]]:
    attend = attention(case, query)
    copier = {"select": select, "buffers": select_into, "gather": gather}[case.variant.partition("-")[0]](case, cache)
    if case.variant.startswith("gather"):
        width = case.block * case.head_dim
        lists = [torch.from_numpy(x.astype(np.int64))[:, :, None].expand(-1, -1, width) for x in case.lists()]
    else:
        lists = flat_lists(case)
    return [lambda rows=rows: attend(*copier(rows)) for rows in lists]


def block_mask(case: Case, entries: Tensor) -> BlockMask:
    """The mask of lists [Hk, entries]: whole blocks, none that flex_attention would have to mask."""
    shape = (1, case.query_heads, 1)
    indices = torch.zeros(*shape, case.keys // case.block, dtype=torch.int32)
    indices[0, :, 0, : case.entries] = entries.repeat_interleave(case.group, dim=0)
    counts = torch.full(shape, case.entries, dtype=torch.int32)
    return BlockMask.from_kv_blocks(
        torch.zeros_like(counts),
        torch.zeros_like(indices),
        counts,
        indices,
        BLOCK_SIZE=(case.block, case.block),
        seq_lengths=(1, case.keys),
        compute_q_blocks=False,
    )


def flex_calls(case: Case, cache: Cache, query: Tensor) -> list[Callable[[], object]]:
    compiled = torch.compile(flex_attention, dynamic=False)
    q, k, v = query.view(1, case.query_heads, 1, case.head_dim), cache.keys[None], cache.values[None]
    masks = [block_mask(case, torch.from_numpy(entries)) for entries in case.lists()]
    # compiles now, so that no timed call does
    compiled(q, k, v, block_mask=masks[0], enable_gqa=True)
    return [lambda mask=mask: compiled(q, k, v, block_mask=mask, enable_gqa=True) for mask in masks]


def prepare(case: Case) -> Row:
    cache = shared_cache(case)
    query = torch.from_numpy(case.queries()[0]).to(DTYPES[case.dtype])
    calls = (flex_calls if case.variant == "flex" else copied_calls)(case, cache, query)

    def output(result: object) -> Floats:
        assert isinstance(result, Tensor)
        return result.float().reshape(1, case.query_heads, case.head_dim).numpy()

    return Row(calls, output, kept=[cache])
