"""On a cluster: the messages of scripts to one worker. There is work, or a run is to be cancelled.

A read that blocks takes keys of one slot alone, so a worker would need a connection for each
partition. Instead it subscribes, on one connection to each node, to a channel in each partition.
While it waits for work, its name is in a set of each partition and target, from which scripts take
the name of the worker that they wake. A message may be lost; then the run waits until the worker
looks by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.core.model.work import ControlMessage
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.redis.connection.connections import drop_connection
from murmur_streams.stores.redis.connection.failures import NeverSentError, code_of
from murmur_streams.stores.redis.connection.messages import messages
from murmur_streams.stores.redis.nodes import ServerNode
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.side_by_side import PATIENCE_SECONDS, SideBySide

logger = logging.getLogger("murmur_streams.queue")

ENTER_SECONDS = 20.0
"""How often a waiting worker enters its name again: the server forgets it after a minute."""
PASS_ON_SECONDS = 0.02
"""A worker that waits for no work so long after a hint has no free slot: another one is woken."""
LOOK_SECONDS = 1.0
"""How often the subscriptions are compared with where the partitions are."""
UNUSED_SECONDS = 5.0
"""After this time without a caller the subscriptions end."""


class Hints:
    """What one worker is woken by."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._id = secrets.token_hex(8)
        self._worker = ""
        self._woken: dict[int, None] = {}
        self._messages: list[ControlMessage] = []
        self._news = asyncio.Event()
        """Set at each hint, and when a subscription begins."""
        self._control_news = asyncio.Event()
        self._waits = self._users = 0
        self._used_at = 0.0
        self._entered: dict[int, float] = {}
        """Partition -> when the name was entered there, by the loop's clock."""
        self._heard: set[int] = set()
        """The partitions whose channels are subscribed to."""
        self._entering = SideBySide[list[int]](PATIENCE_SECONDS)
        self._listening: asyncio.Task[None] | None = None
        self._passing: set[asyncio.Task[Any]] = set()

    @property
    def hears_all(self) -> bool:
        """Whether it would be woken by work in every partition."""
        return len(self._entered) == self._server.keys.partitions

    async def wait(self, targets: Sequence[str], seconds: float) -> list[int]:
        """Wait for work, at most ``seconds``; the partitions to look at, none if none came."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        with self._used():
            self._waits += 1
            try:
                while not self._woken and loop.time() < until:
                    # Cleared before the look: news that come meanwhile end the wait below.
                    self._news.clear()
                    if await self._enter(targets):
                        break
                    left = min(until - loop.time(), ENTER_SECONDS)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            await self._news.wait()
            finally:
                self._waits -= 1
        woken, self._woken = [*self._woken], {}
        return woken

    async def control(self, worker: str, seconds: float) -> list[ControlMessage]:
        """Wait for messages to the worker, at most ``seconds``."""
        if worker != self._worker:
            self._worker = worker
            await self._stop()
        with self._used(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._control_news.wait()
        self._control_news.clear()
        messages, self._messages = self._messages, []
        return messages

    @contextlib.contextmanager
    def _used(self) -> Any:
        loop = asyncio.get_running_loop()
        self._users += 1
        if self._listening is None or self._listening.done():
            self._listening = self._server.start(self._listen(), "listen to hints")
        try:
            yield
        finally:
            self._users -= 1
            self._used_at = loop.time()

    async def _stop(self) -> None:
        if self._listening is not None:
            await end_tasks([self._listening])

    async def _enter(self, targets: Sequence[str]) -> bool:
        """Enter the name where it is missing; whether runs wait there that came before it.

        A run that was submitted before has sent no hint to this worker.
        """
        now = asyncio.get_running_loop().time()
        due = [
            partition
            for partition in sorted(self._heard)
            if now - self._entered.get(partition, -ENTER_SECONDS) >= ENTER_SECONDS
        ]
        if not due:
            return False
        try:
            found = await self._entering.gather(
                {each: functools.partial(self._enter_one, each, targets) for each in due}
            )
        except MurmurError as error:
            logger.debug("an idle worker could not enter its name: %s", error)
            return False
        with_work = [partition for part in found for partition in part]
        self._woken.update(dict.fromkeys(with_work))
        return bool(with_work)

    async def _enter_one(self, partition: int, targets: Sequence[str]) -> list[int]:
        entered_at = asyncio.get_running_loop().time()
        answer = await self._server.partition_script("idle", partition, self._id, *targets)
        self._entered[partition] = entered_at
        return [partition] if answer[1] == "1" else []

    async def _listen(self) -> None:
        """Keep a subscription to every node that has partitions."""
        listeners: dict[ServerNode, tuple[list[int], asyncio.Task[None]]] = {}
        loop = asyncio.get_running_loop()
        self._used_at = loop.time()
        try:
            while self._users or loop.time() - self._used_at < UNUSED_SECONDS:
                wanted = {node: [*node.partitions] for node in self._server.nodes.all}
                for node, (partitions, task) in [*listeners.items()]:
                    if task.done() or wanted.get(node) != partitions:
                        await end_tasks([task])
                        del listeners[node]
                for node, partitions in wanted.items():
                    if partitions and node not in listeners:
                        task = start_task(self._listen_to(node, partitions), "listen to a node")
                        listeners[node] = (partitions, task)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await end_tasks([task for _, task in listeners.values()])

    async def _listen_to(self, node: ServerNode, partitions: Sequence[int]) -> None:
        channels: dict[bytes, Callable[[int, str], None]] = {}
        keys = self._server.keys
        for partition in partitions:
            channels[keys.hints(self._id, partition).encode()] = self._on_work
            channels[keys.control(self._worker, partition).encode()] = self._on_control
        connection: Any = None
        try:
            connection = await node.blocking.new_connection([("PING",)])
            commands = [("SSUBSCRIBE", channel) for channel in channels]
            await connection.send_packed_command(connection.pack_commands(commands))
            await self._read(connection, channels)
        except (RedisError, OSError, NeverSentError) as error:
            level = logging.WARNING if code_of(error) == "NOPERM" else logging.DEBUG
            logger.log(
                level, "the worker is not woken by %s, it looks by itself: %s", node.where, error
            )
        finally:
            for partition in partitions:
                self._heard.discard(partition)
                # Whoever wakes this worker gets no listener there, and takes the next one.
                self._entered.pop(partition, None)
            if connection is not None:
                await drop_connection(connection)

    async def _read(
        self, connection: Any, channels: Mapping[bytes, Callable[[int, str], None]]
    ) -> None:
        """Read messages until the connection is lost, or a partition has moved to another node."""
        async with contextlib.aclosing(messages(connection)) as found:
            async for kind, channel, *rest in found:
                if kind == b"sunsubscribe":
                    raise RedisConnectionError("a slot has moved")
                if kind == b"pong":
                    continue
                partition = self._server.keys.partition_of_key(channel.decode())
                if kind == b"ssubscribe":
                    self._heard.add(partition)
                    self._news.set()
                else:
                    channels[channel](partition, rest[0].decode())

    def _on_work(self, partition: int, target: str) -> None:
        self._entered.pop(partition, None)
        self._woken[partition] = None
        self._news.set()
        if not self._waits:
            loop = asyncio.get_running_loop()
            loop.call_later(PASS_ON_SECONDS, self._pass_on, partition, target)

    def _pass_on(self, partition: int, target: str) -> None:
        if self._waits or self._server.closed:
            return
        task = self._server.start(self._wake_another(partition, target), "pass a hint on")
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _wake_another(self, partition: int, target: str) -> None:
        with contextlib.suppress(MurmurError):
            await self._server.partition_script("pass_on", partition, target)

    def _on_control(self, partition: int, text: str) -> None:
        del partition
        kind, _, rest = text.partition(" ")
        run_id, _, claim = rest.partition(" ")
        self._messages.append(ControlMessage(kind, run_id, claim))
        self._control_news.set()
