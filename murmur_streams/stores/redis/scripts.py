"""Finds, composes and hashes the Lua scripts."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from murmur_streams.stores.redis.rights import with_check

_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)
_CONSTANT = re.compile(r"^local ([A-Z_]+) = (\d+)\n", re.MULTILINE)
_FUNCTION = re.compile(r"^local function (\w+)\(.*(?: end|(?:\n .*)+\nend)\n", re.MULTILINE)
_NAME = re.compile(r"\w+")
_CAPITALS = re.compile(r"\b[A-Z_]+\b")
_PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Script:
    """One command of the engine, with everything it includes."""

    name: str
    text: str
    sha: str


@cache
def load_scripts() -> dict[str, Script]:
    """Load all scripts, by name.

    Raises:
        FileNotFoundError: neither the wheel's nor the checkout's folder is there, or an include
            is missing; the text names what was looked for.
    """
    folder = script_folder()
    scripts: dict[str, Script] = {}
    for path in sorted(folder.glob("*.lua")):
        text = with_check(path.stem, compose(path, folder))
        scripts[path.stem] = Script(path.stem, text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324  # Redis names scripts by SHA-1
    return scripts


def load_commands() -> list[tuple[object, ...]]:
    """The commands that load all scripts into a server."""
    return [("SCRIPT", "LOAD", script.text) for script in load_scripts().values()]


def script_folder() -> Path:
    """The folder of the Lua files: inside the installed package, or beside it in a checkout."""
    candidates = (_PACKAGE / "_lua", _PACKAGE.parent / "lua")
    for folder in candidates:
        if (folder / "append.lua").is_file():
            return folder
    raise FileNotFoundError(
        f"the Lua scripts are neither in {candidates[0]} nor in {candidates[1]}; "
        "install murmur-streams again"
    )


def compose(path: Path, folder: Path) -> str:
    """Put a script's includes before it, each once, in the order in which they are named.

    Comments are left out: the hash depends only on the code, and every connection loads the text.
    Functions without a caller and names of numbers are left out, too: each call would make them.
    """
    parts: list[str] = []
    _collect(path, folder, parts, set())
    return _without_unused(_with_numbers("\n".join(parts) + "\n"))


def _collect(path: Path, folder: Path, parts: list[str], seen: set[Path]) -> None:
    if path in seen:
        return
    seen.add(path)
    includes, code = _read(path, folder)
    for included in includes:
        _collect(included, folder, parts, seen)
    parts.append(code)


@cache
def _read(path: Path, folder: Path) -> tuple[list[Path], str]:
    """The includes that a file names, and its code without comments.

    Each file is read once for all scripts: the start of every command line waits for them.
    """
    source = path.read_text(encoding="utf-8")
    match = _INCLUDE.search(source)
    names = match[1].split(",") if match else ()
    includes = [folder / "include" / f"{name.strip()}.lua" for name in names]
    for included in includes:
        if not included.is_file():
            raise FileNotFoundError(f"{path.name} includes {included}, which is missing")
    lines = [line for line in source.splitlines() if line and not line.lstrip().startswith("--")]
    return includes, "\n".join(lines)


def _with_numbers(code: str) -> str:
    """Replace names of numbers by the numbers."""
    numbers = dict(_CONSTANT.findall(code))
    return _CAPITALS.sub(lambda name: numbers.get(name[0], name[0]), _CONSTANT.sub("", code))


def _without_unused(code: str) -> str:
    """Leave out functions until each has a caller."""
    # Counted in one pass: a search for each function would delay the start of every command line.
    uses = Counter(_NAME.findall(code))
    functions = list(_FUNCTION.finditer(code))
    unused: list[re.Match[str]] = []
    while found := [each for each in functions if uses[each[1]] == 1]:
        functions = [each for each in functions if uses[each[1]] > 1]
        for function in found:
            uses.subtract(_NAME.findall(function[0]))
        unused += found
    for function in sorted(unused, key=re.Match[str].start, reverse=True):
        code = code[: function.start()] + code[function.end() :]
    return code
