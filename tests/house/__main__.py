"""``python -m tests.house``: the rules of CONTRIBUTING.md that a program can check."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.house import language, structure
from tests.house.source import Fault, Tree

ROOT = Path(__file__).resolve().parents[2]
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
    structure.long_with_comments,
    structure.long_functions,
)


def main() -> int:
    """Print every fault; 1 when there is one."""
    tree = Tree(ROOT)
    faults = [fault for rule in RULES for fault in rule(tree)]
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
