"""What both models share: embeddings, pre-norm residual blocks, final norm, tied output.

Parameter names are those of transformers' Mamba models, so a state dict is their checkpoint.
"""
from __future__ import annotations

from typing import Callable

import torch
from torch import nn
from torch.nn import functional as F

#: Changes the time steps of a layer, (batch, length, heads or channels), before the scan reads them.
TimeStepFilter = Callable[[int, torch.Tensor], torch.Tensor]


class RMSNorm(nn.Module):
    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


class CausalConv(nn.Module):
    """Depthwise causal convolution along the length of (batch, length, channels)."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, taps).uniform_(-(taps**-0.5), taps**-0.5))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        taps, length = self.weight.shape[-1], x.shape[1]
        padded = F.pad(x, (0, 0, taps - 1, 0))
        out = self.bias.expand_as(x)
        for k in range(taps):
            out = torch.addcmul(out, padded[:, k : k + length], self.weight[:, 0, k])
        return out


class Block(nn.Module):
    def __init__(self, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.mixer = mixer

    def forward(self, x: torch.Tensor, layer: int, dt_filter: TimeStepFilter | None) -> torch.Tensor:
        return x + self.mixer(self.norm(x), layer, dt_filter)


class Backbone(nn.Module):
    def __init__(self, vocabulary: int, width: int, mixers: list[nn.Module]) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embeddings.weight, std=width**-0.5)
        self.layers = nn.ModuleList(Block(width, mixer) for mixer in mixers)
        self.norm_f = RMSNorm(width)

    def forward(self, tokens: torch.Tensor, dt_filter: TimeStepFilter | None) -> torch.Tensor:
        x = self.embeddings(tokens)
        for i, block in enumerate(self.layers):
            x = block(x, i, dt_filter)
        return self.norm_f(x)


class LM(nn.Module):
    """`backbone` with the embedding matrix as output matrix."""

    def __init__(self, vocabulary: int, width: int, mixers: list[nn.Module]) -> None:
        super().__init__()
        self.backbone = Backbone(vocabulary, width, mixers)

    def hidden(self, tokens: torch.Tensor, dt_filter: TimeStepFilter | None = None) -> torch.Tensor:
        return self.backbone(tokens, dt_filter)

    def readout(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, self.backbone.embeddings.weight)

    def forward(self, tokens: torch.Tensor, dt_filter: TimeStepFilter | None = None) -> torch.Tensor:
        return self.readout(self.hidden(tokens, dt_filter))


def inverse_softplus(dt: torch.Tensor) -> torch.Tensor:
    return dt + torch.log(-torch.expm1(-dt))
