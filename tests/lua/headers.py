"""Reads the Lua files: headers by their grammar, and the code that a script can reach."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from murmur_streams.stores.redis.scripts import script_folder

FOLDER = script_folder()
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.lua"))
INCLUDES = sorted(path.stem for path in (FOLDER / "include").glob("*.lua"))
SECTIONS = ("KEYS", "ARGV", "RETURNS")
_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\[\[.*?\]\]", re.DOTALL)
_FUNCTION = re.compile(
    r"^local function (\w+)\(.*?^end$|^local function (\w+)\(.* end$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Row:
    """``1 run  hash  <prefix>:{p}:run:<run_id>``."""

    number: int
    name: str
    rest: str


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a script: how it declares itself."""

    summary: str
    keys: tuple[Row, ...]
    argv: tuple[Row, ...]
    returns: tuple[str, ...]
    writes: tuple[str, ...]
    cost: str
    includes: tuple[str, ...]


def path_of(name: str, *, include: bool = False) -> Path:
    return FOLDER / "include" / f"{name}.lua" if include else FOLDER / f"{name}.lua"


@cache
def header_of(script: str) -> Header:
    """Parse a header; ValueError names the line that breaks the grammar."""
    lines = _comment_lines(path_of(script))
    blank = lines.index("")
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    single: dict[str, str] = {}
    for line in lines[blank + 1 :]:
        if line in SECTIONS:
            current = sections.setdefault(line, [])
        elif line.startswith("  ") and current is not None:
            current.append(line[2:])
        elif match := re.fullmatch(r"(WRITES|COST|include:) (.+)", line):
            single[match[1]] = match[2]
            current = None
        else:
            raise ValueError(f"{script}.lua: {line!r} is outside the grammar")
    return Header(
        summary=" ".join(lines[:blank]),
        keys=tuple(_row(script, line) for line in sections["KEYS"]),
        argv=tuple(_row(script, line) for line in sections["ARGV"]),
        returns=tuple(sections["RETURNS"]),
        writes=tuple(single["WRITES"].split()),
        cost=single["COST"],
        includes=included(script),
    )


def included(name: str, *, include: bool = False) -> tuple[str, ...]:
    """The includes that a file names."""
    match = _INCLUDE.search(path_of(name, include=include).read_text(encoding="utf-8"))
    return tuple(part.strip() for part in match[1].split(",")) if match else ()


def code_of(path: Path) -> str:
    """A file without its comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))


def names_of(include: str) -> set[str]:
    """The functions and constants that an include defines."""
    code = code_of(path_of(include, include=True))
    return set(re.findall(r"^local (?:function )?([A-Za-z_]\w*)(?:\(| = )", code, re.MULTILINE))


def used_names(path: Path) -> set[str]:
    """The names that a file uses: no fields, no keys of a table, no texts."""
    code = _TEXT.sub("''", code_of(path))
    code = re.sub(r"([{,]\s*)[A-Za-z_]\w*\s*=(?!=)", r"\1", code)
    return set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", code))


@cache
def reachable_code(script: str) -> str:
    """The script's own code with every included function that it calls, directly or not."""
    functions: dict[str, str] = {}
    for name in INCLUDES:
        for match in _FUNCTION.finditer(code_of(path_of(name, include=True))):
            functions[match[1] or match[2]] = match[0]
    code, wanted = [code_of(path_of(script))], list[str]()
    seen: set[str] = set()
    wanted = [name for name in functions if re.search(rf"\b{name}\b", code[0])]
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        code.append(functions[name])
        wanted += [other for other in functions if re.search(rf"\b{other}\b", functions[name])]
    return "\n".join(code)


def _comment_lines(path: Path) -> list[str]:
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("--"):
            return lines
        lines.append(line.removeprefix("--").removeprefix(" "))
    return lines


def _row(script: str, line: str) -> Row:
    match = re.fullmatch(r"(\d+) (\w+)\s+(\S.*)", line)
    if match is None:
        raise ValueError(f"{script}.lua: {line!r} is not a row of number, name and type")
    return Row(int(match[1]), match[2], match[3])
