#!/usr/bin/env python3
"""Lists public symbols of Swift modules that have no documentation comment.

documented.py SYMBOL_GRAPH...   of all modules at once, as swift-symbolgraph-extract writes them

A member counts as documented where a protocol that its type conforms to documents the requirement.
"""

import json
import sys
from pathlib import Path

# Requirements of the standard library, which documents them.
STANDARD = {"description", "rawValue", "init(rawValue:)", "init(from:)", "encode(to:)"}
MEMBER = {"memberOf", "requirementOf", "optionalRequirementOf"}


def main() -> int:
    symbols: dict[str, dict] = {}
    protocols: dict[str, set[str]] = {}
    members: dict[str, set[str]] = {}
    owner: dict[str, str] = {}
    for path in sys.argv[1:]:
        graph = json.loads(Path(path).read_text())
        for symbol in graph["symbols"]:
            symbols[symbol["identifier"]["precise"]] = symbol
        for relation in graph["relationships"]:
            if relation["kind"] == "conformsTo":
                protocols.setdefault(relation["source"], set()).add(relation["target"])
            elif relation["kind"] in MEMBER:
                members.setdefault(relation["target"], set()).add(relation["source"])
                owner[relation["source"]] = relation["target"]

    def conformances(type_: str) -> set[str]:
        found: set[str] = set()
        open_ = [type_]
        while open_:
            for protocol in protocols.get(open_.pop(), set()) - found:
                found.add(protocol)
                open_.append(protocol)
        return found

    def is_documented(identifier: str) -> bool:
        symbol = symbols[identifier]
        name = symbol["pathComponents"][-1]
        if "docComment" in symbol or "::SYNTHESIZED::" in identifier or name in STANDARD:
            return True
        requirements = (
            symbols[member]
            for protocol in conformances(owner.get(identifier, ""))
            for member in members.get(protocol, set())
            if member in symbols
        )
        return any(r["pathComponents"][-1] == name and "docComment" in r for r in requirements)

    if not symbols:
        print("no symbols", file=sys.stderr)
        return 1
    missing = [symbol for identifier, symbol in symbols.items() if not is_documented(identifier)]
    for symbol in missing:
        place = symbol.get("location", {})
        file = place.get("uri", "").removeprefix("file://")
        line = place.get("position", {}).get("line", -1) + 1
        print(f"{file}:{line}: {'.'.join(symbol['pathComponents'])} has no documentation comment", file=sys.stderr)
    if not missing:
        print(f"{len(symbols)} public symbols are documented")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
