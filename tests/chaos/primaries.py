"""A primary that is lost, with or without the last writes, and comes back."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from murmur_streams.embedded.node import Node

CUT = "-after-a-cut"
CUT_SECONDS = 0.3


async def cut_off_replicas(primary: Node, how: str) -> None:
    """End the links to the replicas for a moment, if ``how`` says so.

    On one machine replicas are so near that a kill loses nothing.
    """
    if how.endswith(CUT):
        await asyncio.to_thread(_link_replicas, primary, "-")
        await asyncio.sleep(CUT_SECONDS)


def lose(primary: Node, how: str) -> None:
    """Kill or freeze a primary."""
    if how.startswith("killed"):
        primary.kill()
    else:
        primary.freeze()


def repair(old: Node) -> None:
    """Let it work again."""
    if old.is_frozen:
        old.thaw()
        _link_replicas(old, "+")
    elif not old.is_started:
        old.start()


def _link_replicas(server: Node, sign: str) -> None:
    """Let replicas follow a server (``+``), or not (``-``)."""
    with server.client as client:
        execute = cast("Any", client).execute_command
        # SYNC, too: a replica that is refused PSYNC turns to it, and confirms nothing from then on.
        rights = [f"{sign}{name}" for name in ("psync", "sync", "replconf")]
        execute("ACL", "SETUSER", "default", *rights)
        if sign == "-":
            execute("CLIENT", "KILL", "TYPE", "replica")
