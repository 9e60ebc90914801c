"""A worker's id and name, and the agents of a fleet that it executes."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Sequence

from murmur_streams.core.model.errors import AgentNotRegisteredError, InvalidInputError
from murmur_streams.fleet.fleet import Fleet

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]")


def host_name() -> str:
    """This machine's name, limited to the characters of a worker's id."""
    return _NOT_IN_AN_ID.sub("-", socket.gethostname()).lstrip("._-")[:60] or "host"


def worker_id_of(given: str | None) -> str:
    """Check the id that the user gave, or make one of host, process id and four random digits.

    Raises:
        InvalidInputError: the id breaks the rules.
    """
    if given is None:
        return f"{host_name()}-{os.getpid()}-{secrets.token_hex(2)}"
    if _ID.fullmatch(given):
        return given
    raise InvalidInputError(
        f"worker id {ascii(given)[:60]} is refused: use 1 to 128 characters of "
        "A-Z a-z 0-9 . _ - that begin with a letter or a digit"
    )


def life_of(worker_id: str) -> str:
    """A name for the control stream: no other process has it, even one with the same id."""
    return f"{worker_id}.{secrets.token_hex(4)}"


def checked_targets(fleet: Fleet, targets: Sequence[str] | None) -> list[str]:
    """The names of the agents that a worker executes.

    Raises:
        AgentNotRegisteredError: the fleet has no agents, or lacks one of the targets.
        InvalidInputError: the list is empty.
    """
    if not fleet.agents:
        raise AgentNotRegisteredError(
            "this fleet has no agents to execute; register one with @fleet.agent"
        )
    if targets is not None and not targets:
        raise InvalidInputError("targets is empty: name an agent, or pass None for all of them")
    for target in targets or ():
        if target not in fleet.agents:
            raise AgentNotRegisteredError(
                f"this fleet has no agent {target!r}; it has: {', '.join(sorted(fleet.agents))}"
            )
    return list(targets or fleet.agents)
