"""Checks, inside each script and before its first write, that the user may call its commands.

A script is atomic, but an error does not undo its writes: a command that the user may not call
would end it half-way, for example with an entry in the journal and the old version in the hash.
Rights cannot change while a script runs, so one check before the first write is enough. It is made
from the script's own text, so that no script can forget a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

COMMIT = "commit"
_CALL = re.compile(r"\bredis\.call(?:\(|, )'([A-Z]+)'")
_FORMS = {
    "{key}": "DEL EXISTS GET HGETALL HLEN PERSIST PTTL ZCARD",
    "{key} f": "HDEL HEXISTS HGET HMGET",
    "{key} f v": "HSETNX",
    "{key} f v f": "HSET",
    "{key} m": "SADD SISMEMBER SREM ZREM ZSCORE",
    "{key} v XX": "SET",
    "{key} 1": "PEXPIRE PEXPIREAT",
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
MAY_BE_DENIED = ("COPY",)
"""Commands that save memory: scripts go on without them."""
CLUSTER_PROBES = {
    "SPUBLISH": "SPUBLISH {key} m",
    "ZPOPMAX": "ZPOPMAX {key}",
    "ZREMRANGEBYSCORE": "ZREMRANGEBYSCORE {key} -inf 0",
}
"""Those of the scripts of a cluster alone; the key is also the name of a channel."""
_FORMS_OF_ALL = PROBES | CLUSTER_PROBES
_CAN_GROW = frozenset({"HSET", "SADD", "SET", "XADD", "ZADD"})
"""Commands that a server without free memory refuses as the first write of a script."""
_ARE_ERRORS = frozenset({"HSET", "RENAME", "XINFO"})
"""Forms above that fail for another reason where the user may call them."""
FREEING_COMMANDS = frozenset({"delete", "finish", "release", "request_cancel", "set_state"})
"""Commands that are executed while the server has no free memory: they free some."""
FREEING_SCRIPTS = frozenset(
    {"forget_letters", "heartbeat", "own", "rebuild", "resume", "sweep", "tend"}
)
"""The same of scripts: their first write frees memory."""
_WITHOUT_TAG = frozenset({"confirm", "recount", "register"})
"""Scripts whose first key has no partition's hash tag: on a cluster, a probe key could lie in
another slot. Their first commands change nothing where a right is missing."""


_EVENTS_READ = frozenset({"EXISTS", "HMGET", "TIME", "XINFO", "XREVRANGE"})
_ONLY_BEFORE_WRITES = {
    COMMIT: _EVENTS_READ | {"GET", "HGET"},
    "commit_events": _EVENTS_READ | {"GET", "HGET"},
    "append": _EVENTS_READ,
    "push_event": _EVENTS_READ,
}
"""What the hot texts call only before their first write: without the right that call itself fails,
and nothing is written. A check of one command costs as much as a small command."""


def needed_by(name: str, code: str) -> set[str]:
    """The commands of a script, or of a command of ``commit.lua``, that are checked before it."""
    return commands_in(code) - _ONLY_BEFORE_WRITES.get(name, frozenset())


def commands_in(code: str) -> set[str]:
    """Every command of the server that a script may call."""
    return set(_CALL.findall(code))


def with_check(name: str, code: str, called: str, *, is_function: bool = False) -> str:
    """Put the check before a script.

    ``redis.acl_check_cmd`` costs 0.1 to 0.2 microseconds. Servers before 7.0 do not have it: there
    each command is called in a form that changes nothing, on a key that never exists, since ids
    have no slash. A server without free memory judges a script by its first write: so the first
    probe is one that it refuses, or, for a script that frees memory, one that it allows.

    Args:
        name: the script's.
        code: its text.
        called: the text with all functions that it calls, without the commands of ``commit.lua``:
            each of those has a check of its own.
        is_function: servers with functions have ``redis.acl_check_cmd``.
    """
    commands = needed_by(name, called)
    asked = asked_all(commands, "KEYS[1]")
    if is_function:
        return _CHECK_OF_FUNCTION.format(asked=asked, code=code)
    probes = "" if name in _WITHOUT_TAG else probes_of(commands, frees=name in FREEING_SCRIPTS)
    if name == COMMIT:
        probes = f"  if ARGV[5] ~= '' then {_probe('PEXPIRE').strip()} end\n{probes}"
    return _CHECK.format(probes=probes, asked=asked, code=code)


def probes_of(commands: Iterable[str], *, frees: bool) -> str:
    """Calls of all commands in their harmless forms."""
    commands = set(commands)
    probed = sorted(
        commands - {"SADD", "SREM"},
        key=lambda each: ((each not in _CAN_GROW) != frees or each in _ARE_ERRORS, each),
    )
    if "SADD" in commands:
        # SREM first: it must be permitted before SADD adds what it has to remove.
        probed += ["SREM", "SADD", "SREM"]
    elif "SREM" in commands:
        probed.append("SREM")
    return "\n".join(_probe(each) for each in probed)


def asked_all(commands: Iterable[str], key: str) -> str:
    """An expression that is the first command that the user may not call, or nil."""
    asked = [f"not allowed({_asked(each, key)}) and '{each}'" for each in sorted(commands)]
    return " or ".join([*asked, "nil"])


def _asked(command: str, key: str) -> str:
    """The arguments of ``acl_check_cmd`` for a command and its keys."""
    parts = _FORMS_OF_ALL[command].split()
    count = parts.count("{key}")
    before = parts[: parts.index("{key}")] if count else parts
    return ", ".join([*(f"'{part}'" for part in before), *([key] * count)])


def _probe(command: str) -> str:
    parts = _FORMS_OF_ALL[command].split()
    arguments = ", ".join("key" if part == "{key}" else f"'{part}'" for part in parts)
    return f"  {'fails' if command in _ARE_ERRORS else 'call'}({arguments})"


_CHECK = """\
local allowed = redis.acl_check_cmd
if not allowed then
  local key, call, fails = KEYS[1] .. '/', redis.call, call_that_fails
{probes}
else
  local denied = {asked}
  if denied then return redis.error_reply('NOPERM the user may not call ' .. denied) end
end
{code}"""
_CHECK_OF_FUNCTION = """\
local allowed = redis.acl_check_cmd
local denied = {asked}
if denied then return redis.error_reply('NOPERM the user may not call ' .. denied) end
{code}"""
CHECK_OF_COMMAND = """\
DENIED.{name} = function(key)
  local allowed, call, fails = redis.acl_check_cmd, redis.call, call_that_fails
  if allowed then return {asked} end
  key = key .. '/'
{probes}
end
"""
CHECK_OF_FUNCTIONS_COMMAND = """\
DENIED.{name} = function(key)
  local allowed = redis.acl_check_cmd
  return {asked}
end
"""
CALL_THAT_FAILS = """\
local function call_that_fails(...)
  local why = tostring(redis.pcall(...).err)
  if string.find(why, 'The user executing the script', 1, true) then error(why, 0) end
end
"""
