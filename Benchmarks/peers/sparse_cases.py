"""Sparse decode: one query token over a chosen part of a long cache."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cases import BYTES, Call, Case, DType, Operand

# Calls rotate over at least so many selections, and over more where that takes them to exceed four times the last-level
# cache together, so that none finds in a cache what an earlier one read.
SELECTIONS = 16


@dataclass(frozen=True)
class SparseCase(Case):
    # of the list of a key/value head, and the tokens of an entry
    entries: int = 0
    block: int = 1
    selections: int = SELECTIONS

    @property
    def name(self) -> str:
        shape = f"Hq={self.query_heads} Hk={self.kv_heads} D={self.head_dim} S={self.keys}"
        chosen = f"{self.entries} tokens" if self.block == 1 else f"{self.entries} blocks of {self.block}"
        return f"sparse decode {shape} {chosen} {self.dtype}"

    @property
    def list_shape(self) -> tuple[int, int]:
        return self.entries, self.block

    @property
    def visible_pairs(self) -> int:
        return self.entries * self.block

    @property
    def kv_bytes(self) -> int:
        """Of the keys and values that a call is to see."""
        return 2 * self.kv_heads * self.visible_pairs * self.head_dim * BYTES[self.dtype]

    def copies(self, last_level_bytes: int) -> int:
        """Selections: of the operands there is one copy."""
        return self.selections

    def operands(self) -> dict[str, Operand]:
        """Those of a dense case, and lists [selections, Hk, entries]: distinct entries in random order."""
        generator = np.random.default_rng(2)
        lists = [
            generator.choice(self.keys // self.block, self.entries, replace=False)
            for _ in range(self.selections * self.kv_heads)
        ]
        shape = (self.selections, self.kv_heads, self.entries)
        return {**super().operands(), "lists": np.array(lists, np.int32).reshape(shape)}

    def truth(self, operands: dict[str, Operand]) -> NDArray[np.float64]:
        """Attention in float64 for each selection, [selections, Hq * D]."""
        lists = operands["lists"]
        queries = operands["q"][0].astype(np.float64).reshape(self.kv_heads, -1, self.head_dim)
        shape = (self.kv_heads, -1, self.block, self.head_dim)
        keys, values = operands["k"].reshape(shape), operands["v"].reshape(shape)
        result = np.empty((len(lists), *queries.shape))
        for selection, head in np.ndindex(*lists.shape[:2]):
            k, v = (
                x[head, lists[selection, head]].astype(np.float64).reshape(-1, self.head_dim) for x in (keys, values)
            )
            logits = queries[head] @ k.T / np.sqrt(self.head_dim)
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            result[selection, head] = weights @ v / weights.sum(axis=1, keepdims=True)
        return result.reshape(len(lists), -1)

    @property
    def ours(self) -> Call:
        return Call("longspan", "sparse", self.dtype, "sparse decode", dedicated=True)

    def peers(self) -> list[Call]:
        return [*torch_peers(self), *onnxruntime_peers(self.dtype), *ggml_peers(self.dtype)]


def torch_peers(case: SparseCase) -> list[Call]:
    def composed(variant: str, text: str) -> Call:
        return Call("torch", variant, case.dtype, text, dedicated=False)

    def operator(variant: str, text: str, dtype: DType = case.dtype) -> Call:
        return Call("torch", variant, dtype, text, dedicated=True)

    calls = [
        composed("buffers-matmul", "index_select into buffers, matmuls folded"),
        composed("select-matmul", "index_select, matmuls folded"),
        composed("gather-matmul", "gather, matmuls folded"),
        composed("buffers-folded", "index_select into buffers, SDPA folded"),
        operator("buffers-gqa", "index_select into buffers, SDPA gqa"),
    ]
    if case.dtype != "f32":
        calls.append(composed("buffers-matmul-float", "index_select, to f32, matmuls folded"))
        calls.append(operator("buffers-gqa-float", "index_select, to f32, SDPA gqa"))
    if case.block > 1:
        calls += [operator("flex", "flex_attention, block mask", d) for d in dict.fromkeys((case.dtype, "f32"))]
    return calls


def onnxruntime_peers(dtype: DType) -> list[Call]:
    return [
        Call("onnxruntime", "gather-matmul", dtype, "Gather, MatMuls folded", dedicated=False),
        Call("onnxruntime", "gather-attention", dtype, "Gather, Attention", dedicated=True),
    ]


def ggml_peers(dtype: DType) -> list[Call]:
    return [
        Call("ggml", "rows-matmul", dtype, "get_rows, mul_mats, V transposed, folded", dedicated=False),
        Call("ggml", "rows-product", dtype, "get_rows, mul_mat, out_prod, folded", dedicated=False),
        Call("ggml", "rows-flash-folded", dtype, "get_rows, flash_attn_ext, folded", dedicated=False),
        Call("ggml", "rows-flash", dtype, "get_rows, flash_attn_ext", dedicated=True),
    ]


def sparse_cases(last_level_bytes: int, quick: bool) -> list[SparseCase]:
    dtypes: tuple[DType, ...] = ("bf16",) if quick else ("f32", "f16", "bf16")
    cases = [
        SparseCase("sparse", 32, 8, 128, tokens=1, keys=131072, dtype=dtype, entries=entries, block=block)
        for entries, block in [(2048, 1), (128, 64)]
        for dtype in dtypes
    ]
    return [replace(c, selections=max(SELECTIONS, -(-4 * last_level_bytes // c.kv_bytes))) for c in cases]
