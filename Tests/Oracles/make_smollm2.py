"""Writes Fixtures/smollm2: logits, losses and greedy continuations of the prompts of make_tokenizer.py."""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from oracle_io import Blob, write_json

NEW_TOKENS = 32
LOSS_PROMPT = "passage-256"
SAMPLED_EVERY = 768  # 64 of the 49,152 logits, at every position


def top(logits: torch.Tensor, count: int) -> dict[str, object]:
    values, ids = logits.topk(count)
    return {"ids": ids.tolist(), "logits": values.tolist(), "gap": (values[0] - values[1]).item()}


def greedy(model: LlamaForCausalLM, ids: list[int]) -> dict[str, list]:
    """Always `NEW_TOKENS` ids, past any end-of-sequence id; `gaps` are top-1 minus top-2 logits."""
    found: dict[str, list] = {"ids": [], "gaps": []}
    output = model(torch.tensor([ids]), use_cache=True)
    while True:
        best = top(output.logits[0, -1], 2)
        found["ids"].append(best["ids"][0])
        found["gaps"].append(best["gap"])
        if len(found["ids"]) == NEW_TOKENS:
            return found
        last = torch.tensor([[found["ids"][-1]]])
        output = model(last, past_key_values=output.past_key_values, use_cache=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="SmolLM2-135M-Instruct GGUF file")
    parser.add_argument("out", type=Path, help="the Fixtures folder, with tokenizer/prompts.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prompts = json.loads((arguments.out / "tokenizer" / "prompts.json").read_text())["prompts"]
    model = AutoModelForCausalLM.from_pretrained(
        str(arguments.model.parent),
        gguf_file=arguments.model.name,
        dtype=torch.float32,
        attn_implementation="eager",
    ).eval()

    blob = Blob()
    cases = []
    for prompt in prompts:
        ids = prompt["ids"]
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        case = {"name": prompt["name"], "last_logits": blob.add(logits[-1]), "top": top(logits[-1], 8)}
        case["sampled_logits"] = blob.add(logits[:, ::SAMPLED_EVERY].contiguous())
        if prompt["name"] == LOSS_PROMPT:
            log_p = logits[:-1].double().log_softmax(-1)
            nll = -log_p.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
            case |= {"nll": blob.add(nll), "mean_nll": nll.mean().item()}
        else:
            case["greedy"] = greedy(model, ids)
        cases.append(case)
    out = arguments.out / "smollm2"
    write_json(out / "smollm2.json", {"array": blob.write(out / "smollm2.f32"), "sampled_every": SAMPLED_EVERY, "cases": cases})


if __name__ == "__main__":
    main()
