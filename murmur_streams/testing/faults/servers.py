"""Servers of a test's own, on loopback ports: killed, frozen, emptied, demoted, replaced."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

from redis.asyncio import Redis

from murmur_streams.embedded.launch import find_binary
from murmur_streams.embedded.node import Node
from murmur_streams.embedded.sentinel_group import SentinelGroup

_OF_DATA = ("appendonlydir", "appendonly.aof", "dump.rdb")
NOWHERE = ("127.0.0.1", "1")
"""An address where no server listens."""
Failover = Literal["killed", "frozen", "in order"]
"""What happens to the old primary."""


class ServerHandle:
    """One server process, and what can happen to it. ``async with`` starts and ends it.

    Args:
        folder: where it has its data, its settings and its log.
        settings: lines of its settings, such as ``appendonly yes``.
        password: of its user ``default``.
        binary: its executable; that of the embedded server by default.
    """

    def __init__(
        self,
        folder: Path,
        settings: Sequence[str] = (),
        *,
        password: str | None = None,
        binary: Path | None = None,
    ) -> None:
        self.node = Node(binary or find_binary(), folder, ['save ""', *settings], password=password)
        self.folder = folder
        self.port = self.node.port

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def address(self) -> tuple[str, int]:
        """For a proxy."""
        return ("127.0.0.1", self.port)

    @property
    def pid(self) -> int:
        """Of the process that runs; EmbeddedServerError when none does."""
        return self.node.pid

    def url(self, credentials: str = "") -> str:
        """For a store; ``credentials`` is what stands before the @."""
        return f"redis://{credentials + '@' if credentials else ''}127.0.0.1:{self.port}"

    def client(self) -> Redis:
        """A client that may do everything; the caller closes it."""
        return Redis(host="127.0.0.1", port=self.port, password=self.node.password, protocol=2)

    async def start(self) -> None:
        """Start it, and return when it answers."""
        await asyncio.to_thread(self.node.start)

    async def kill(self) -> None:
        """End it with SIGKILL, also while it is frozen."""
        await asyncio.to_thread(self.node.kill)

    async def stop(self) -> None:
        """End it in order, with SIGTERM."""
        await asyncio.to_thread(self.node.stop)

    async def restart(self) -> None:
        """Stop it in order and start it again, with the data that it has on the disk."""
        await self.stop()
        await self.start()

    async def restart_empty(self) -> None:
        """Kill it and start it without its data, as on a machine whose disk is gone."""
        await self.kill()
        for name in _OF_DATA:
            path = self.folder / name
            if path.is_dir():
                await asyncio.to_thread(shutil.rmtree, path)
            else:
                path.unlink(missing_ok=True)
        await self.start()

    def freeze(self) -> None:
        """Stop it with SIGSTOP: it keeps its connections and answers nothing."""
        self.node.freeze()

    def thaw(self) -> None:
        """Let it go on."""
        self.node.thaw()

    def limit_files(self, size: int | None) -> None:
        """Let its files grow to so many bytes and no further, as on a full disk; None: no limit.

        Linux only. A server that syncs each write ends itself when it cannot write.
        """
        import resource  # Not on Windows.

        most = resource.RLIM_INFINITY
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most if size is None else size, most))

    async def demote(self) -> None:
        """Make it a replica of a primary that does not exist: it keeps its data, takes no write."""
        async with self.client() as admin:
            await cast("Any", admin).execute_command("REPLICAOF", *NOWHERE)

    async def promote(self) -> None:
        """Make it a primary."""
        async with self.client() as admin:
            await cast("Any", admin).execute_command("REPLICAOF", "NO", "ONE")


async def fail_over(group: SentinelGroup, how: Failover) -> Node:
    """Let the Sentinels make another server the primary.

    Args:
        group: of Sentinels and servers.
        how: what happens to the old primary before. One that is killed or frozen stays so.

    Returns:
        The old primary.
    """
    old = await asyncio.to_thread(lambda: group.primary)
    if how == "killed":
        old.kill()
    elif how == "frozen":
        old.freeze()
    else:
        await asyncio.to_thread(group.fail_over)
    await asyncio.to_thread(group.wait_for_other_primary, old)
    return old
