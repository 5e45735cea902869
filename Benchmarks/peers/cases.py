"""The shapes, and which calls of which library are timed at each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DType = Literal["f32", "f16", "bf16"]
Operand = NDArray[np.float32] | NDArray[np.int32]
Kind = Literal["decode", "prefill", "sparse", "selective-scan", "selective-update", "ssd-scan", "ssd-update", "conv"]

BYTES: dict[str, int] = {"f32": 4, "f16": 2, "bf16": 2}
# A wrong mask or layout is off by about 1; how far a peer's own roundings go is a column of the table.
TOLERANCE: dict[str, float] = {"f32": 1e-3, "f16": 0.1, "bf16": 0.1}


@dataclass(frozen=True)
class Call:
    """One way to ask one library for what a case is about."""

    engine: str
    variant: str
    dtype: DType
    text: str
    # an operator of the library for it, not a composition of simpler ones or a reshaped problem
    dedicated: bool

    @property
    def name(self) -> str:
        return f"{self.engine} {self.text} {self.dtype}"


@dataclass(frozen=True)
class Case:
    kind: Kind
    query_heads: int
    kv_heads: int
    head_dim: int
    tokens: int
    keys: int
    dtype: DType
    window: int = 0
    cold: bool = True
    # of state-space cases: sequences of a call, and values that a channel carries from token to token
    sequences: int = 1
    state: int = 0

    @property
    def name(self) -> str:
        shape = f"Hq={self.query_heads} Hk={self.kv_heads} D={self.head_dim}"
        if self.kind == "decode":
            return f"decode {shape} S={self.keys} {self.dtype} {'cold' if self.cold else 'warm'}"
        window = f" window={self.window}" if self.window else ""
        return f"prefill {shape} N={self.tokens}{window} {self.dtype}"

    @property
    def kv_bytes(self) -> int:
        return 2 * self.kv_heads * self.keys * self.head_dim * BYTES[self.dtype]

    @property
    def visible_pairs(self) -> int:
        """Query and key pairs of one head that a causal call must look at, the diagonal counted as half."""
        if self.kind == "decode":
            return self.keys
        full = self.tokens * self.tokens // 2
        return min(full, self.tokens * self.window - self.window * self.window // 2) if self.window else full

    @property
    def flops(self) -> int:
        return 4 * self.visible_pairs * self.head_dim * self.query_heads

    @property
    def peer_seconds(self) -> float:
        """About what a call of a peer takes."""
        return self.flops / 1e11

    def rate(self, nanoseconds: float) -> tuple[float, str]:
        """What a call of that time reaches: key and value bytes of the case's dtype, or FLOPs."""
        if self.kind != "prefill":
            return self.kv_bytes / nanoseconds, "GB/s"
        return self.flops / nanoseconds, "GFLOP/s"

    def copies(self, last_level_bytes: int) -> int:
        """Copies of the operands that exceed four times the last-level cache together; 1 where they may stay in it."""
        if not self.cold or self.kind == "prefill":
            return 1
        target = 4 * last_level_bytes
        return 1 if self.kv_bytes >= target else max(2, -(-target // self.kv_bytes))

    @property
    def list_shape(self) -> tuple[int, int]:
        """Entries of a list and tokens of an entry; 0, 1 where every key is seen."""
        return 0, 1

    def operands(self) -> dict[str, Operand]:
        """Normally distributed queries [T, Hq, D], keys and values [Hk, S, D], exact in the case's dtype."""
        generator = np.random.default_rng(1)
        cache = (self.kv_heads, self.keys, self.head_dim)
        shapes = {"q": (self.tokens, self.query_heads, self.head_dim), "k": cache, "v": cache}
        return {
            name: rounded(generator.standard_normal(shape, dtype=np.float32), self.dtype)
            for name, shape in shapes.items()
        }

    def truth(self, operands: dict[str, Operand]) -> NDArray[np.float64] | None:
        """What the outputs of a row's first calls are compared with, [calls, elements]; None: our first output."""
        return None

    @property
    def output_elements(self) -> int:
        return self.sequences * self.tokens * self.query_heads * self.head_dim

    def compared(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part of an output that is compared, as `truth` has it."""
        return output

    @property
    def ours(self) -> Call:
        return Call("longspan", self.kind, self.dtype, f"attention {self.kind}", dedicated=True)

    def peers(self) -> list[Call]:
        if self.kind == "decode":
            return decode_peers(self.dtype)
        return window_peers() if self.window else prefill_peers(self.dtype)


def tolerance(case: Case, call: Call) -> float:
    """That of the coarser dtype: ours rounds as the case's dtype allows, the peer as its own does."""
    return max(TOLERANCE[case.dtype], TOLERANCE[call.dtype])


def rounded(values: NDArray[np.float32], dtype: DType) -> NDArray[np.float32]:
    if dtype == "f16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "bf16":
        return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def group_query(*dtypes: DType) -> list[Call]:
    return [Call("onnxruntime", "gqa", dtype, "GroupQueryAttention", dedicated=True) for dtype in dtypes]


def flash(*dtypes: DType, cache: bool = False) -> list[Call]:
    variant, layout = ("flash-cache", ", token-major cache") if cache else ("flash", "")
    return [Call("ggml", variant, dtype, f"flash_attn_ext{layout}", dedicated=True) for dtype in dtypes]


def decode_peers(dtype: DType) -> list[Call]:
    # no library but PyTorch and ggml has bf16; its users take f16, or f32 where that is faster
    group_query_dtypes: dict[DType, list[DType]] = {"f32": ["f32"], "f16": ["f16", "f32"], "bf16": ["f16", "f32"]}
    flash_dtypes: list[DType] = [dtype] if dtype != "bf16" else ["bf16", "f16"]
    return [
        Call("torch", "matmul-folded", dtype, "matmul, softmax, matmul, heads folded", dedicated=False),
        Call("torch", "sdpa-folded", dtype, "SDPA, heads folded", dedicated=False),
        Call("torch", "sdpa-gqa", dtype, "SDPA enable_gqa", dedicated=True),
        *group_query(*group_query_dtypes[dtype]),
        *flash(*flash_dtypes),
        *flash(*flash_dtypes, cache=True),
        Call("ggml", "matmul", dtype, "mul_mat, soft_max, mul_mat", dedicated=False),
        Call("ggml", "matmul-folded", dtype, "mul_mat, soft_max, mul_mat, heads folded", dedicated=False),
    ]


def prefill_peers(dtype: DType) -> list[Call]:
    openvino: list[DType] = [] if dtype == "f16" else [dtype]
    group_query_dtypes: list[DType] = ["f32"] if dtype == "f32" else ["f32", "f16"]
    return [
        Call("torch", "sdpa-gqa", dtype, "SDPA enable_gqa", dedicated=True),
        Call("torch", "sdpa-expanded", dtype, "SDPA, heads expanded", dedicated=True),
        *group_query(*group_query_dtypes),
        *(Call("openvino", "sdpa-expanded", d, "SDPA, heads expanded", dedicated=True) for d in openvino),
        *flash(*([dtype] if dtype != "bf16" else ["bf16", "f16"])),
        *flash("f32" if dtype == "f32" else "f16", cache=True),
    ]


def window_peers() -> list[Call]:
    return [
        Call("torch", "flex", "f32", "flex_attention compiled", dedicated=True),
        Call("torch", "flex", "bf16", "flex_attention compiled", dedicated=True),
        Call("torch", "sdpa-masked", "bf16", "SDPA, boolean mask, heads expanded", dedicated=True),
        *group_query("f32", "f16"),
        *flash("f16"),
        *flash("f16", cache=True),
    ]


def all_cases(last_level_bytes: int, quick: bool) -> list[Case]:
    dtypes: tuple[DType, ...] = ("f32", "f16", "bf16")
    large, small = (32, 8, 128), (9, 3, 64)
    cases: list[Case] = []
    for heads, keys in [(large, 4096), (large, 32768), (large, 131072), (small, 8192)]:
        for dtype in dtypes:
            case = Case("decode", *heads, tokens=1, keys=keys, dtype=dtype)
            cases.append(case)
            if case.kv_bytes <= last_level_bytes:
                cases.append(Case("decode", *heads, tokens=1, keys=keys, dtype=dtype, cold=False))
    for heads, tokens in [(large, 1024), (large, 4096), (large, 8192), (small, 4096)]:
        for dtype in dtypes:
            cases.append(Case("prefill", *heads, tokens=tokens, keys=tokens, dtype=dtype))
    cases.append(Case("prefill", *large, tokens=4096, keys=4096, dtype="bf16", window=1024))
    if not quick:
        return cases
    return [c for c in cases if (c.cold and c.keys <= 32768) and (c.kind == "decode" or c.keys <= 1024 or c.window)]
