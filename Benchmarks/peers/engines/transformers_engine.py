"""transformers, served to models.py: a model read from a GGUF file in f32, with SDPA. Argument: the number of threads.

Commands, a line each: `about`; `load PATH`; `prompt TOKENS WARM`, answered with the nanoseconds in which a prompt of
random tokens is read into a new cache and gives the logits of its last position. If WARM is 1, one that is not timed
comes first.
"""

import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

from engine import answer_commands


class Engine:
    def __init__(self) -> None:
        self.model: torch.nn.Module | None = None

    def load(self, path: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()

    @torch.inference_mode()
    def prompt(self, tokens: int) -> int:
        if self.model is None:
            raise RuntimeError("no model is loaded")
        ids = torch.randint(self.model.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(tokens))
        start = time.perf_counter_ns()
        self.model(ids, use_cache=True, logits_to_keep=1)
        return time.perf_counter_ns() - start

    def answer(self, line: str) -> str:
        match line.strip().split(" ", 1):
            case ["about"]:
                return f"ok {transformers.__version__} with torch {torch.__version__}"
            case ["load", path]:
                self.load(Path(path))
                return "ok"
            case ["prompt", numbers]:
                tokens, warm = map(int, numbers.split())
                if warm:
                    self.prompt(tokens)
                return f"ns {self.prompt(tokens)}"
            case _:
                return "error command not understood"


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    answer_commands(Engine().answer)


if __name__ == "__main__":
    main()
