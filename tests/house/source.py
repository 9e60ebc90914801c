"""The files that the checks read, each read and parsed once."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CODE = ("murmur_streams", "tests", "benchmarks", "examples")
LUA = ("lua",)
PAGES = ("*.md", "docs/**/*.md")


@dataclass(frozen=True, slots=True)
class Fault:
    """One line that breaks a rule."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Source:
    """One file: its path from the repository's root, and its text."""

    path: str
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of a Python file's syntax tree."""
        return list(ast.walk(ast.parse(self.text)))

    @property
    def is_package(self) -> bool:
        """Whether this is the ``__init__`` of a package."""
        return self.path.endswith("__init__.py")

    @property
    def module(self) -> str:
        """The name under which Python imports this file."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Tree:
    """All files of a repository that the checks look at.

    Args:
        root: the repository's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def python(self) -> list[Source]:
        """The Python files."""
        return self._read(CODE, "*.py")

    @cached_property
    def package(self) -> list[Source]:
        """The Python files of the package itself."""
        return [source for source in self.python if source.path.startswith("murmur_streams/")]

    @cached_property
    def lua(self) -> list[Source]:
        """The scripts."""
        return self._read(LUA, "*.lua")

    @cached_property
    def pages(self) -> list[Source]:
        """The documentation."""
        return [self._source(path) for each in PAGES for path in sorted(self._root.glob(each))]

    def _read(self, folders: tuple[str, ...], pattern: str) -> list[Source]:
        return [
            self._source(path)
            for folder in folders
            for path in sorted((self._root / folder).rglob(pattern))
        ]

    def _source(self, path: Path) -> Source:
        return Source(path.relative_to(self._root).as_posix(), path.read_text(encoding="utf-8"))
