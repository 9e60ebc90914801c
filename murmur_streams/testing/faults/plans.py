"""Which request has which fault."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from enum import Enum

from murmur_streams.stores.redis.script_rights import COMMIT
from murmur_streams.stores.redis.scripts import LOADED, load_library, load_scripts

COUNT_AT = 12
"""Where a call of the commit says how many commands it carries; see ``lua/commit.lua``."""
Parts = list[bytes]
"""A request: the name of its command, and the arguments."""
Answer = Callable[[Parts], bytes | None]


class Fault(Enum):
    """The fates of one request."""

    NONE = "passed on"
    DROP_REQUEST = "the connection is cut before the server sees the request"
    DROP_REPLY = "the server executes the request, then the connection is cut"
    CUT_REQUEST = "the server sees half of the request"
    CUT_REPLY = "the store sees half of the reply"
    GARBAGE = "the server executes the request, the store reads what is not a reply"
    STALL = "executed as soon as the store has given up waiting"
    STALL_LATE = "executed when the test says so, after retries and later calls"
    LOSE_REQUEST = "the server never sees the request, and sees later ones; no reply comes any more"
    LOSE_REPLY = "the server executes this and later requests; no reply comes any more"
    BYTE_BY_BYTE = "request and reply travel in pieces of one byte"
    DELAY = "request and reply take a moment"


LOSSES = frozenset({Fault.LOSE_REQUEST, Fault.LOSE_REPLY})
CUTS = (Fault.DROP_REQUEST, Fault.DROP_REPLY, Fault.CUT_REQUEST, Fault.CUT_REPLY)
Plan = Callable[[Parts], Fault]


def nothing(_: Parts) -> Fault:
    """The plan without faults."""
    return Fault.NONE


def calls(*names: str) -> Callable[[Parts], bool]:
    """Select requests that execute one of these scripts or commands of runs; without names, any."""
    wanted = set(names)
    return lambda parts: bool(wanted & set(executed_by(parts)) if wanted else executed_by(parts))


def executed_by(parts: Parts) -> list[str]:
    """The script that a request calls; if it is the commit, the commands that the call carries."""
    script = _scripts().get(parts[1]) if parts[0] in {b"FCALL", b"EVALSHA"} else None
    if script is None or not script.startswith(COMMIT):
        return [] if script is None else [script]
    arguments, names = parts[3 + int(parts[2]) :], list[str]()
    at = COUNT_AT + 1
    for _ in range(int(arguments[COUNT_AT])):
        names.append(arguments[at].decode())
        at += 3 + int(arguments[at + 2])
    return names


def number_of(parts: Parts) -> int:
    """The number of a call of the commit."""
    return int(parts[3 + int(parts[2]) + 1])


@functools.cache
def _scripts() -> dict[bytes, str]:
    """The name of the script that each function and each hash stands for."""
    scripts, library = load_scripts(), load_library()
    found = {script.sha.encode(): name for name, script in scripts.items()}
    functions = re.findall(rf"{library.name}_(\w+)", library.text)
    named = {library.function(name).encode(): name for name in functions if name != LOADED}
    return found | named


def commands(*names: str) -> Callable[[Parts], bool]:
    """Select requests that are one of these commands of the server."""
    wanted = {name.encode() for name in names}
    return lambda parts: parts[0].upper() in wanted


def once(fault: Fault, which: Callable[[Parts], bool]) -> Plan:
    """The fault for the first request of this kind."""
    return in_turn([fault], which)


def always(fault: Fault, which: Callable[[Parts], bool]) -> Plan:
    """The fault for every request of this kind."""
    return lambda parts: fault if which(parts) else Fault.NONE


def in_turn(faults: list[Fault], which: Callable[[Parts], bool]) -> Plan:
    """One fault after the other for the requests of this kind, then none."""
    left = iter(faults)
    return lambda parts: next(left, Fault.NONE) if which(parts) else Fault.NONE
