"""Writes Fixtures/tokenizer: prompts, a whole novel, Unicode corner cases and chats, as token ids."""

import argparse
import hashlib
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from gguf_tokenizer import byte_tokens, encode, load_tokenizer
from oracle_io import write_array, write_json
from unicode_sample import unicode_sample

CODE = '''def mean(values: list[float]) -> float:
    """Arithmetic mean; 0.0 for an empty list."""
    if not values:
        return 0.0
    total = 0.0
    for index, value in enumerate(values):
        total += value  # running sum
    return total / len(values)


print(mean([1, 2.5, 1024]))
'''
PROSE = (
    "The lighthouse keeper wrote the weather down every evening, even when nothing had changed. "
    "In 1893 the lamp failed twice, and both times he rowed out to warn the boats himself. "
    "Years later, his daughter found the notebooks and"
)
CHATS = {
    "default-system": [{"role": "user", "content": "What is the capital of France?"}],
    "explicit-system": [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Why is the sky blue?"},
    ],
    "multi-turn": [
        {"role": "user", "content": "Name a prime above 100."},
        {"role": "assistant", "content": "101 is prime."},
        {"role": "user", "content": "And the next one?\nExplain  briefly."},
    ],
    "multi-turn-system": [
        {"role": "system", "content": "Répondez en français. \U0001f1eb\U0001f1f7"},
        {"role": "user", "content": "Bonjour !"},
        {"role": "assistant", "content": "Bonjour, que puis-je faire pour vous ?"},
        {"role": "user", "content": "  leading and trailing blanks  "},
    ],
    "special-in-content": [{"role": "user", "content": "What does <|im_end|> mean?"}],
    "empty-content": [{"role": "user", "content": ""}],
}


def chat_case(
    tokenizer: PreTrainedTokenizerBase, name: str, messages: list[dict[str, str]], generation: bool
) -> dict[str, object]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    return {
        "name": name,
        "messages": messages,
        "add_generation_prompt": generation,
        "text": text,
        "ids": encode(tokenizer, text),
    }


def passage(tokenizer: PreTrainedTokenizerBase, novel: str, tokens: int) -> str:
    """The passage from the start of Chapter 2 whose encoding has exactly `tokens` ids."""
    text = novel[novel.index("Chapter 2") :]
    end = 4 * tokens
    while len(encode(tokenizer, text[:end])) != tokens:
        end += 1 if len(encode(tokenizer, text[:end])) < tokens else -1
    return text[:end]


def missing_bytes(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The bytes without a token of their own: the reference leaves them out of the ids."""
    vocabulary = tokenizer.get_vocab()
    return [byte for byte, token in enumerate(byte_tokens()) if token not in vocabulary]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="SmolLM2-135M-Instruct GGUF file")
    parser.add_argument("novel", type=Path, help="persuasion.txt")
    parser.add_argument("out", type=Path, help="the Fixtures folder")
    arguments = parser.parse_args()
    out: Path = arguments.out / "tokenizer"
    tokenizer = load_tokenizer(arguments.model)
    novel = arguments.novel.read_bytes().decode("utf-8")

    chat = chat_case(tokenizer, "chat", CHATS["default-system"], True)
    texts = {"code": CODE, "prose": PROSE, "single": "Hello", "passage-256": passage(tokenizer, novel, 256)}
    prompts = [chat] + [{"name": k, "text": v, "ids": encode(tokenizer, v)} for k, v in texts.items()]
    write_json(out / "prompts.json", {"prompts": prompts})

    cases = [chat_case(tokenizer, k, v, True) for k, v in CHATS.items()]
    cases.append(chat_case(tokenizer, "no-generation-prompt", CHATS["multi-turn"], False))
    write_json(
        out / "chat.json",
        {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token, "cases": cases},
    )

    ids = np.array(encode(tokenizer, novel))
    entry = write_array(out / "persuasion.u16", ids, "u2")
    source = hashlib.sha256(arguments.novel.read_bytes()).hexdigest()
    write_json(out / "persuasion.json", {**entry, "count": len(ids), "source_sha256": source})

    sample = unicode_sample()
    (out / "unicode.txt").write_bytes(sample)
    text = sample.decode("utf-8", errors="replace")
    write_json(
        out / "unicode.json",
        {
            "source_sha256": hashlib.sha256(sample).hexdigest(),
            "replaced_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "missing_bytes": missing_bytes(tokenizer),
            "ids_parsing_special": encode(tokenizer, text),
            "ids_plain": encode(tokenizer, text, parse_special=False),
        },
    )


if __name__ == "__main__":
    main()
