#!/usr/bin/env python3
"""Compares the library's binary interface with the lists beside this file.

check.py --clang CLANG --shared liblongspan.so --static liblongspan.a [--update]

symbols.txt  the functions that the shared library exports: those of the headers, no others
structs.txt  sizes and offsets of public structs, values of enums and of macros, on 64-bit systems
"""

import argparse
import difflib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parent / "include"
HEADERS = INCLUDE / "longspan"


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def declared_functions(problems: list[str]) -> list[str]:
    """Functions that headers declare with LSPAN_API; each must say since when it is there."""
    names: list[str] = []
    for header in sorted(HEADERS.glob("*.h")):
        lines = header.read_text().split("\n")
        for number, line in enumerate(lines):
            if not re.match(r"LSPAN_API |typedef |static inline ", line):
                continue
            if header.name != "export.h" and not re.fullmatch(r"LSPAN_SINCE\(\d+, \d+\)", lines[number - 1]):
                problems.append(f"{header.name}:{number + 1}: no LSPAN_SINCE on the line before it")
            if line.startswith("LSPAN_API "):
                match = re.search(r"\b(lspan_\w+)\(", line + lines[number + 1])
                if match is None:
                    problems.append(f"{header.name}:{number + 1}: LSPAN_API without a function")
                else:
                    names.append(match.group(1))
    return sorted(names)


def global_symbols(library: Path, dynamic: bool) -> set[str]:
    output = run("nm", "-g", "--defined-only", *(["-D"] if dynamic else []), str(library))
    return {fields[2] for line in output.split("\n") if len(fields := line.split()) == 3}


def is_public(node: dict, file: str) -> bool:
    return str(HEADERS) in file and str(node.get("name", "")).startswith(("lspan_", "LSPAN_"))


def interface_program(clang: str, umbrella: Path) -> str:
    """A C program that prints every size, offset and number of the headers, found in clang's syntax tree."""
    tree = json.loads(run(clang, "-std=c11", "-fsyntax-only", "-Xclang", "-ast-dump=json", str(umbrella)))
    lines: list[str] = []
    file = ""
    for node in tree["inner"]:
        # clang names a file only where it changes
        for place in (node.get("loc", {}), node.get("loc", {}).get("expansionLoc", {})):
            file = place.get("file", file)
        if not is_public(node, file):
            continue
        if node["kind"] == "RecordDecl" and node.get("completeDefinition"):
            name = node["name"]
            lines.append(f'    printf("struct %s %zu\\n", "{name}", sizeof(struct {name}));')
            for field in node.get("inner", []):
                if field["kind"] == "FieldDecl":
                    member = field["name"]
                    lines.append(
                        f'    printf("  %s.%s %zu\\n", "{name}", "{member}", offsetof(struct {name}, {member}));'
                    )
        if node["kind"] == "EnumDecl":
            lines.append(f'    printf("enum %s %zu\\n", "{node["name"]}", sizeof(enum {node["name"]}));')
            for constant in node.get("inner", []):
                if constant["kind"] == "EnumConstantDecl":
                    lines.append(f'    printf("  %s %d\\n", "{constant["name"]}", (int){constant["name"]});')
    macros = run(clang, "-std=c11", "-dM", "-E", str(umbrella))
    for name in sorted(re.findall(r"^#define (LSPAN_\w+) -?\d+$", macros, re.MULTILINE)):
        lines.append(f'    printf("macro %s %d\\n", "{name}", {name});')
    body = "\n".join(lines)
    return f"#include <longspan/longspan.h>\n#include <stdio.h>\n\nint main(void)\n{{\n{body}\n}}\n"


def interface(clang: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "interface.c"), Path(folder, "interface")
        source.write_text(interface_program(clang, HEADERS / "longspan.h"))
        run("gcc", "-std=c11", f"-I{INCLUDE}", str(source), "-o", str(program))
        return run(str(program)).split("\n")[:-1]


def compare(path: Path, found: list[str], update: bool) -> list[str]:
    if update:
        path.write_text("\n".join(found) + "\n")
    committed = path.read_text().split("\n")[:-1]
    return list(difflib.unified_diff(committed, found, f"abi/{path.name}", "this build", lineterm="", n=1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clang", default="clang")
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--static", type=Path, required=True)
    parser.add_argument("--update", action="store_true", help="write the lists anew")
    arguments = parser.parse_args()

    problems: list[str] = []
    declared = declared_functions(problems)
    exported = sorted(global_symbols(arguments.shared, dynamic=True))
    problems += [f"{name}: exported, but not declared with LSPAN_API" for name in exported if name not in declared]
    problems += [f"{name}: declared with LSPAN_API, but not exported" for name in declared if name not in exported]
    others = sorted(name for name in global_symbols(arguments.static, dynamic=False) if not name.startswith("lspan_"))
    problems += [f"{name}: a global name of the static library without the prefix lspan_" for name in others]
    for path, found in ((HERE / "symbols.txt", exported), (HERE / "structs.txt", interface(arguments.clang))):
        difference = compare(path, found, arguments.update)
        if difference:
            problems += [*difference, "", f"abi/{path.name} differs: README.md beside it says what that asks for; --update writes it"]
    print("\n".join(problems) or f"the interface is as listed: {len(exported)} functions")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
