"""Runs models of transformers with attn_implementation="longspan".

`register()` makes the name known. A mask is never a matrix here: models say by a function which keys a query sees, and
causal, sliding-window and bidirectional functions are recognized; padding on the left or right becomes row limits of each
sequence. Anything else is refused when the model asks for its mask. The window's width comes with each layer's call, as
it does for flash attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

from .errors import LongspanError
from .torch_ops import attention

NAME = "longspan"


def register() -> None:
    """Makes attn_implementation="longspan" known to transformers. Again has no effect."""
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, attention_rows)


# ---- Masks ------------------------------------------------------------------------------------------------------------


def _variables(function: Callable[..., Any]) -> dict[str, Any]:
    cells = function.__closure__ or ()
    return {name: cell.cell_contents for name, cell in zip(function.__code__.co_freevars, cells)}


def _is_causal(function: Callable[..., Any]) -> bool:
    """Whether a mask function is causal, perhaps with a window, or bidirectional. Errors: bad_value for any other."""
    if function is causal_mask_function:
        return True
    if function is bidirectional_mask_function:
        return False
    # windows are made anew for each mask, so that only their names are left to tell them by
    name = getattr(function, "__qualname__", repr(function))
    if name == "and_masks.<locals>.and_mask":
        parts = _variables(function)["mask_functions"]
        window = [p for p in parts if getattr(p, "__qualname__", "") == "sliding_window_overlay.<locals>.inner_mask"]
        if len(window) == 1 and len(parts) == 2 and causal_mask_function in parts:
            return True
        name = " and ".join(getattr(p, "__qualname__", repr(p)) for p in parts)
    raise LongspanError("bad_value", f"attention_mask: the model masks by {name}, which longspan's attention cannot")


def attention_rows(
    batch_size: int, q_length: int, kv_length: int, q_offset: int | Tensor = 0, kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function, attention_mask: Tensor | None = None, **_: Any,
) -> Tensor | None:  # fmt: skip
    """The `rows` of torch.ops.longspan.attention as [B, 1, 1, 4], because models pass on masks of four dimensions as they
    are: None where every sequence has all of its keys and queries.

    q_offset and kv_offset are the positions of the first query and of the first key slot; attention_mask [B, tokens] is
    true for tokens that are no padding. Errors: bad_value for a mask with holes and for functions that are not known.
    """
    causal = _is_causal(mask_function)
    # slots that hold a token: a cache of fixed size has more
    filled = min(kv_length, int(q_offset) + q_length - kv_offset) if causal else kv_length
    padded = None if attention_mask is None else attention_mask[:, kv_offset : kv_offset + filled].bool()
    if padded is None or bool(padded.all()):
        if filled == kv_length:
            return None
        padded = torch.ones((batch_size, filled), dtype=torch.bool)
    if padded.shape[1] < filled:
        raise LongspanError("bad_shape", f"attention_mask has {padded.shape[1]} of {filled} tokens")
    limits = []
    for b, tokens in enumerate(padded):
        seen = tokens.nonzero().flatten().tolist()
        begin, end = (seen[0], seen[-1] + 1) if seen else (filled, filled)
        if end - begin != len(seen):
            raise LongspanError("bad_value", f"attention_mask: sequence {b} has padding between its tokens")
        if causal:
            first = filled - q_length
            query_begin = min(max(0, begin - first), q_length)
            query_end = max(query_begin, q_length - (filled - end))
        else:
            query_begin, query_end = 0, q_length
        limits.append([begin, end, query_begin, query_end])
    return torch.tensor(limits, dtype=torch.int64)[:, None, None]


# ---- Attention --------------------------------------------------------------------------------------------------------

# arguments that models pass on to kernels which know them, and that change the result
_REFUSED = ("position_bias", "cache", "output_attentions", "cu_seq_lens_q", "cu_seqlens", "seq_idx")


def attention_forward(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, is_causal: bool | None = None, sliding_window: int | None = None,
    softcap: float | None = None, s_aux: Tensor | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """What a model's attention layers call: query [B, Hq, T, D], key and value [B, Hk, S, D] to [B, T, Hq, D].

    s_aux [Hq] are logits of a sink that has no value, as GPT-OSS has them.
    """
    if dropout:
        raise LongspanError("bad_value", f"dropout is {dropout}; longspan's attention has none, call model.eval()")
    for name in _REFUSED:
        if kwargs.get(name) is not None and kwargs[name] is not False:
            raise LongspanError("bad_value", f"{name} is not supported by longspan's attention")
    rows = None
    if attention_mask is not None:
        if attention_mask.dtype != torch.int64 or tuple(attention_mask.shape[1:]) != (1, 1, 4):
            found = f"{attention_mask.dtype} {list(attention_mask.shape)}"
            raise LongspanError("bad_value", f"attention_mask is {found}; longspan's takes none but padding [B, tokens]")
        rows = attention_mask.flatten(1)
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out, log_sum_exp = attention(
        query, key, value, scale, bool(causal), sliding_window or 0, 0, softcap or 0.0, rows
    )
    if s_aux is not None:
        # exp(L) / (exp(L) + exp(s)), the share of the softmax that the keys keep
        out = out * torch.sigmoid(log_sum_exp - s_aux.float())[..., None]
    return out.to(query.dtype), None
