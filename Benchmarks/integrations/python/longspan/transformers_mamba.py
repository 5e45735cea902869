"""Runs the mixers of transformers' Mamba and Mamba-2 on the kernels: convolution, scan and update, for prompts and for
decoding with a cache.

    with use_longspan(model):
        model.generate(...)

Only that model's mixers are changed, by a `forward` of their own on the same weights, which keeps activations token-major
so that nothing is turned around between products and scans. Products, norms and caches stay those of transformers.
"""

from __future__ import annotations

import math
from types import MethodType, TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from .errors import LongspanError
from .torch_ops import (
    MAX_UPDATE_TOKENS,
    causal_conv,
    selective_scan,
    selective_update,
    ssd_scan,
    ssd_update,
)


class Replacement:
    """What `use_longspan` changed; `remove`, or the end of a `with`, puts it back."""

    def __init__(self, mixers: list[Any]) -> None:
        self.mixers = mixers

    def remove(self) -> None:
        for mixer in self.mixers:
            mixer.__dict__.pop("forward", None)
            mixer.__dict__.pop("_longspan_weights", None)
        self.mixers = []

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


def use_longspan(model: torch.nn.Module) -> Replacement:
    """Makes every Mamba and Mamba-2 mixer of a model run on the kernels until the result's `remove`.

    Errors: bad_value if there is none, or one that the kernels cannot run: another activation than SiLU, a convolution of
    other than 2 to 4 taps, a state size above 256, weights that are not on the CPU.
    """
    mixers = [module for module in model.modules() if isinstance(module, (MambaMixer, Mamba2Mixer))]
    if not mixers:
        raise LongspanError("bad_value", f"{type(model).__name__} has no mixer of Mamba or Mamba-2")
    for mixer in mixers:
        _check(mixer)
    for mixer in mixers:
        mixer.forward = MethodType(_mamba if isinstance(mixer, MambaMixer) else _mamba2, mixer)
    return Replacement(mixers)


def _check(mixer: Any) -> None:
    layer = f"layer {mixer.layer_idx}"
    if "forward" in mixer.__dict__:
        raise LongspanError("bad_value", f"{layer} has a forward of its own already")
    if mixer.activation not in ("silu", "swish"):
        raise LongspanError("bad_value", f"{layer} has the activation {mixer.activation}, silu is wanted")
    if not 2 <= mixer.conv_kernel_size <= 4:
        raise LongspanError("bad_value", f"{layer} has a convolution of {mixer.conv_kernel_size} taps, 2 to 4 are possible")
    if mixer.ssm_state_size > 256:
        raise LongspanError("bad_value", f"{layer} has state size {mixer.ssm_state_size}, 256 is the most")
    if not mixer.A_log.is_cpu:
        raise LongspanError("bad_value", f"{layer} is on device {mixer.A_log.device}, cpu is wanted")


class _Weights:
    """A mixer's small weights as the kernels take them, f32, made again when one of them has changed."""

    def __init__(self, sources: list[Tensor | None]) -> None:
        self.versions = self.identify(sources)
        a_log, d, dt_bias, taps, bias = sources
        self.a = -torch.exp(_float(a_log))
        self.d = _float(d)
        self.dt_bias = None if dt_bias is None else _float(dt_bias)
        self.taps = _float(taps).squeeze(1)
        self.bias = None if bias is None else _float(bias)

    @staticmethod
    def identify(sources: list[Tensor | None]) -> list[Any]:
        return [None if source is None else (source.data_ptr(), source._version, source.dtype) for source in sources]


def _float(weight: Tensor | None) -> Tensor:
    if weight is None:
        raise LongspanError("null_pointer", "a mixer lacks a weight")
    return weight.detach().float().contiguous()


def _weights(mixer: Any, dt_bias: Tensor | None) -> _Weights:
    sources = [mixer.A_log, mixer.D, dt_bias, mixer.conv1d.weight, mixer.conv1d.bias]
    found: _Weights | None = mixer.__dict__.get("_longspan_weights")
    if found is None or found.versions != _Weights.identify(sources):
        found = mixer.__dict__["_longspan_weights"] = _Weights(sources)
    return found


