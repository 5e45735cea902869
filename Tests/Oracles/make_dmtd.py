"""Writes Fixtures/dmtd: a tiny Llama and what direct multi-token decoding's training formula gives on whole texts.

With e the early layers' output, t the thinking layers' output from e, and m 1 at the heads of cycles of tau tokens
and 0 elsewhere, the logits are LMhead(norm(Late(e + m t))), causal, all positions at once: no cache, no order of
steps (arXiv 2510.11958). Phase `absolute`: head i has i mod tau = 0. Phase `prompt`: the tokens of
prompts have t as their late input, as in an ordinary pass, and a prompt that ends before position p is followed by
heads p + j with j mod tau = 0, up to the next prompt.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from make_tiny import reference_model
from oracle_io import Blob, write_json
from tiny_llama import Shape, random_weights, write_gguf

SHAPE = Shape(24, 40, 5, heads=3, kv_heads=1, head_dim=8, theta=500.0, eps=1e-4, tied=True)
CYCLES = [1, 2, 3, 4, 6]
# early and late layers; the others think
SPLITS = [(0, 2), (2, 1)]
# prompts and what follows them, which ends within cycles
TURNS = [(5, 3), (2, 1), (4, 8)]
# every so manieth logit is stored
STRIDE = 4


def dense_causal(model: LlamaForCausalLM, first: int, end: int, states: torch.Tensor) -> torch.Tensor:
    """Layers first ..< end on [tokens, hidden], with a full mask."""
    tokens = states.shape[0]
    mask = torch.full((tokens, tokens), -torch.inf, dtype=states.dtype).triu(1)[None, None]
    positions = torch.arange(tokens)[None]
    states = states[None]
    angles = model.model.rotary_emb(states, positions)
    for layer in model.model.layers[first:end]:
        output = layer(states, attention_mask=mask, position_ids=positions, position_embeddings=angles)
        states = output[0] if isinstance(output, tuple) else output
    return states[0]


@torch.no_grad()
def logits(
    model: LlamaForCausalLM, ids: list[int], early: int, late: int, ordinary: torch.Tensor, heads: torch.Tensor
) -> torch.Tensor:
    """Logits of a text; `ordinary` marks the tokens of prompts read by an ordinary pass, `heads` is m."""
    count = len(model.model.layers)
    e = dense_causal(model, 0, early, model.model.embed_tokens(torch.tensor(ids)))
    t = dense_causal(model, early, count - late, e)
    late_input = torch.where(ordinary[:, None], t, e + heads[:, None] * t)
    return model.lm_head(model.model.norm(dense_causal(model, count - late, count, late_input)))


def absolute(length: int, cycle: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(length, dtype=torch.bool), (torch.arange(length) % cycle == 0).double()


def anchored(turns: list[tuple[int, int]], cycle: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns are lengths of a prompt and of what is generated after it."""
    ordinary: list[bool] = []
    heads: list[float] = []
    for prompt, generated in turns:
        ordinary += [True] * prompt + [False] * generated
        heads += [0.0] * prompt + [float(j % cycle == 0) for j in range(generated)]
    return torch.tensor(ordinary), torch.tensor(heads).double()


def prompt_lengths(cycle: int) -> list[int]:
    return sorted({length for length in (1, cycle - 1, cycle, cycle + 1) if length > 0})


@torch.no_grad()
def check(model: LlamaForCausalLM, ids: list[int]) -> None:
    """The layer by layer pass is the library's, and what could be got wrong shows in the logits."""
    whole = model(torch.tensor([ids]), use_cache=False).logits[0]
    assert torch.allclose(logits(model, ids, 1, 2, *anchored([(len(ids), 0)], 1)), whole, atol=1e-9)
    ordinary, heads = anchored([(5, len(ids) - 5)], 4)
    right = logits(model, ids, 0, 2, ordinary, heads)
    no_heads = torch.zeros_like(heads)
    none_ordinary = torch.zeros_like(ordinary)
    wrong = [
        logits(model, ids, 0, 2, ordinary, heads.roll(1)),
        logits(model, ids, 0, 2, ordinary, no_heads),
        # e not added at heads
        logits(model, ids, 0, 2, ordinary | (heads == 1), heads),
        # e added in the prompt
        logits(model, ids, 0, 2, none_ordinary, heads + ordinary.double()),
        logits(model, ids, 1, 2, ordinary, heads),
    ]
    for other in wrong:
        assert (other[-1] - right[-1]).norm() > 1e-2 * right[-1].norm()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the Fixtures folder")
    out: Path = parser.parse_args().out / "dmtd"
    torch.set_num_threads(1)
    weights = random_weights(SHAPE, seed=21)
    write_gguf(out / "dmtd.gguf", SHAPE, weights)
    model = reference_model(SHAPE, weights).double()
    rng = np.random.default_rng(22)
    ids = rng.integers(0, SHAPE.vocab, 24).tolist()
    check(model, ids)

    blob = Blob()
    cases: list[dict[str, object]] = []

    def add(cycle: int, early: int, late: int, phase: str, turns: list[tuple[int, int]]) -> None:
        length = sum(prompt + generated for prompt, generated in turns)
        masks = absolute(length, cycle) if phase == "absolute" else anchored(turns, cycle)
        found = logits(model, ids[:length], early, late, *masks)
        cases.append(
            {
                "cycle": cycle,
                "early": early,
                "late": late,
                "phase": phase,
                "turns": turns,
                "logits": blob.add(found[:, ::STRIDE].numpy()),
            }
        )

    for cycle in CYCLES:
        for early, late in SPLITS:
            for prompt in prompt_lengths(cycle):
                # two cycles, and the head of a third with its successor
                add(cycle, early, late, "prompt", [(prompt, 2 * cycle + 2)])
            for phase in ("prompt", "absolute"):
                add(cycle, early, late, phase, TURNS)
    write_json(
        out / "dmtd.json",
        {
            "model": "dmtd.gguf",
            "shape": dataclasses.asdict(SHAPE),
            "ids": ids,
            "stride": STRIDE,
            "array": blob.write(out / "dmtd.f32"),
            "cases": cases,
        },
    )


if __name__ == "__main__":
    main()
