"""Mamba-2 with one group, in the layout of transformers' Mamba2ForCausalLM."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from math import log

import torch
from torch import nn
from torch.nn import functional as F

from data import VOCABULARY
from lm import LM, CausalConv, RMSNorm, TimeStepFilter, inverse_softplus


@dataclass
class Mamba2Config:
    vocabulary: int = VOCABULARY
    width: int = 128
    layers: int = 2
    head_dim: int = 32
    state: int = 64
    taps: int = 4
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    @property
    def inner(self) -> int:
        return 2 * self.width

    @property
    def heads(self) -> int:
        return self.inner // self.head_dim


def ssd(
    x: torch.Tensor,
    dt: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    chunk: int = 64,
) -> torch.Tensor:
    """y_t = C_t . H_t with H_t = exp(dt_t a) H_{t-1} + dt_t x_t B_t^T, chunk by chunk.

    x (batch, length, heads, head_dim), dt (batch, length, heads), a (heads), b and c (batch, length, state).
    """
    batch, length, heads, dim = x.shape
    state = b.shape[-1]
    pad = -length % chunk
    if pad:
        x, dt = F.pad(x, (0, 0, 0, 0, 0, pad)), F.pad(dt, (0, 0, 0, pad))
        b, c = F.pad(b, (0, 0, 0, pad)), F.pad(c, (0, 0, 0, pad))
    count = x.shape[1] // chunk
    xdt = (x * dt[..., None]).view(batch, count, chunk, heads, dim).permute(0, 1, 3, 2, 4)
    log_decay = (dt * a).view(batch, count, chunk, heads).permute(0, 1, 3, 2).cumsum(-1)
    b, c = b.view(batch, count, 1, chunk, state), c.view(batch, count, 1, chunk, state)

    causal = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    between = (log_decay[..., :, None] - log_decay[..., None, :]).masked_fill(~causal, float("-inf"))
    y = ((c @ b.transpose(-1, -2)) * between.exp()) @ xdt  # within the chunk

    to_end = (log_decay[..., -1:] - log_decay).exp()
    added = (xdt * to_end[..., None]).transpose(-1, -2) @ b  # (batch, count, heads, dim, state)
    whole = log_decay[..., -1].exp()[..., None, None]
    carried = torch.zeros_like(added[:, 0])
    before = []
    for i in range(count):
        before.append(carried)
        carried = carried * whole[:, i] + added[:, i]
    from_before = c @ torch.stack(before, 1).transpose(-1, -2)
    y = y + from_before * log_decay.exp()[..., None]
    return y.permute(0, 1, 3, 2, 4).reshape(batch, count * chunk, heads, dim)[:, :length]


class Mamba2Mixer(nn.Module):
    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.config = config
        width, inner, heads = config.width, config.inner, config.heads
        channels = inner + 2 * config.state
        self.in_proj = nn.Linear(width, inner + channels + heads, bias=False)
        self.conv1d = CausalConv(channels, config.taps)
        dt = torch.exp(torch.rand(heads) * log(config.dt_max / config.dt_min) + log(config.dt_min))
        self.dt_bias = nn.Parameter(inverse_softplus(dt))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = RMSNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor, layer: int, dt_filter: TimeStepFilter | None) -> torch.Tensor:
        config = self.config
        inner, state = config.inner, config.state
        z, xbc, dt = self.in_proj(x).split([inner, inner + 2 * state, config.heads], -1)
        xbc = F.silu(self.conv1d(xbc))
        values, b, c = xbc.split([inner, state, state], -1)
        values = values.view(*values.shape[:2], config.heads, config.head_dim)
        dt = F.softplus(dt + self.dt_bias)
        if dt_filter is not None:
            dt = dt_filter(layer, dt)
        y = ssd(values, dt, -self.A_log.exp(), b, c) + values * self.D[:, None]
        return self.out_proj(self.norm(y.flatten(2) * F.silu(z)))


class Mamba2LM(LM):
    def __init__(self, config: Mamba2Config) -> None:
        super().__init__(config.vocabulary, config.width, [Mamba2Mixer(config) for _ in range(config.layers)])
        self.config = config

    def decay_rates(self, layer: int) -> torch.Tensor:
        """A of every head, (heads, 1)."""
        return -self.backbone.layers[layer].mixer.A_log.exp()[:, None]

    def config_dict(self) -> dict[str, float]:
        return asdict(self.config)
