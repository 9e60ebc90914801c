"""Finds and composes the Lua scripts.

``lua/*.lua`` are the scripts, ``lua/commands/*.lua`` the commands that ``commit.lua`` executes. A
server from 7.0 on gets all of them as one library of functions, others get each by its hash.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from murmur_streams.stores.redis.script_rights import (
    CALL_THAT_FAILS,
    CHECK_OF_COMMAND,
    CHECK_OF_FUNCTIONS_COMMAND,
    COMMIT,
    FREEING_SCRIPTS,
    asked_all,
    needed_by,
    probes_of,
    with_check,
)

_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)
_CONSTANT = re.compile(r"^local ([A-Z_]+) = (\d+)\n", re.MULTILINE)
_FUNCTION = re.compile(r"^local function (\w+)\(.*(?: end|(?:\n .*)+\nend)\n", re.MULTILINE)
_NAME = re.compile(r"\w+")
_CAPITALS = re.compile(r"\b[A-Z_]+\b")
_BODY = re.compile(r"^--body (\w+)\n", re.MULTILINE)
_PACKAGE = Path(__file__).resolve().parents[2]
FREEING_COMMIT = "commit_freeing"
"""The function of the same script that is called while the server has no free memory, too."""
LOADED = "loaded"
"""A function that does nothing: an answer shows that the library is there and may be called."""
HOT_COMMIT = "commit_events"
"""The same script with the commands of events alone: without functions, each call makes all that
its script defines anew."""
HOT_COMMANDS = frozenset({"append", "push_event"})


@dataclass(frozen=True, slots=True)
class Script:
    """One script of the engine, with everything it includes."""

    name: str
    text: str
    sha: str


@dataclass(frozen=True, slots=True)
class Library:
    """All scripts as functions, for servers that have them."""

    name: str
    """It ends with the hash of the code: programs of two versions have two libraries."""
    text: str

    def function(self, script: str) -> str:
        """The name of a script's function."""
        return f"{self.name}_{script}"


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of the scripts.

    Args:
        folder: where they are.
        is_cluster: whether the folder ``cluster`` adds scripts, and replaces includes.
    """

    folder: Path
    is_cluster: bool = False

    def include(self, name: str) -> Path:
        """The file of an include."""
        of_cluster = self.folder / "cluster" / "include" / f"{name}.lua"
        if self.is_cluster and of_cluster.is_file():
            return of_cluster
        return self.folder / "include" / f"{name}.lua"

    def command(self, name: str) -> Path:
        """The file of a command of ``commit.lua``."""
        return self.folder / "commands" / f"{name}.lua"

    def scripts(self) -> list[Path]:
        """The files of the scripts."""
        of_cluster = self.folder.glob("cluster/*.lua") if self.is_cluster else ()
        return sorted([*self.folder.glob("*.lua"), *of_cluster])


@cache
def load_scripts(*, is_cluster: bool = False) -> dict[str, Script]:
    """Load all scripts, by name.

    Args:
        is_cluster: for the nodes of a cluster.

    Raises:
        FileNotFoundError: neither the wheel's nor the checkout's folder is there, or an include
            is missing; the text names what was looked for.
    """
    folder = script_folder()
    sources = Sources(folder, is_cluster)
    paths = {path.stem: path for path in sources.scripts()}
    texts = {name: compose(path, sources) for name, path in paths.items()}
    texts[COMMIT] = compose_commit(sources, command_names(folder))
    texts[HOT_COMMIT] = compose_commit(sources, sorted(HOT_COMMANDS))
    scripts: dict[str, Script] = {}
    for name, code in texts.items():
        called = _called_by(paths[COMMIT if name == HOT_COMMIT else name], sources)
        text = f"local CALL = {{}}\n{CALL_THAT_FAILS}{with_check(name, code, called)}"
        scripts[name] = Script(name, text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324  # Redis names scripts by SHA-1
    return scripts


@cache
def load_library(*, is_cluster: bool = False) -> Library:
    """Compose the library of functions; errors as ``load_scripts``."""
    folder = script_folder()
    sources = Sources(folder, is_cluster)
    paths = sources.scripts()
    parts, seen = list[str](), set[Path]()
    _collect_commands(sources, command_names(folder), parts, seen, CHECK_OF_FUNCTIONS_COMMAND)
    for path in paths:
        includes, _ = _read(path, sources)
        for included in includes:
            _collect(included, sources, parts, seen)
    bodies = [f"--body {path.stem}\n{_read(path, sources)[1]}" for path in paths]
    code = _without_unused(_with_numbers("\n".join([*parts, *bodies]) + "\n"))
    shared, *named = _BODY.split(code)
    scripts = dict(zip(named[::2], named[1::2], strict=True))
    text = [f"local KEYS, ARGV, CALL = nil, nil, nil\n{shared}"]
    for path, (each, body) in zip(paths, scripts.items(), strict=True):
        called = _called_by(path, sources)
        checked = with_check(each, body, called, is_function=True)
        text.append(f"local function run_{each}()\n{checked}end\n")
    flags = " ".join(sorted(FREEING_SCRIPTS))
    name = f"murmur_{hashlib.sha256(''.join([*text, flags]).encode()).hexdigest()[:16]}"
    text.insert(0, f"#!lua name={name}\n")
    text += [_registered(name, each, each, frees=each in FREEING_SCRIPTS) for each in scripts]
    text.append(_registered(name, FREEING_COMMIT, COMMIT, frees=True))
    # Answered by a replica, and by a server that takes no writes now. An imitation of a server may
    # have functions and no check of rights (fakeredis).
    text.append(
        f"redis.register_function({{function_name = '{name}_{LOADED}', flags = {{'no-writes'}},\n"
        "  callback = function()\n"
        "    return redis.acl_check_cmd and 'OK' or redis.error_reply('ERR no acl_check_cmd')\n"
        "  end})\n"
    )
    return Library(name, "".join(text))


def _registered(library: str, name: str, script: str, *, frees: bool) -> str:
    """Register a script as a function; one that frees memory may be called without free memory."""
    flags = ", flags = {'allow-oom'}" if frees else ""
    return (
        f"redis.register_function({{function_name = '{library}_{name}'{flags},\n"
        "  callback = function(keys, arguments)\n"
        "    KEYS, ARGV, CALL = keys, arguments, {}\n"
        f"    return run_{script}()\n"
        "  end})\n"
    )


def load_commands(*, is_cluster: bool = False) -> list[tuple[object, ...]]:
    """The commands that load all scripts into a server without the library."""
    scripts = load_scripts(is_cluster=is_cluster).values()
    return [("SCRIPT", "LOAD", script.text) for script in scripts]


def script_folder() -> Path:
    """The folder of the Lua files: inside the installed package, or beside it in a checkout."""
    candidates = (_PACKAGE / "_lua", _PACKAGE.parent / "lua")
    for folder in candidates:
        if (folder / "commit.lua").is_file():
            return folder
    raise FileNotFoundError(
        f"the Lua scripts are neither in {candidates[0]} nor in {candidates[1]}; "
        "install murmur-streams again"
    )


def command_names(folder: Path) -> list[str]:
    """The commands that ``commit.lua`` executes."""
    return sorted(path.stem for path in folder.glob("commands/*.lua"))


def compose(path: Path, sources: Sources) -> str:
    """Put a script's includes before it, each once, in the order in which they are named.

    Comments are left out: the hash depends only on the code, and every connection loads the text.
    Functions without a caller and names of numbers are left out, too: each call would make them.
    """
    parts: list[str] = []
    _collect(path, sources, parts, set())
    return _without_unused(_with_numbers("\n".join(parts) + "\n"))


def compose_commit(sources: Sources, names: Sequence[str]) -> str:
    """``commit.lua`` with these commands, composed as ``compose`` does."""
    parts, seen = list[str](), set[Path]()
    _collect_commands(sources, names, parts, seen)
    _collect(sources.folder / f"{COMMIT}.lua", sources, parts, seen)
    return _without_unused(_with_numbers("\n".join(parts) + "\n"))


def _collect_commands(
    sources: Sources,
    names: Sequence[str],
    parts: list[str],
    seen: set[Path],
    check: str = CHECK_OF_COMMAND,
) -> None:
    """Add the commands, the check of the rights for each, and the tables of both."""
    for name in names:
        _collect(sources.command(name), sources, parts, seen)
    checks = [_check_of_command(sources, name, check) for name in names]
    functions = ", ".join(f"{name} = {name}" for name in names)
    parts += [f"local COMMANDS, DENIED = {{{functions}}}, {{}}", *checks]


@cache
def _check_of_command(sources: Sources, name: str, check: str) -> str:
    commands = needed_by(name, _called_by(sources.command(name), sources))
    return check.format(
        name=name, asked=asked_all(commands, "key"), probes=probes_of(commands, frees=False)
    )


def _called_by(path: Path, sources: Sources) -> str:
    """The code of a command or a script with all that it calls."""
    parts: list[str] = []
    _collect(path, sources, parts, set())
    return _without_unused("\n".join([*parts, f"return {path.stem}"]) + "\n")


def _collect(path: Path, sources: Sources, parts: list[str], seen: set[Path]) -> None:
    if path in seen:
        return
    seen.add(path)
    includes, code = _read(path, sources)
    for included in includes:
        _collect(included, sources, parts, seen)
    parts.append(code)


@cache
def _read(path: Path, sources: Sources) -> tuple[list[Path], str]:
    """The includes that a file names, and its code without comments.

    Each file is read once for all scripts: the start of every command line waits for them.
    """
    source = path.read_text(encoding="utf-8")
    match = _INCLUDE.search(source)
    names = match[1].split(",") if match else ()
    includes = [sources.include(name.strip()) for name in names]
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
