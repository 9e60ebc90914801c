"""The shape of the package: sizes, names of classes, and imports that run in circles."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from tests.house.source import Fault, Source, Tree

CODE_LINES = 240
PYTHON_LINES = 400
LUA_LINES = 120
FUNCTION_LINES = 50
INTEROP = "murmur_streams/interop/"
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def long_files(tree: Tree) -> Iterator[Fault]:
    """A file has at most 240 lines of code: blank lines, comments and docstrings do not count.

    A file of tests may have more.
    """
    for source in tree.python:
        lines = 0 if source.path.startswith("tests/") else code_lines(source)
        if lines > CODE_LINES:
            yield Fault(source.path, 1, f"{lines} lines of code, {CODE_LINES} allowed")


def long_with_comments(tree: Tree) -> Iterator[Fault]:
    """With its comments, a file of the package has at most 400 lines, and a script 120."""
    for sources, most in ((tree.package, PYTHON_LINES), (tree.lua, LUA_LINES)):
        for source in sources:
            lines = len(source.text.splitlines())
            if lines > most:
                yield Fault(source.path, 1, f"{lines} lines with comments, {most} allowed")


def long_functions(tree: Tree) -> Iterator[Fault]:
    """A function has at most 50 lines, its docstring and decorators not counted."""
    for source in tree.python:
        for node in source.nodes:
            if isinstance(node, _Function):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                docstring = _docstring(node)
                if docstring is not None:
                    length -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
                if length > FUNCTION_LINES:
                    text = f"{node.name}: {length} lines, {FUNCTION_LINES} allowed"
                    yield Fault(source.path, node.lineno, text)


def repeated_classes(tree: Tree) -> Iterator[Fault]:
    """A class name stands for one concept in the whole package.

    ``interop`` replaces classes of other packages, whose names it must have.
    """
    homes: dict[str, list[tuple[Source, int]]] = defaultdict(list)
    for source in tree.package:
        for node in () if source.path.startswith(INTEROP) else source.nodes:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append((source, node.lineno))
    for name, found in sorted(homes.items()):
        first = found[0][0].path
        for source, line in found[1:]:
            yield Fault(source.path, line, f"class {name} is in {first} too")


def hidden_imports(tree: Tree) -> Iterator[Fault]:
    """No module names another one in a string, where the check of layers cannot see it.

    The tables of an ``__init__``, which say where each public name is, are what strings are for.
    """
    modules = {source.module for source in tree.package}
    for source in tree.package:
        if not source.is_package:
            for name, line in _named_in_strings(source, modules):
                yield Fault(source.path, line, f"{name} is named in a string: import it")


def import_circles(tree: Tree) -> Iterator[Fault]:
    """Imports run in no circle, wherever they stand.

    In functions, under ``TYPE_CHECKING`` and in strings that name a module, too.
    """
    modules = {source.module: source for source in tree.package}
    graph = {name: _imported(source, set(modules)) for name, source in modules.items()}
    for circle in _circles(graph):
        yield Fault(modules[circle[0]].path, 1, "a circle of imports: " + ", ".join(circle))


def code_lines(source: Source) -> int:
    """The number of lines that are neither blank nor comment nor docstring."""
    lines = source.text.splitlines()
    counted = {n for n, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"}
    for node in source.nodes:
        # A blank line or a # inside of a long string belongs to the string.
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno != node.lineno:
            counted.update(_span(node))
    for node in source.nodes:
        body = getattr(node, "body", None)
        if isinstance(body, list):
            for statement in filter(_is_text, body):
                counted.difference_update(_span(statement))
    return len(counted)


def _span(node: ast.expr | ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _is_text(node: object) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _docstring(node: _Function) -> ast.stmt | None:
    return node.body[0] if ast.get_docstring(node) is not None else None


def _named_in_strings(source: Source, modules: set[str]) -> Iterator[tuple[str, int]]:
    """The modules that a file names in strings, if it imports by name at all."""
    calls = ("import_module", "__import__")
    if not any(call in source.text for call in calls):
        return
    for node in source.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.removesuffix(".")
            if "." in name and name in modules:
                yield name, node.lineno


def _imported(source: Source, modules: set[str]) -> set[str]:
    """The modules of the package that this one imports."""
    found = {name for name, _ in _named_in_strings(source, modules)}
    for node in source.nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else node.module)
    return (found & modules) - {source.module}


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach each other (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        path.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
            if other in path:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == order[name]:
            start = path.index(name)
            if len(path) - start > 1:
                circles.append(sorted(path[start:]))
            del path[start:]

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return circles