def _without_padding(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return states
    return (states * attention_mask[:, :, None]).to(states.dtype)


def _convolve(mixer: Any, weights: _Weights, x: Tensor, cache: Any) -> Tensor:
    """The convolution of x [B, L, E] after what the cache holds, which then holds the end of x."""
    initial = None
    if cache is not None:
        before = cache.get_conv_state(mixer.layer_idx, state_idx=0)
        if before is not None:
            # [B, E, taps] of the cache, whose oldest is no longer needed
            initial = before[:, :, 1 - mixer.conv_kernel_size :].transpose(1, 2).float().contiguous()
    y: Tensor = causal_conv(x, weights.taps, weights.bias, initial, True)
    if cache is not None:
        cache.update_conv_state(x.transpose(1, 2), mixer.layer_idx, conv_kernel_size=mixer.conv_kernel_size)
    return y


def _recurrent_state(mixer: Any, cache: Any) -> Tensor | None:
    state: Tensor | None = None if cache is None else cache.get_recurrent_state(mixer.layer_idx, state_idx=0)
    return state


def _mamba(
    self: Any, hidden_states: Tensor, cache_params: Any = None, attention_mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """`MambaMixer.forward`. A prompt that continues a cache starts from its state."""
    weights = _weights(self, self.dt_proj.bias)
    # before the convolution, which counts as a state too
    state = _recurrent_state(self, cache_params)
    x, gate = self.in_proj(_without_padding(hidden_states, attention_mask)).chunk(2, dim=-1)
    x = _without_padding(_convolve(self, weights, x, cache_params), attention_mask)
    sizes = [self.time_step_rank, self.ssm_state_size, self.ssm_state_size]
    low_rank, b, c = torch.split(self.x_proj(x), sizes, dim=-1)
    dt = F.linear(low_rank, self.dt_proj.weight)
    shared = weights.d, gate, weights.dt_bias
    step = True, 0.0, math.inf
    if state is not None and x.shape[1] <= MAX_UPDATE_TOKENS:
        y = selective_update(state, x, dt, weights.a, b, c, *shared, *step)
    else:
        y, final = selective_scan(x, dt, weights.a, b, c, *shared, state, *step)
        if cache_params is not None:
            cache_params.update_recurrent_state(final, self.layer_idx)
    out: Tensor = self.out_proj(y.to(hidden_states.dtype))
    return out


def _mamba2(
    self: Any, hidden_states: Tensor, cache_params: Any = None, attention_mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """`Mamba2Mixer.forward`. Time steps are limited in decoding as in prompts."""
    weights = _weights(self, self.dt_bias)
    state = _recurrent_state(self, cache_params)
    batch, tokens, _ = hidden_states.shape
    projected = self.in_proj(_without_padding(hidden_states, attention_mask))
    gate, xbc, dt = projected.split([self.intermediate_size, self.conv_dim, self.num_heads], dim=-1)
    xbc = _without_padding(_convolve(self, weights, xbc, cache_params), attention_mask)
    width = self.n_groups * self.ssm_state_size
    x, b, c = torch.split(xbc, [self.intermediate_size, width, width], dim=-1)
    x = x.view(batch, tokens, self.num_heads, self.head_dim)
    b, c = (part.view(batch, tokens, self.n_groups, self.ssm_state_size) for part in (b, c))
    shared = weights.d, None, weights.dt_bias
    step = True, float(self.time_step_limit[0]), float(self.time_step_limit[1])
    if state is not None and tokens <= MAX_UPDATE_TOKENS:
        y = ssd_update(state, x, dt, weights.a, b, c, *shared, *step)
    else:
        y, final = ssd_scan(x, dt, weights.a, b, c, *shared, state, *step)
        if cache_params is not None:
            cache_params.update_recurrent_state(final, layer_idx=self.layer_idx)
    normed = self.norm(y.reshape(batch, tokens, -1), gate)
    out: Tensor = self.out_proj(normed.to(hidden_states.dtype))
    return out
