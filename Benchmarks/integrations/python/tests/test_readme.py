"""The examples of README.md do what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"


def test_examples() -> None:
    names: dict[str, Any] = {}
    blocks = README.read_text().split("```python\n")[1:]
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block.split("```")[0], README, "exec"), names)
