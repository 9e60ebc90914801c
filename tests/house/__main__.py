"""``python -m tests.house``: the rules of CONTRIBUTING.md that a program can check.

``still_allowed.toml`` has, for each rule and top folder, how many faults there are from the time
before the rule. A number may only go down: ``python -m tests.house --lower`` writes today's.
"""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.house import language, structure
from tests.house.source import Fault, Tree

ROOT = Path(__file__).resolve().parents[2]
STILL_ALLOWED = Path(__file__).with_name("still_allowed.toml")
RULES: tuple[Callable[[Tree], Iterable[Fault]], ...] = (
    language.dialect_in_names,
    language.is_no,
    language.headless_sentences,
    language.long_test_names,
    language.missing_docstrings,
    structure.repeated_classes,
    structure.import_circles,
    structure.hidden_imports,
    structure.long_files,
    structure.long_functions,
)
Allowed = dict[str, dict[str, int]]


def main(arguments: list[str]) -> int:
    """Print every fault over the allowed number; 1 when there is one."""
    allowed: Allowed = tomllib.loads(STILL_ALLOWED.read_text(encoding="utf-8"))
    tree = Tree(ROOT)
    found = {rule.__name__: list(rule(tree)) for rule in RULES}
    over = [
        fault for name, faults in found.items() for fault in too_many(faults, allowed.get(name))
    ]
    print(*over, sep="\n", end="\n" if over else "")
    if "--lower" in arguments:
        STILL_ALLOWED.write_text(lowered(allowed, found), encoding="utf-8")
    return 1 if over else 0


def too_many(faults: list[Fault], allowed: dict[str, int] | None) -> list[Fault]:
    """The faults of each folder that has more than it may have."""
    counts = Counter(fault.folder for fault in faults)
    limits = allowed or {}
    return [fault for fault in faults if counts[fault.folder] > limits.get(fault.folder, 0)]


def lowered(allowed: Allowed, found: dict[str, list[Fault]]) -> str:
    """The table of allowed numbers, each at most as high as what was found."""
    lines = ["# How many faults each rule of tests/house still allows, by top folder."]
    for rule, folders in allowed.items():
        counts = Counter(fault.folder for fault in found.get(rule, []))
        left = {name: min(limit, counts[name]) for name, limit in folders.items()}
        rows = [f'"{name}" = {number}' for name, number in left.items() if number]
        lines += ["", f"[{rule}]", *rows] if rows else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
