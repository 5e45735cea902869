"""State-space layers: the scans of Mamba and Mamba-2, their one-token updates, and the causal convolution before them.

A case's heads are H heads of P channels that share a decay (Mamba-2), or E heads of one channel (Mamba, convolution).
Operands: u [B, T, H, P]; of a scan or an update dt [B, T, H], before its softplus, a [E, N] or [H], b and c
[B, T, G, N], d [H], of an update also state [B, H, P, N]; of a convolution w [E, W].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cases import Call, Case, DType, Kind, Operand, rounded

Doubles = NDArray[np.float64]

# Tokens of a chunk, in the count of the SSD scan's FLOPs and in PyTorch's loops.
CHUNK = 64
# Channels, or heads of several channels, that are also computed in float64: they do not depend on one another.
COMPARED_CHANNELS, COMPARED_HEADS = 64, 4


@dataclass(frozen=True)
class StateCase(Case):
    @property
    def scalar_decay(self) -> bool:
        return self.kind.startswith("ssd")

    @property
    def name(self) -> str:
        update = self.kind.endswith("update")
        shape = f"B={self.sequences} " if update else ""
        if self.scalar_decay:
            shape += f"H={self.query_heads} P={self.head_dim} N={self.state} G={self.kv_heads}"
        elif self.kind == "conv":
            shape += f"E={self.query_heads} W={self.state + 1}"
        else:
            shape += f"E={self.query_heads} N={self.state}"
        length = "" if update else f" L={self.tokens}"
        title = "conv and SiLU" if self.kind == "conv" else self.kind.replace("-", " ")
        return f"{title} {shape}{length} {self.dtype}"

    @property
    def state_elements(self) -> int:
        return self.sequences * self.query_heads * self.head_dim * self.state

    @property
    def flops(self) -> int:
        """Of the SSD scan in causal chunks, a triangle with its diagonal for the products within one."""
        channels = self.query_heads * self.head_dim
        within = (CHUNK + 1) * (channels + self.kv_heads * self.state)  # (C B^T) X and C B^T
        across = 4 * channels * self.state  # reads of the state and writes to it
        return self.sequences * self.tokens * (within + across + channels)  # the last: dt X

    @property
    def peer_seconds(self) -> float:
        if self.kind == "conv":
            return self.output_elements / 5e8
        return self.flops / 5e10 if self.scalar_decay else self.tokens * self.state_elements / 5e8

    def rate(self, nanoseconds: float) -> tuple[float, str]:
        match self.kind:
            case "selective-scan":
                return self.tokens * self.state_elements / nanoseconds, "Gelem/s"
            case "ssd-scan":
                return self.flops / nanoseconds, "GFLOP/s"
            case "conv":  # inputs read and outputs written
                return 8 * self.output_elements / nanoseconds, "GB/s"
            case _:  # states read and written
                return 8 * self.state_elements / nanoseconds, "GB/s"

    def copies(self, last_level_bytes: int) -> int:
        """One: a call finds in the caches what fits them."""
        return 1

    def operands(self) -> dict[str, Operand]:
        """Normally distributed inputs, exact in the case's dtype; steps and decays as Mamba's initialization has them."""
        generator = np.random.default_rng(3)

        def normal(*shape: int) -> NDArray[np.float32]:
            return generator.standard_normal(shape, dtype=np.float32)

        rows, heads = (self.sequences, self.tokens), self.query_heads
        operands: dict[str, Operand] = {"u": rounded(normal(*rows, heads, self.head_dim), self.dtype)}
        if self.kind == "conv":
            return operands | {"w": normal(heads, self.state + 1)}
        # softplus of these is from 0.001 to 0.1, uniformly in its logarithm
        steps = np.exp(generator.uniform(np.log(1e-3), np.log(1e-1), (*rows, heads)))
        operands["dt"] = np.log(np.expm1(steps)).astype(np.float32)
        if self.scalar_decay:
            operands["a"] = -generator.uniform(1, 16, heads).astype(np.float32)
        else:
            operands["a"] = -np.tile(np.arange(1, self.state + 1, dtype=np.float32), (heads, 1))
        for name in ("b", "c"):
            operands[name] = rounded(normal(*rows, self.kv_heads, self.state), self.dtype)
        operands["d"] = normal(heads)
        if self.kind.endswith("update"):
            operands["state"] = normal(self.sequences, heads, self.head_dim, self.state)
        return operands

    @property
    def chosen(self) -> NDArray[np.intp]:
        """Heads that are compared, from the first to the last, so that those of every thread are among them."""
        count = COMPARED_HEADS if self.head_dim > 1 else COMPARED_CHANNELS
        return np.linspace(0, self.query_heads - 1, count).astype(np.intp)

    def compared(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        return output.reshape(-1, self.query_heads, self.head_dim)[:, self.chosen].reshape(-1)

    def truth(self, operands: dict[str, Operand]) -> Doubles:
        """The outputs of the chosen heads in float64, [1, elements]."""
        inputs = operands["u"][:, :, self.chosen].astype(np.float64)
        if self.kind == "conv":
            return convolved(inputs, operands["w"][self.chosen].astype(np.float64)).reshape(1, -1)
        return self.scanned(operands, inputs).reshape(1, -1)

    def scanned(self, operands: dict[str, Operand], inputs: Doubles) -> Doubles:
        """The recurrence at the top of ssm.h for inputs [B, T, chosen, P]."""
        chosen, group_size = self.chosen, self.query_heads // self.kv_heads
        steps = np.logaddexp(0, operands["dt"][:, :, chosen].astype(np.float64))
        decay = operands["a"][chosen].astype(np.float64).reshape(len(chosen), 1, -1)
        b, c = (operands[x][:, :, chosen // group_size].astype(np.float64) for x in ("b", "c"))
        skip = operands["d"][chosen, None].astype(np.float64)
        state = np.zeros((self.sequences, len(chosen), self.head_dim, self.state))
        if "state" in operands:
            state += operands["state"][:, chosen]
        outputs = np.empty_like(inputs)
        for t in range(self.tokens):
            step = steps[:, t, :, None]
            state *= np.exp(step[..., None] * decay)
            state += (step * inputs[:, t])[..., None] * b[:, t, :, None]
            outputs[:, t] = (state @ c[:, t, :, :, None])[..., 0] + skip * inputs[:, t]
        return outputs

    @property
    def ours(self) -> Call:
        return Call("longspan", self.kind, self.dtype, self.kind.replace("-", " "), dedicated=True)

    def peers(self) -> list[Call]:
        match self.kind:
            case "selective-scan":
                return selective_scan_peers()
            case "ssd-scan":
                return ssd_scan_peers(self.dtype)
            case "conv":
                return conv_peers()
            case _:
                return update_peers(self.kind)


def convolved(inputs: Doubles, weights: NDArray[np.float64]) -> Doubles:
    """Inputs [B, T, channels, 1] with taps [channels, W], zeros before the first token, and SiLU of that."""
    tokens, width = inputs.shape[1], weights.shape[1]
    padded = np.pad(inputs, ((0, 0), (width - 1, 0), (0, 0), (0, 0)))
    sums = sum(weights[:, k, None] * padded[:, k : k + tokens] for k in range(width))
    return sums / (1 + np.exp(-sums))


def composed(engine: str, variant: str, text: str, dtype: DType = "f32") -> Call:
    return Call(engine, variant, dtype, text, dedicated=False)


def operator(engine: str, variant: str, text: str) -> Call:
    return Call(engine, variant, "f32", text, dedicated=True)


def selective_scan_peers() -> list[Call]:
    return [
        composed("torch", "selective-compiled", "16 tokens a graph, compiled"),
        composed("torch", "selective-loop", "loop over tokens"),
        operator("ggml", "scan", "ssm_scan"),
    ]


def ssd_scan_peers(dtype: DType) -> list[Call]:
    # ggml has no 16-bit scan
    dtypes: list[DType] = ["f32"] if dtype == "f32" else [dtype, "f32"]
    return [
        *(composed("torch", "ssd-chunks", f"loop over chunks of {CHUNK}", d) for d in dtypes),
        operator("onnxruntime", "ssd-scan", "LinearAttention"),
        operator("ggml", "scan", "ssm_scan"),
    ]


def update_peers(kind: str) -> list[Call]:
    linear_attention = [operator("onnxruntime", "ssd-update", "LinearAttention")] if kind == "ssd-update" else []
    return [
        composed("torch", f"{kind}-reference", "formula"),
        composed("torch", f"{kind}-fused", "products in place"),
        composed("torch", f"{kind}-compiled", "formula, compiled"),
        *linear_attention,
        operator("ggml", "scan", "ssm_scan alone"),
        operator("ggml", "scan-copied", "ssm_scan, state copied back"),
        operator("ggml", "scan-in-place", "ssm_scan, state in place"),
    ]


def conv_peers() -> list[Call]:
    return [
        operator("torch", "conv", "conv1d, silu"),
        composed("torch", "conv-compiled", "shifted products, compiled"),
        operator("onnxruntime", "conv-first", "CausalConvWithState"),
        operator("onnxruntime", "conv-last", "CausalConvWithState, channels last"),
        operator("ggml", "conv", "ssm_conv, silu"),
    ]


def ssm_cases(quick: bool) -> list[StateCase]:
    def mamba(kind: Kind, channels: int, tokens: int = 1, sequences: int = 1) -> StateCase:
        state = 3 if kind == "conv" else 16
        return StateCase(kind, channels, 1, 1, tokens, tokens, "f32", sequences=sequences, state=state)

    def mamba2(kind: Kind, dtype: DType, tokens: int = 1, sequences: int = 1) -> StateCase:
        return StateCase(kind, 64, 1, 64, tokens, tokens, dtype, sequences=sequences, state=128)

    cases = [
        mamba("selective-scan", 2048, tokens=2048),
        mamba("selective-scan", 5120, tokens=2048),
        mamba("selective-scan", 2048, tokens=16384),
        mamba("selective-scan", 5120, tokens=16384),
        mamba("selective-update", 2048),
        mamba("selective-update", 5120),
        mamba("selective-update", 5120, sequences=16),
        mamba2("ssd-scan", "f32", tokens=4096),
        mamba2("ssd-scan", "bf16", tokens=4096),
        mamba2("ssd-update", "f32"),
        mamba2("ssd-update", "f32", sequences=16),
        mamba("conv", 2048, tokens=2048),
        mamba("conv", 5120, tokens=2048),
    ]
    if not quick:
        return cases
    return [c for c in cases if c.tokens <= 4096 and (c.query_heads <= 2048 or c.sequences > 1)]
