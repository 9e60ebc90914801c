"""The analysis of one Python source file: from any bytes to findings, without I/O."""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

LONG_FUNCTION_LINES = 60
DEEP_NESTING = 5
MAX_SOURCE_BYTES = 4 * 1024 * 1024
_MAX_MENTION = 200

_NAME = re.compile(r"[^\W\d]\w*")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)
_BLOCKS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)
# The filters of warnings are the whole process's; ast.parse holds the GIL anyway.
_PARSING = threading.Lock()


class FindingKind(StrEnum):
    """The kinds of findings."""

    LONG_FUNCTION = "long function"
    DEEP_NESTING = "deep nesting"
    UNUSED_IMPORT = "unused import"
    UNPARSABLE = "unparsable"


class Finding(BaseModel):
    """Something worth a look, with its location."""

    model_config = ConfigDict(frozen=True)

    kind: FindingKind
    file: str
    line: int
    subject: str
    """The function, the name, or the reason."""
    size: int = 0
    """Lines of a function, levels of nesting; else 0."""

    @property
    def location(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}"


class FileReport(BaseModel):
    """The analysis of one file."""

    model_config = ConfigDict(frozen=True)

    file: str
    lines: int = 0
    functions: int = 0
    findings: tuple[Finding, ...] = ()
    imports: tuple[str, ...] = ()
    """The top-level modules that it imports, each once; relative imports are left out."""


def analyse(source: bytes, file: str) -> FileReport:
    """Analyse one file's bytes; never raises, whatever they are.

    Args:
        source: the file's content.
        file: the name for its findings.
    """
    lines = source.count(b"\n") + (not source.endswith(b"\n") and bool(source))
    if len(source) > MAX_SOURCE_BYTES:
        return unparsable(file, f"over {MAX_SOURCE_BYTES // 2**20} MiB, left out", lines=lines)
    try:
        tree = _parse(source)
    except SyntaxError as error:
        # The message may quote the file: escapes in it must not reach a terminal.
        return unparsable(file, _one_line(error.msg), line=error.lineno or 1, lines=lines)
    except (RecursionError, MemoryError):
        # The parser raises MemoryError, too, when its own stack is full.
        return unparsable(file, "nested too deeply for the parser", lines=lines)
    except (ValueError, OverflowError) as error:
        return unparsable(file, _one_line(str(error)), lines=lines)
    nodes = list(ast.walk(tree))
    blocks = list(_blocks(tree))
    findings = [
        *_long_functions(blocks, file),
        *_deepest(blocks, file),
        *_unused_imports(nodes, file, source.splitlines()),
    ]
    return FileReport(
        file=file,
        lines=lines,
        functions=sum(isinstance(node, _FUNCTIONS) for node in nodes),
        findings=tuple(findings),
        imports=tuple(sorted(_imported_modules(nodes))),
    )


def unparsable(file: str, reason: str, *, line: int = 1, lines: int = 0) -> FileReport:
    """The report of a file that is not readable Python: one finding."""
    finding = Finding(kind=FindingKind.UNPARSABLE, file=file, line=max(1, line), subject=reason)
    return FileReport(file=file, lines=lines, findings=(finding,))


def _parse(source: bytes) -> ast.Module:
    with _PARSING, warnings.catch_warnings():
        # "\d" in a file would warn, and fail where warnings are errors.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)[:120]


class _Block(NamedTuple):
    """A function or a block."""

    node: ast.AST
    depth: int
    """Its nesting inside its function, itself included; 0 for a function."""
    owner: str
    """The qualified name of its function."""


def _blocks(tree: ast.Module) -> Iterator[_Block]:
    """Every function and block of the module, in the order of the source."""
    # Not recursive: a deeply nested file must not end in a RecursionError.
    stack: list[_Block] = [_Block(tree, 0, "")]
    while stack:
        node, depth, owner = stack.pop()
        if isinstance(node, _SCOPES):
            name = getattr(node, "name", "<lambda>")
            owner, depth = f"{owner}.{name}" if owner else name, 0
            yield _Block(node, depth, owner)
        elif isinstance(node, _BLOCKS):
            depth += 1
            yield _Block(node, depth, owner)
        children = list(ast.iter_child_nodes(node))
        stack.extend(
            _Block(child, depth - _is_elif(node, child), owner) for child in reversed(children)
        )


def _long_functions(blocks: list[_Block], file: str) -> Iterator[Finding]:
    for node, _, owner in blocks:
        if isinstance(node, _FUNCTIONS):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size >= LONG_FUNCTION_LINES:
                yield Finding(
                    kind=FindingKind.LONG_FUNCTION,
                    file=file,
                    line=node.lineno,
                    subject=f"{owner}()",
                    size=size,
                )


def _deepest(blocks: list[_Block], file: str) -> Iterator[Finding]:
    """The most deeply nested block of one function, if it is deep."""
    deepest = max(blocks, key=lambda block: block.depth, default=None)
    if deepest is not None and deepest.depth >= DEEP_NESTING:
        yield Finding(
            kind=FindingKind.DEEP_NESTING,
            file=file,
            line=getattr(deepest.node, "lineno", 1),
            subject=f"in {deepest.owner}()" if deepest.owner else "in the module",
            size=deepest.depth,
        )


def _is_elif(parent: ast.AST, child: ast.AST) -> bool:
    """An elif is an If in the else of its If, at the same column; it does not nest."""
    return (
        isinstance(parent, ast.If)
        and isinstance(child, ast.If)
        and parent.orelse == [child]
        and parent.col_offset == child.col_offset
    )


def _unused_imports(nodes: list[ast.AST], file: str, lines: list[bytes]) -> Iterator[Finding]:
    """Imported names that the file never mentions; in an ``__init__`` they are its exports."""
    if file.endswith("__init__.py"):
        return
    bound = [found for node in nodes for found in _bound_names(node)]
    if not bound:
        return
    mentioned = _mentioned_names(nodes)
    for name, line in bound:
        is_excused = 0 < line <= len(lines) and b"noqa" in lines[line - 1]
        if name not in mentioned and not is_excused and not name.startswith("__"):
            yield Finding(kind=FindingKind.UNUSED_IMPORT, file=file, line=line, subject=name)


def _bound_names(node: ast.AST) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname != alias.name:
                yield alias.asname or alias.name.partition(".")[0], node.lineno
    elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
        for alias in node.names:
            if alias.name not in {"*", alias.asname}:
                yield alias.asname or alias.name, node.lineno


def _mentioned_names(nodes: list[ast.AST]) -> set[str]:
    """Names, and words in strings: annotations and ``__all__`` may be strings."""
    mentioned: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name):
            mentioned.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            mentioned.update(_NAME.findall(node.value[:_MAX_MENTION]))
    return mentioned


def _imported_modules(nodes: list[ast.AST]) -> set[str]:
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.partition(".")[0])
    return modules
