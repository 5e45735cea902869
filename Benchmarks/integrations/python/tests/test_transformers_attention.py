"""Tiny random models of transformers with attn_implementation="longspan" against "eager"."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

import longspan.torch_ops
import longspan.transformers_attention
from longspan import LongspanError

longspan.transformers_attention.register()

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # wide enough that attention is far from uniform and logits are far from each other
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "eos_token_id": None,
    "bos_token_id": None,
}

MODELS: dict[str, Any] = {
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "Mistral, window of 7": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=7)),
    "Gemma 2, softcap and window": lambda: Gemma2ForCausalLM(
        Gemma2Config(
            **SIZES, head_dim=16, sliding_window=7, attn_logit_softcapping=2.0, query_pre_attn_scalar=16,
            tie_word_embeddings=False,
        )
    ),
    "GPT-OSS, sink logits": lambda: GptOssForCausalLM(
        GptOssConfig(
            **SIZES, head_dim=16, sliding_window=7, num_local_experts=2, num_experts_per_tok=1, rope_parameters=None
        )
    ),
}


@pytest.fixture(params=MODELS, scope="module")
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def llama(**changed: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(SIZES | changed))).eval()


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(1, 300, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def both(model: Any, call: Any) -> tuple[Any, Any]:
    """What `call` gives with eager attention and with ours."""
    results = []
    for implementation in ("eager", "longspan"):
        model.set_attn_implementation(implementation)
        results.append(call(model))
    return results[0], results[1]


def close(found: Tensor, expected: Tensor) -> None:
    """Logits within 1e-4 of the largest."""
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < 1e-4, f"relative error {error}"


def padded(side: str) -> tuple[Tensor, Tensor]:
    """Three sequences of 20, 13 and 4 tokens."""
    ids, mask = tokens(3, 20), torch.ones(3, 20, dtype=torch.int64)
    for b, length in ((1, 13), (2, 4)):
        mask[b, slice(0, 20 - length) if side == "left" else slice(length, 20)] = 0
    return ids * mask, mask


def test_prompt(model: Any) -> None:
    expected, found = both(model, lambda m: m(tokens(2, 50)).logits)
    close(found, expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_prompt(model: Any, side: str) -> None:
    ids, mask = padded(side)
    expected, found = both(model, lambda m: m(ids, attention_mask=mask).logits)
    close(found[mask.bool()], expected[mask.bool()])


def test_continued_cache(model: Any) -> None:
    """A prompt, a chunk after it, then single tokens."""
    ids = tokens(2, 40)

    def run(m: Any) -> Tensor:
        cache, logits, begin = DynamicCache(config=m.config), [], 0
        for end in (17, 29, 30, 31, 36, 40):
            logits.append(m(ids[:, begin:end], past_key_values=cache).logits)
            begin = end
        return torch.cat(logits, 1)

    expected, found = both(model, run)
    close(found, expected)
    close(found, both(model, lambda m: m(ids).logits)[1])


@pytest.mark.parametrize("cache,padding", [("dynamic", True), ("static", True), ("static", False)])
def test_generate(model: Any, cache: str, padding: bool) -> None:
    """The same greedy tokens."""
    ids, mask = padded("left") if padding else (tokens(3, 20), torch.ones(3, 20, dtype=torch.int64))
    options = {"attention_mask": mask, "max_new_tokens": 24, "do_sample": False, "cache_implementation": cache}
    if cache == "static":
        options["disable_compile"] = True
    expected, found = both(model, lambda m: m.generate(ids, **options))
    assert found.shape == (3, 44) and torch.equal(found, expected)
    assert len(set(found[0, 20:].tolist())) > 3


def test_bf16() -> None:
    """As near to the model in f32 as eager attention in bf16 is."""
    model, ids = llama(), tokens(2, 50)
    with torch.no_grad():
        exact = model(ids).logits
    eager, ours = both(model.to(torch.bfloat16), lambda m: m(ids).logits)
    assert ours.dtype == torch.bfloat16
    errors = [(logits.float() - exact).pow(2).mean().sqrt() for logits in (eager, ours)]
    assert errors[1] < 1.2 * errors[0], errors


def test_bidirectional() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, pad_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    ids, mask = padded("right")
    expected, found = both(model, lambda m: m(ids, attention_mask=mask).last_hidden_state)
    close(found[mask.bool()], expected[mask.bool()])
    expected, found = both(llama(is_causal=False), lambda m: m(tokens(2, 30), use_cache=False).logits)
    close(found, expected)


def test_no_mask_matrix_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention reads the cache's own memory, and gets row limits or nothing for a mask."""
    seen = []
    operator = longspan.torch_ops.attention

    def watch(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Any:
        seen.append((key.data_ptr(), rest[-1]))
        return operator(query, key, value, *rest)

    monkeypatch.setattr(longspan.transformers_attention, "attention", watch)
    model, cache = llama(attn_implementation="longspan"), DynamicCache()
    ids, mask = padded("left")
    with torch.no_grad():
        model(ids[:1], past_key_values=cache)
        assert seen == [(layer.keys.data_ptr(), None) for layer in cache.layers]
        seen.clear()
        model(ids, attention_mask=mask)
        assert [rows.tolist() for _, rows in seen] == [[[0, 20, 0, 20], [7, 20, 7, 20], [16, 20, 16, 20]]] * 2


def test_refused() -> None:
    model, ids = llama(attn_implementation="longspan"), tokens(2, 12)
    with torch.no_grad():
        holes = torch.ones(2, 12, dtype=torch.int64)
        holes[1, 5] = 0
        with pytest.raises(LongspanError, match="attention_mask: sequence 1 has padding between its tokens"):
            model(ids, attention_mask=holes)
        with pytest.raises(LongspanError, match=r"attention_mask is torch.bool \[2, 1, 12, 12\]"):
            model(ids, attention_mask=torch.ones(2, 1, 12, 12, dtype=torch.bool))
        packed = torch.cat([torch.arange(5), torch.arange(7)])[None].expand(2, -1)
        with pytest.raises(LongspanError, match="the model masks by .*packed"):
            model(ids, position_ids=packed, use_cache=False)
    with pytest.raises(LongspanError, match="no_gradient: longspan::attention is forward only"):
        model(ids, labels=ids).loss.backward()
    with pytest.raises(LongspanError, match="bad_value: dropout is 0.1"):
        llama(attn_implementation="longspan", attention_dropout=0.1).train()(ids)
