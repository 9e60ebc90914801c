"""The check with which every script begins: may its user call all commands that it may need?

A script is atomic but not undone: a command that the user may not call would end it after some of
its writes. Rights cannot change while a script runs, so one check before the first write is
complete. The check is made of the script's own text, so that no script can forget a command.
"""

from __future__ import annotations

import re

_CALL = re.compile(r"\bredis\.call(?:\(|, )'([A-Z]+)'")
PROBES = {
    "DEL": "DEL {key}",
    "EXISTS": "EXISTS {key}",
    "GET": "GET {key}",
    "HDEL": "HDEL {key} f",
    "HEXISTS": "HEXISTS {key} f",
    "HGET": "HGET {key} f",
    "HGETALL": "HGETALL {key}",
    "HLEN": "HLEN {key}",
    "HMGET": "HMGET {key} f",
    "HSCAN": "HSCAN {key} 0",
    "HSET": "HSET {key} f v f",
    "HSETNX": "HSETNX {key} f v",
    "PERSIST": "PERSIST {key}",
    "PEXPIREAT": "PEXPIREAT {key} 1",
    "PTTL": "PTTL {key}",
    "RENAME": "RENAME {key} {key}",
    "SADD": "SADD {key} m",
    "SET": "SET {key} v XX",
    "SISMEMBER": "SISMEMBER {key} m",
    "SREM": "SREM {key} m",
    "TIME": "TIME",
    "XADD": "XADD {key} NOMKSTREAM * f v",
    "XDEL": "XDEL {key} 1-1",
    "XINFO": "XINFO STREAM {key}",
    "XRANGE": "XRANGE {key} - + COUNT 1",
    "XREVRANGE": "XREVRANGE {key} + - COUNT 1",
    "XTRIM": "XTRIM {key} MAXLEN 1",
    "ZADD": "ZADD {key} XX 0 m",
    "ZCARD": "ZCARD {key}",
    "ZRANGEBYLEX": "ZRANGEBYLEX {key} - + LIMIT 0 1",
    "ZRANGEBYSCORE": "ZRANGEBYSCORE {key} -inf 0 LIMIT 0 1",
    "ZREM": "ZREM {key} m",
    "ZSCORE": "ZSCORE {key} m",
}
"""What the scripts call, each in a form that changes nothing on a key that does not exist. SADD and
HSETNX have no such form: SREM removes again what SADD added, and the one script that calls HSETNX
calls nothing else after its first write."""
_CAN_GROW = frozenset({"HSET", "SADD", "SET", "XADD", "ZADD"})
"""What a server without free memory refuses, as the first write of a script."""
_ARE_ERRORS = frozenset({"HSET", "RENAME", "XINFO"})
"""The forms above that are errors of their own where they are permitted."""
_HOT = ("append", "push_event")
_ALWAYS = frozenset({"HSET", "XADD"})
"""All that the hot scripts are asked for in each call: they call ``need`` for what only some calls
write, and read the rest before their first write."""
_FREEING = frozenset(
    {
        *("delete", "finish", "heartbeat", "own", "rebuild", "release", "request_cancel", "resume"),
        *("set_state", "sweep", "tend"),
    }
)
"""What must go on while the server has no free memory: its first write is one that frees some."""
_WITHOUT_TAG = frozenset({"confirm", "register"})
"""Their first key has no partition's tag: on a cluster no other key is sure to lie beside it. What
they do first changes nothing where a right is missing."""


def commands_in(code: str) -> set[str]:
    """Every command that a script may call."""
    return set(_CALL.findall(code))


def with_check(name: str, code: str) -> str:
    """Put the check before a script.

    ``redis.acl_check_cmd`` costs a tenth to a fifth of a microsecond. Servers before 7.0 lack it:
    there each command is called in a form that changes nothing, on a key that never exists, since
    no id has a slash. The first such call is one that a server without free memory refuses, or, in
    a script that frees memory, one that it lets through: later ones it does not look at.
    """
    commands = commands_in(code) & _ALWAYS if name in _HOT else commands_in(code)
    frees = name in _FREEING
    probed = sorted(
        commands - {"SADD", "SREM"},
        key=lambda each: ((each not in _CAN_GROW) != frees or each in _ARE_ERRORS, each),
    )
    if "SADD" in commands:
        # SREM is known to be permitted before it has to remove what SADD added.
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
    """The arguments by which ``acl_check_cmd`` knows a command and its keys."""
    words = PROBES[command].split()
    count = words.count("{key}")
    before = words[: words.index("{key}")] if count else words
    return ", ".join([*(f"'{word}'" for word in before), *(["KEYS[1]"] * count)])


def _probe(command: str) -> str:
    words = PROBES[command].split()
    arguments = ", ".join("key" if word == "{key}" else f"'{word}'" for word in words)
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
