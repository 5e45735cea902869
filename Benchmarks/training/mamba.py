"""Mamba-1 in the layout of transformers' MambaForCausalLM."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from math import log

import torch
from torch import nn
from torch.nn import functional as F

from data import VOCABULARY
from lm import LM, CausalConv, TimeStepFilter, inverse_softplus
from scan import STATES, selective_scan


@dataclass
class MambaConfig:
    vocabulary: int = VOCABULARY
    width: int = 128
    layers: int = 2
    rank: int = 8
    taps: int = 4
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    a_max: float = 16.0

    @property
    def inner(self) -> int:
        return 2 * self.width


class MambaMixer(nn.Module):
    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.inner
        self.in_proj = nn.Linear(config.width, 2 * inner, bias=False)
        self.conv1d = CausalConv(inner, config.taps)
        self.x_proj = nn.Linear(inner, config.rank + 2 * STATES, bias=False)
        self.dt_proj = nn.Linear(config.rank, inner)
        nn.init.uniform_(self.dt_proj.weight, -(config.rank**-0.5), config.rank**-0.5)
        dt = torch.exp(torch.rand(inner) * log(config.dt_max / config.dt_min) + log(config.dt_min))
        self.dt_proj.bias = nn.Parameter(inverse_softplus(dt))
        self.A_log = nn.Parameter(torch.linspace(1.0, config.a_max, STATES).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, config.width, bias=False)

    def forward(self, x: torch.Tensor, layer: int, dt_filter: TimeStepFilter | None) -> torch.Tensor:
        config = self.config
        values, z = self.in_proj(x).chunk(2, -1)
        values = F.silu(self.conv1d(values))
        dt, b, c = self.x_proj(values).split([config.rank, STATES, STATES], -1)
        dt = F.softplus(self.dt_proj(dt))
        if dt_filter is not None:
            dt = dt_filter(layer, dt)
        y = selective_scan(values, dt, -self.A_log.exp(), b, c) + values * self.D
        return self.out_proj(y * F.silu(z))


class MambaLM(LM):
    def __init__(self, config: MambaConfig) -> None:
        super().__init__(config.vocabulary, config.width, [MambaMixer(config) for _ in range(config.layers)])
        self.config = config

    def decay_rates(self, layer: int) -> torch.Tensor:
        """A of every channel and state, (channels, states)."""
        return -self.backbone.layers[layer].mixer.A_log.exp()

    def config_dict(self) -> dict[str, float]:
        return asdict(self.config)
