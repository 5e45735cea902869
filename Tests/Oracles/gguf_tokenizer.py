"""The Hugging Face tokenizer of a GGUF file."""

from pathlib import Path

import gguf
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoTokenizer, PreTrainedTokenizerBase


def smollm_pre_tokenizer() -> Sequence:
    return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)])


def load_tokenizer(model: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(str(model.parent), gguf_file=model.name)
    # transformers ignores `tokenizer.ggml.pre`; "smollm" first sets every character of category N
    # apart, which decides how the blanks before a digit split.
    pre = gguf.GGUFReader(model).fields["tokenizer.ggml.pre"].contents()
    if pre != "smollm":
        raise ValueError(f"pre-tokenizer {pre!r} is not covered by this oracle")
    tokenizer.backend_tokenizer.pre_tokenizer = smollm_pre_tokenizer()
    return tokenizer


def byte_tokens() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2's mapping)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def encode(tokenizer: PreTrainedTokenizerBase, text: str, parse_special: bool = True) -> list[int]:
    encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=not parse_special)
    return encoding["input_ids"]
