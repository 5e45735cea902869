"""Tiny random Mamba and Mamba-2 models of transformers on our kernels against its own path in PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

from longspan import LongspanError
from longspan.transformers_mamba import use_longspan

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "state_size": 16,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": None,
    "bos_token_id": None,
}
# two heads a group, and sequences longer than a chunk
HEADS: dict[str, Any] = {"num_heads": 4, "head_dim": 24, "n_groups": 2, "chunk_size": 16}


def mamba(**changed: Any) -> Any:
    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(**(SIZES | {"use_bias": True} | changed))).eval()


def mamba2(**changed: Any) -> Any:
    torch.manual_seed(0)
    return Mamba2ForCausalLM(Mamba2Config(**(SIZES | HEADS | {"time_step_limit": (0.0, 0.1)} | changed))).eval()


MODELS = {"mamba": mamba, "mamba2": mamba2}


@pytest.fixture(params=MODELS)
def build(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]


@pytest.fixture(params=MODELS)
def unlimited(request: pytest.FixtureRequest) -> Any:
    """A model without limits of time steps, which transformers knows in prompts only, and we in decoding too."""
    return mamba() if request.param == "mamba" else mamba2(time_step_limit=(0.0, float("inf")))


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(1, 300, (batch, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def both(model: Any, call: Any) -> tuple[Any, Any]:
    """What `call` gives with the model's own path and with ours."""
    expected = call(model)
    with use_longspan(model):
        return expected, call(model)


def close(found: Tensor, expected: Tensor) -> None:
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < 1e-4, f"relative error {error}"


def states(cache: Any) -> list[Tensor]:
    return [s[0] for layer in cache.layers for s in (layer.conv_states, layer.recurrent_states)]


@pytest.mark.parametrize("length", [1, 3, 16, 50])
def test_prompt(build: Any, length: int) -> None:
    expected, found = both(build(), lambda m: m(tokens(2, length), use_cache=False).logits)
    close(found, expected)


def test_padded_prompt(build: Any) -> None:
    mask = torch.ones(2, 20, dtype=torch.int64)
    mask[1, :8] = 0
    expected, found = both(build(), lambda m: m(tokens(2, 20) * mask, attention_mask=mask).logits)
    close(found[mask.bool()], expected[mask.bool()])


@pytest.mark.parametrize("prompt", [2, 30])
def test_decoding(unlimited: Any, prompt: int) -> None:
    """A prompt and single tokens after it: logits, and what the cache holds."""
    ids = tokens(2, prompt + 6)

    def run(model: Any) -> tuple[Tensor, list[Tensor]]:
        out = model(ids[:, :prompt], use_cache=True)
        logits = [out.logits]
        for t in range(prompt, prompt + 6):
            out = model(ids[:, t : t + 1], cache_params=out.cache_params, use_cache=True)
            logits.append(out.logits)
        return torch.cat(logits, 1), states(out.cache_params)

    (expected, kept), (found, ours) = both(unlimited, run)
    close(found, expected)
    for mine, theirs in zip(ours, kept):
        assert mine.dtype == theirs.dtype
        close(mine, theirs)


def test_a_cache_continues_by_any_number_of_tokens(build: Any) -> None:
    """Chunks after a prompt give what the prompt would have given as a whole, limits of time steps included."""
    model, ids, logits = build(), tokens(2, 60), []
    cache = DynamicCache(config=model.config)
    with torch.no_grad(), use_longspan(model):
        for begin, end in ((0, 2), (2, 30), (30, 31), (31, 36), (36, 60)):
            logits.append(model(ids[:, begin:end], cache_params=cache, use_cache=True).logits)
    with torch.no_grad():
        close(torch.cat(logits, 1), model(ids, use_cache=False).logits)


def test_generate(unlimited: Any) -> None:
    """The same greedy tokens, of a batch with padding."""
    mask = torch.ones(3, 20, dtype=torch.int64)
    mask[1, :8] = 0
    options = {"attention_mask": mask, "max_new_tokens": 24, "do_sample": False}
    expected, found = both(unlimited, lambda m: m.generate(tokens(3, 20) * mask, **options))
    assert found.shape == (3, 44) and torch.equal(found, expected)
    assert len(set(found[0, 20:].tolist())) > 3


def test_bf16(unlimited: Any) -> None:
    """As near to the model in f32 as its own path in bf16 is, in a prompt and in decoding."""

    def run(model: Any) -> Tensor:
        out = model(tokens(8, 60), use_cache=True)
        step = model(tokens(8, 61)[:, 60:], cache_params=out.cache_params)
        return torch.cat([out.logits, step.logits], 1).float()

    with torch.no_grad():
        exact = run(unlimited)
    theirs, ours = both(unlimited.to(torch.bfloat16), run)
    errors = [(logits - exact).pow(2).mean().sqrt() for logits in (theirs, ours)]
    assert errors[1] < 1.2 * errors[0], errors


def test_weights_may_change(build: Any) -> None:
    """What is derived of weights is made again after an update in place and after new ones are loaded."""
    model, other = build(), build()
    with torch.no_grad(), use_longspan(model):
        model(tokens(1, 9))
        for scale in (0.5, 1.5):
            for m in (model, other):
                for layer in m.backbone.layers:
                    layer.mixer.A_log.mul_(scale)
                    layer.mixer.conv1d.weight.mul_(scale)
            close(model(tokens(1, 9)).logits, other(tokens(1, 9)).logits)
        model.load_state_dict(build().state_dict())
        close(model(tokens(1, 9)).logits, build()(tokens(1, 9)).logits)


def test_put_back(build: Any) -> None:
    model = build()
    before = [dict(m.__dict__) for m in model.modules()]
    replaced = use_longspan(model)
    assert len(replaced.mixers) == 3
    with pytest.raises(LongspanError, match="bad_value: layer 0 has a forward of its own already"):
        use_longspan(model)
    replaced.remove()
    assert [set(m.__dict__) for m in model.modules()] == [set(b) for b in before]


def test_refused() -> None:
    for model, words in (
        (torch.nn.Linear(2, 2), "bad_value: Linear has no mixer of Mamba or Mamba-2"),
        (mamba(hidden_act="gelu"), "bad_value: layer 0 has the activation gelu, silu is wanted"),
        (mamba(conv_kernel=5), "bad_value: layer 0 has a convolution of 5 taps, 2 to 4 are possible"),
        (mamba2(state_size=264), "bad_value: layer 0 has state size 264, 256 is the most"),
        (mamba().to("meta"), "bad_value: layer 0 is on device meta, cpu is wanted"),
    ):
        with pytest.raises(LongspanError, match=words):
            use_longspan(model)
    model = mamba()
    with use_longspan(model), pytest.raises(LongspanError, match="no_gradient: longspan::"):
        model(tokens(1, 5), labels=tokens(1, 5)).loss.backward()
