"""The check at the beginning of every script: may the user call all commands that it may need?

A script is atomic, but an error does not undo its writes: a command that the user may not call
would end it half-way, for example with an entry in the journal and the old version in the hash.
Rights cannot change while a script runs, so one check before the first write is enough. The check
is made from the script's own text, so that no script can forget a command.
"""

from __future__ import annotations

import re

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
