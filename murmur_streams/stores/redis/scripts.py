"""Finds, composes and hashes the Lua scripts, each with a check of the user's rights before it.

The check asks: may the user call all commands that the script may need? A script is atomic, but an
error does not undo its writes: a command that the user may not call would end it half-way, for
example with an entry in the journal and the old version in the hash. Rights cannot change while a
script runs, so one check before the first write is enough. It is made from the script's own text,
so that no script can forget a command.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CALL = re.compile(r"\bredis\.call(?:\(|, )'([A-Z]+)'")
_FORMS = {
    "{key}": "DEL EXISTS GET HGETALL HLEN PERSIST PTTL ZCARD",
    "{key} f": "HDEL HEXISTS HGET HMGET",
    "{key} f v": "HSETNX",
    "{key} f v f": "HSET",
    "{key} m": "SADD SISMEMBER SREM ZREM ZSCORE",
    "{key} v XX": "SET",
    "{key} 0": "HSCAN",
    "{key} 1": "PEXPIREAT",
    "{key} {key}": "RENAME",
    "{key} 1-1": "XDEL",
    "{key} MAXLEN 1": "XTRIM",
    "{key} - + COUNT 1": "XRANGE",
    "{key} + - COUNT 1": "XREVRANGE",
    "{key} NOMKSTREAM * f v": "XADD",
    "{key} XX 0 m": "ZADD",
    "{key} - + LIMIT 0 1": "ZRANGEBYLEX",
    "{key} -inf 0 LIMIT 0 1": "ZRANGEBYSCORE",
    "STREAM {key}": "XINFO",
}
PROBES = {name: f"{name} {form}" for form, names in _FORMS.items() for name in names.split()}
PROBES["TIME"] = "TIME"
"""The commands of the scripts, in forms that change nothing while the key does not exist. SADD and
HSETNX do not have such a form: SREM removes what SADD added, and the only script that calls HSETNX
calls no other command after its first write."""
_CAN_GROW = frozenset({"HSET", "SADD", "SET", "XADD", "ZADD"})
"""Commands that a server without free memory refuses as the first write of a script."""
_ARE_ERRORS = frozenset({"HSET", "RENAME", "XINFO"})
"""Forms above that fail for another reason where the user may call them."""
_HOT = ("append", "push_event")
_ALWAYS = frozenset({"HSET", "XADD"})
"""The only rights that are checked in every call of a hot script. For commands that only some calls
write with, it calls ``check_may_call`` itself; its reads come before its first write."""
_FREEING = frozenset(
    {
        *("delete", "finish", "heartbeat", "own", "rebuild", "release", "request_cancel", "resume"),
        *("set_state", "sweep", "tend"),
    }
)
"""Scripts that must work while the server has no free memory: their first write frees some."""
_WITHOUT_TAG = frozenset({"confirm", "register"})
"""Scripts whose first key has no partition's hash tag: on a cluster, a probe key could lie in
another slot. Their first commands change nothing where a right is missing."""


def commands_in(code: str) -> set[str]:
    """Every command that a script may call."""
    return set(_CALL.findall(code))


def with_check(name: str, code: str) -> str:
    """Put the check before a script.

    ``redis.acl_check_cmd`` costs 0.1 to 0.2 microseconds. Servers before 7.0 do not have it: there
    each command is called in a form that changes nothing, on a key that never exists, since ids
    have no slash. A server without free memory judges a script by its first write: so the first
    probe is one that it refuses, or, for a script that frees memory, one that it allows.
    """
    commands = commands_in(code) & _ALWAYS if name in _HOT else commands_in(code)
    frees = name in _FREEING
    probed = sorted(
        commands - {"SADD", "SREM"},
        key=lambda each: ((each not in _CAN_GROW) != frees or each in _ARE_ERRORS, each),
    )
    if "SADD" in commands:
        # SREM first: it must be permitted before SADD adds what it has to remove.
        probed += ["SREM", "SADD", "SREM"]
    elif "SREM" in commands:
        probed.append("SREM")
    asked = {each: _asked(each) for each in sorted(commands)}
    return _CHECK.format(
        probes="" if name in _WITHOUT_TAG else "\n".join(_probe(each) for each in probed),
        asked=" and ".join(f"allowed({arguments})" for arguments in asked.values()),
        names=", ".join(f"{{{arguments}}}" for arguments in asked.values()),
        code=code,
    )


def _asked(command: str) -> str:
    """The arguments of ``acl_check_cmd`` for a command and its keys."""
    parts = PROBES[command].split()
    count = parts.count("{key}")
    before = parts[: parts.index("{key}")] if count else parts
    return ", ".join([*(f"'{part}'" for part in before), *(["KEYS[1]"] * count)])


def _probe(command: str) -> str:
    parts = PROBES[command].split()
    arguments = ", ".join("key" if part == "{key}" else f"'{part}'" for part in parts)
    if command in _ARE_ERRORS:
        return f"  why = redis.pcall({arguments}).err\n{_DENIED}"
    return f"  redis.call({arguments})"


_DENIED = """\
  if string.find(tostring(why), 'The user executing the script', 1, true) then error(why, 0) end"""
_CHECK = """\
local allowed = redis.acl_check_cmd
if not allowed then
  local key, why = KEYS[1] .. '/', nil
{probes}
elseif not ({asked}) then
  for _, call in ipairs({{{names}}}) do
    if not allowed(unpack(call)) then
      return redis.error_reply('NOPERM the user may not call ' .. call[1])
    end
  end
end
{code}"""


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
