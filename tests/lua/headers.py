"""Reads the Lua files: headers by their grammar, and the code that a script can reach."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from murmur_streams.stores.redis.scripts import script_folder

FOLDER = script_folder()
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.lua"))
COMMANDS = sorted(path.stem for path in FOLDER.glob("commands/*.lua"))
"""What ``commit.lua`` executes: functions whose arguments begin at any place of ARGV."""
INCLUDES = sorted(path.stem for path in (FOLDER / "include").glob("*.lua"))
CLUSTER = "cluster/"
"""The names of the files of a cluster alone begin with it."""
CLUSTER_SCRIPTS = sorted(f"{CLUSTER}{path.stem}" for path in FOLDER.glob("cluster/*.lua"))
CLUSTER_INCLUDES = sorted(f"{CLUSTER}{path.stem}" for path in FOLDER.glob("cluster/include/*.lua"))
"""Each of them stands for the include of the same name."""
SECTIONS = ("KEYS", "ARGV", "RETURNS")
_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\[\[.*?\]\]", re.DOTALL)
_FUNCTION = re.compile(
    r"^local function (\w+)\([^\n]* end$|^local function (\w+)\(.*?^end$", re.MULTILINE | re.DOTALL
)
_NAMED = re.compile(r"\blocal (\w+(?:,\s+\w+)*) =\s+(unpack\(.*?\)$|.*)", re.MULTILINE)
_ARGUMENT = re.compile(r"(?:tonumber\()?ARGV\[at(?: \+ (\d+))?\]\)?")
_UNPACKED = re.compile(r"unpack\(ARGV, at(?: \+ (\d+))?, at(?: \+ (\d+))?\)")
_LISTED = re.compile(
    r"unpack\(ARGV, at \+ (\d+), at \+ \d+ \+ tonumber|read_events\(at \+ (\d+),|\bat = at \+ (1)\n"
)


@dataclass(frozen=True, slots=True)
class Row:
    """``1 run  hash  <prefix>:{p}:run:<run_id>``."""

    number: int
    name: str
    rest: str


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a script or a command: how it declares itself."""

    summary: str
    keys: tuple[Row, ...]
    argv: tuple[Row, ...]
    returns: tuple[str, ...]
    writes: tuple[str, ...]
    cost: str
    includes: tuple[str, ...]


def path_of(name: str, *, include: bool = False) -> Path:
    if include:
        folder = FOLDER / CLUSTER if name.startswith(CLUSTER) else FOLDER
        return folder / "include" / f"{name.removeprefix(CLUSTER)}.lua"
    return FOLDER / "commands" / f"{name}.lua" if name in COMMANDS else FOLDER / f"{name}.lua"


@cache
def header_of(script: str) -> Header:
    """Parse a header; ValueError names the line that breaks the grammar."""
    lines = _comment_lines(path_of(script))
    first = next(at for at, line in enumerate(lines) if line in SECTIONS)
    # The summary is the first paragraph; others may tell why the script is as it is.
    blank = lines.index("")
    prose = lines[:first]
    if prose[-1] or any(line.startswith(" ") for line in prose):
        raise ValueError(f"{script}.lua: what stands before {lines[first]} is not prose")
    sections: dict[str, list[str]] = {name: [] for name in SECTIONS}
    current: list[str] | None = None
    single: dict[str, str] = {}
    for line in lines[first:]:
        if line in SECTIONS:
            current = sections[line]
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


def arguments_of(command: str) -> tuple[dict[int, set[str]], set[int]]:
    """How a command reads its arguments.

    Returns:
        Of each number of an argument the names that the code gives it, and the numbers from which
        on it reads a list.
    """
    names, lists = _arguments_in(_before_groups(command)[0], 0)
    for shift in re.findall(r"read_submission\(at(?: \+ (\d+))?\)", code_of(path_of(command))):
        function = functions_of("create")["read_submission"]
        more, _ = _arguments_in(function, int(shift or 0))
        for number, found in more.items():
            names[number] = names.get(number, set()) | found
    return names, lists


def group_of(name: str) -> list[str]:
    """The names that the code gives to the arguments of one group, before its list."""
    names, _ = _arguments_in(_before_groups(name)[1], 0)
    return [" ".join(names[number]) for number in sorted(names)]


def _before_groups(name: str) -> tuple[str, str]:
    """The code, divided where `at` begins to go through the groups."""
    code = code_of(path_of(name))
    match = re.search(r"^ +at = at \+ 1\n|^local at = \d+\n", code, re.MULTILINE)
    return (code[: match.end()], code[match.end() :]) if match else (code, "")


def _arguments_in(code: str, shift: int) -> tuple[dict[int, set[str]], set[int]]:
    names: dict[int, set[str]] = {}
    for match in _NAMED.finditer(code):
        named, values = re.split(r",\s+", match[1]), match[2]
        if unpacked := _UNPACKED.fullmatch(values):
            first, last = int(unpacked[1] or 0), int(unpacked[2] or 0)
            assert len(named) == last - first + 1, f"{match[0]}: as many names as arguments"
            found = dict(zip(named, range(first, last + 1), strict=True))
        else:
            each = zip(named, values.split(", "), strict=False)
            read = [
                (name, argument) for name, text in each if (argument := _ARGUMENT.fullmatch(text))
            ]
            found = {name: int(argument[1] or 0) for name, argument in read}
        for name, at in found.items():
            names.setdefault(at + 1 + shift, set()).add(name)
    # The list begins there, or `at` moves there before the loop.
    lists = {int(next(filter(None, match.groups()))) + 1 for match in _LISTED.finditer(code)}
    return names, lists


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
def functions_of(include: str) -> dict[str, str]:
    """The functions of an include and the code of each."""
    found = _FUNCTION.finditer(code_of(path_of(include, include=True)))
    return {match[1] or match[2]: match[0] for match in found}


@cache
def reachable_code(script: str) -> str:
    """The script's own code with every included function that it calls, directly or not."""
    functions: dict[str, str] = {}
    of_cluster = CLUSTER_INCLUDES if script.startswith(CLUSTER) else ()
    for name in (*INCLUDES, *of_cluster):
        functions |= functions_of(name)
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
