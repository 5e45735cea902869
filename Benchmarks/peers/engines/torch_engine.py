"""PyTorch, served to run.py. Argument: the number of threads.

Variants; operands are [1, H, tokens, D] and contiguous, as PyTorch wants them:
  sdpa-gqa        scaled_dot_product_attention with enable_gqa
  sdpa-expanded   the same with K and V repeated for every query head, which is not timed
  sdpa-folded     one token: the query heads of a key/value head become rows of one head, so K and V are read once
  matmul-folded   one token: matmul, softmax, matmul on the same
  sdpa-masked     a window: a boolean mask
  flex            a window: flex_attention, compiled
and those of torch_sparse.py and torch_ssm.py.
"""

import sys
from collections.abc import Callable

import numpy as np
import torch
import torch._dynamo
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import torch_sparse
import torch_ssm
from engine import Case, Floats, Row, serve
from torch_sparse import DTYPES


def window_rule(window: int) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key > query - window)

    return sees


def sdpa(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    causal = case.tokens > 1
    match case.variant:
        case "sdpa-gqa":
            return lambda: scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        case "sdpa-expanded":
            k, v = (x.repeat_interleave(case.group, dim=1) for x in (k, v))
            return lambda: scaled_dot_product_attention(q, k, v, is_causal=causal)
        case "sdpa-folded":
            q = q.view(1, case.kv_heads, case.group, case.head_dim)
            return lambda: scaled_dot_product_attention(q, k, v)
        case "sdpa-masked":
            position = torch.arange(case.tokens)
            mask = window_rule(case.window)(position, position, position[:, None], position[None, :])
            k, v = (x.repeat_interleave(case.group, dim=1) for x in (k, v))
            return lambda: scaled_dot_product_attention(q, k, v, attn_mask=mask)
    raise ValueError(f"unknown variant {case.variant}")


def matmul_folded(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    q = q.view(case.kv_heads, case.group, case.head_dim)
    k, v = k[0].transpose(1, 2), v[0]
    scale = case.head_dim**-0.5
    return lambda: torch.bmm(torch.softmax(torch.bmm(q * scale, k), dim=-1), v)


def flex(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    blocks = create_block_mask(window_rule(case.window), None, None, case.tokens, case.keys, device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)
    # compiles now, so that no timed call does
    compiled(q, k, v, block_mask=blocks, enable_gqa=True)
    return lambda: compiled(q, k, v, block_mask=blocks, enable_gqa=True)


def prepare(case: Case) -> Row:
    if case.state:
        return torch_ssm.prepare(case)
    if case.entries:
        return torch_sparse.prepare(case)
    dtype = DTYPES[case.dtype]
    queries = torch.from_numpy(case.queries()).to(dtype).transpose(0, 1)[None].contiguous()
    keys, values = (torch.from_numpy(x).to(dtype)[None] for x in case.keys_and_values())
    calls: list[Callable[[], object]] = []
    for _ in range(case.copies):
        # the clones lie in memory of PyTorch's allocator
        q, k, v = queries.clone(), keys.clone(), values.clone()
        make = {"matmul-folded": matmul_folded, "flex": flex}.get(case.variant, sdpa)
        calls.append(make(case, q, k, v))

    def output(result: object) -> Floats:
        assert isinstance(result, Tensor)
        heads_first = result.float().reshape(case.query_heads, case.tokens, case.head_dim)
        return np.ascontiguousarray(heads_first.transpose(0, 1).numpy())

    return Row(calls, output)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    torch.set_grad_enabled(False)
    # beyond this many shapes flex_attention would quietly run uncompiled
    torch._dynamo.config.recompile_limit = 64
    capability = torch.backends.cpu.get_cpu_capability()
    serve(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {capability}", prepare)
