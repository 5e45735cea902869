"""The structs have the sizes and offsets that a C compiler gives those of the headers."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from longspan import structs
from longspan.library import ABI
from longspan.workspace import ALIGNMENT

HEADERS = Path(os.environ.get("LONGSPAN_HEADERS", Path(__file__).parents[4] / "CKernels/include"))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """size of `struct`, and offset and size of `struct.field`, as a program prints them."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not HEADERS.is_dir():
        pytest.skip(f"needs a C compiler and the headers in {HEADERS}")
    lines = []
    for name, struct in structs.BY_NAME.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, *_ in struct._fields_:
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
            lines.append(f'printf("{name}.{field}.size %zu\\n", sizeof((({name} *)0)->{field}));')
    lines.append('printf("LSPAN_ABI %d\\n", LSPAN_ABI);')
    lines.append('printf("LSPAN_WORKSPACE_ALIGNMENT %d\\n", LSPAN_WORKSPACE_ALIGNMENT);')
    lines.append('printf("LSPAN_ATTENTION_MAX_DECODE_TOKENS %d\\n", LSPAN_ATTENTION_MAX_DECODE_TOKENS);')
    lines.append('printf("LSPAN_SSM_MAX_UPDATE_TOKENS %d\\n", LSPAN_SSM_MAX_UPDATE_TOKENS);')
    folder = tmp_path_factory.mktemp("layout")
    source = folder / "layout.c"
    body = "\n    ".join(lines)
    source.write_text(
        f"#include <longspan/longspan.h>\n#include <stdio.h>\nint main(void)\n{{\n    {body}\n    return 0;\n}}\n"
    )
    program = folder / "layout"
    subprocess.run([compiler, "-std=c11", "-I", HEADERS, source, "-o", program], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in (line.split() for line in printed.splitlines())}


@pytest.mark.parametrize("name", structs.BY_NAME)
def test_sizes_and_offsets(name: str, layout: dict[str, int]) -> None:
    struct = structs.BY_NAME[name]
    assert ctypes.sizeof(struct) == layout[name]
    for field, *_ in struct._fields_:
        described = getattr(struct, field)
        assert (described.offset, described.size) == (layout[f"{name}.{field}"], layout[f"{name}.{field}.size"]), field


def test_constants(layout: dict[str, int]) -> None:
    from longspan.torch_ops import MAX_DECODE_TOKENS, MAX_UPDATE_TOKENS

    assert layout["LSPAN_ABI"] == ABI
    assert layout["LSPAN_WORKSPACE_ALIGNMENT"] == ALIGNMENT
    assert layout["LSPAN_ATTENTION_MAX_DECODE_TOKENS"] == MAX_DECODE_TOKENS
    assert layout["LSPAN_SSM_MAX_UPDATE_TOKENS"] == MAX_UPDATE_TOKENS
