"""The shape of the source: names, docstrings, and the drawn tree of errors.

Sizes and the other rules that ``make lint`` checks are in ``tests/house``.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from murmur_streams.core.model import errors

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "murmur_streams"

FORBIDDEN_NAMES = {"utils", "helpers", "common", "base", "manager", "misc"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def packages() -> list[Path]:
    """Every folder with Python files; its ``__init__`` has to say what the folder holds."""
    return sorted({path.parent for path in modules()})


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def error_classes() -> dict[str, type[BaseException]]:
    return {
        name: value
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, BaseException) and value.__module__ == errors.__name__
    }


def drawn_parents() -> dict[str, str | None]:
    """Read the tree in the docstring: each error's name and the name it hangs from."""
    parents: dict[str, str | None] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.match(r"^ {4}([ │├└─]*)(\w+Error)\b", line)
        if drawn:
            depth, name = len(drawn[1]) // 4, drawn[2]
            branch[depth:] = [name]
            parents[name] = branch[depth - 1] if depth else None
    return parents


def real_parents() -> dict[str, str | None]:
    """The same from the classes: the base among our own errors, if there is one."""
    ours = error_classes()
    return {
        name: next((base.__name__ for base in cls.__bases__ if base in ours.values()), None)
        for name, cls in ours.items()
    }


def test_every_error_is_named_an_error() -> None:
    """The name ends with Error."""
    assert [name for name in error_classes() if not name.endswith("Error")] == []


def test_every_error_is_a_murmur_error() -> None:
    """Callers can catch all of them by one class."""
    strangers = [
        name for name, cls in error_classes().items() if not issubclass(cls, errors.MurmurError)
    ]
    assert strangers == []


def test_the_drawn_tree_of_errors_is_the_real_one() -> None:
    """The drawing in errors.py agrees with the classes."""
    assert drawn_parents() == real_parents()


def test_no_module_has_a_name_that_says_nothing() -> None:
    """Names such as utils or helpers are refused."""
    paths = [*modules(), *packages()]
    assert [shown(path) for path in paths if path.stem.strip("_") in FORBIDDEN_NAMES] == []


def test_every_package_says_what_it_holds() -> None:
    """Its __init__ has a docstring."""
    silent = [
        shown(package)
        for package in packages()
        if not (init := package / "__init__.py").exists()
        or not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")))
    ]
    assert silent == []
