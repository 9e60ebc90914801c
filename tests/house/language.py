"""Plain English: no private dialect in names, and none of its most common sentence in prose."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.house.source import Fault, Source, Tree

DIALECT = frozenset(
    ["told", "tell", "tells", "telling", "word", "words", "place", "places", "kept", "nobody"]
)
"""Parts of names that mean too many things: write reports, notifies, position, retained, ..."""
CURSOR_FILES = ("murmur_streams/core/model/entries.py", "murmur_streams/core/model/feed.py")
"""Files that may call the position of a cursor its place."""
TEST_NAME = 60
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NAME_FIELDS = ("id", "attr", "arg", "name", "asname", "rest", "module")
_LUA_REST = re.compile(
    r"--\[\[.*?\]\]|--[^\n]*|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"", re.DOTALL
)
_LUA_NAME = re.compile(r"[A-Za-z_]\w*")
_QUOTED = re.compile(r"`[^`\n]+`")
_NO_SENTENCE = re.compile(r"^```.*?^```|^#.*?$", re.MULTILINE | re.DOTALL)
"""Blocks of code and headings, which are not statements."""
_HEADLESS = re.compile(
    r"(?:(?<=[.:!?]\s)|^(?:[-*] |\d+\. |> )?)(?:Who|Whoever|What|Whatever)\s[^.?!|]*\.",
    re.MULTILINE,
)
_IS_NO = re.compile(r"\b(?:is|are|was|were)\s+(?:(?:#|--)\s*)?no\b", re.IGNORECASE)


def dialect_in_names(tree: Tree) -> Iterator[Fault]:
    """No name has a part of the dialect: variables, functions, classes, arguments, files."""
    for source in [*tree.python, *tree.lua]:
        stem = source.path.rpartition("/")[2].partition(".")[0]
        found = {stem: 1}
        names = _lua_names(source) if source.path.endswith(".lua") else _python_names(source)
        for name, line in names:
            found[name] = min(line, found.get(name, line))
        for name, line in sorted(found.items(), key=lambda item: item[1]):
            parts = {part.lower() for part in _PART.findall(name)} & DIALECT
            if source.path in CURSOR_FILES:
                parts -= {"place", "places"}
            if parts:
                yield Fault(source.path, line, f"{name}: say it in plain English")


def is_no(tree: Tree) -> Iterator[Fault]:
    """No sentence says that "this `is no` stream": it is not one, or it does not exist."""
    for source in [*tree.python, *tree.lua, *tree.pages]:
        for found in _IS_NO.finditer(_without(_QUOTED, source.text)):
            line = source.text.count("\n", 0, found.start()) + 1
            yield Fault(source.path, line, f'"{" ".join(found[0].split())}": write "is not a ..."')


def headless_sentences(tree: Tree) -> Iterator[Fault]:
    """No statement in the documentation begins with Who or What: its subject has a name."""
    for source in tree.pages:
        for found in _HEADLESS.finditer(_without(_QUOTED, _without(_NO_SENTENCE, source.text))):
            line = source.text.count("\n", 0, found.start()) + 1
            text = " ".join(found[0].split())
            yield Fault(source.path, line, f'"{text[:40]} ...": name the subject')


def long_test_names(tree: Tree) -> Iterator[Fault]:
    """A test's name has at most 60 characters; its docstring says what it shows."""
    for source, test in _tests(tree):
        if len(test.name) > TEST_NAME:
            yield Fault(source.path, test.lineno, f"{test.name}: {len(test.name)} characters")


def missing_docstrings(tree: Tree) -> Iterator[Fault]:
    """A test's docstring says in plain words what it shows."""
    for source, test in _tests(tree):
        if not ast.get_docstring(test):
            yield Fault(source.path, test.lineno, f"{test.name}: say in a docstring what it shows")


def _tests(tree: Tree) -> Iterator[tuple[Source, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for source in tree.python:
        for node in source.nodes if source.path.startswith("tests/") else ():
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and node.name.startswith("test_"):
                yield source, node


def _without(part: re.Pattern[str], text: str) -> str:
    """The text with blanks where the part matches; every line keeps its number."""
    return part.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _python_names(source: Source) -> Iterator[tuple[str, int]]:
    for node in source.nodes:
        if isinstance(node, ast.keyword):
            continue  # The called function has the name; a function of ours is checked there.
        line = getattr(node, "lineno", 1)
        for field in _NAME_FIELDS:
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield from ((part, line) for part in name.split("."))
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from ((name, line) for name in node.names)


def _lua_names(source: Source) -> Iterator[tuple[str, int]]:
    code = _LUA_REST.sub(lambda rest: "\n" * rest[0].count("\n"), source.text)
    for found in _LUA_NAME.finditer(code):
        yield found[0], code.count("\n", 0, found.start()) + 1
