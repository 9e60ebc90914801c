"""Each fact about HTTP that client and server share is written in one file."""

from __future__ import annotations

import ast
from pathlib import Path

import murmur_streams
from murmur_streams.wire.problems import SLUGS

PACKAGE = Path(murmur_streams.__file__).parent
HOME = PACKAGE / "wire" / "problems.py"
OF_HTTP = {"client", "server", "wire", "cli"}


def texts(path: Path) -> set[str]:
    """The strings of a module, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_a_problem_slug_stands_in_one_file() -> None:
    """Slugs of one word, such as ``timeout``, also mean other things outside the rooms of HTTP."""
    assert set(SLUGS) <= texts(HOME)
    found = {
        f"{path.relative_to(PACKAGE)}: {text}"
        for path in PACKAGE.rglob("*.py")
        for text in texts(path)
        if path != HOME
        and text in SLUGS
        and ("-" in text or path.relative_to(PACKAGE).parts[0] in OF_HTTP)
    }
    assert not found
