"""The server of one store: checked before use, scripts by hash, reads with retries."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from murmur_streams.core.model.errors import (
    InvalidInputError,
    MurmurError,
    StoreClosedError,
)
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.own_tasks import is_cancelled, start_shared_task, start_task
from murmur_streams.stores.redis import readiness
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.connection.maker import AnyClient, ConnectionMaker
from murmur_streams.stores.redis.connection.store_use import StoreUse
from murmur_streams.stores.redis.connection.topology import topology_of
from murmur_streams.stores.redis.key_space import KeySpace
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.loading import Loader
from murmur_streams.stores.redis.locating import Locator
from murmur_streams.stores.redis.nodes import Command, Nodes, ServerNode
from murmur_streams.stores.redis.preparation import never_sent
from murmur_streams.stores.redis.replies import read_answer
from murmur_streams.stores.redis.retries import Retries

logger = logging.getLogger("murmur_streams.redis")

CALL_SECONDS = 5.0
"""A call that takes longer counts as lost with its connection."""
OPENING_SECONDS = 5.0
"""Patience for the first connection: a wrong address is more likely than a broken network."""
LONGEST_RETRY_SECONDS = 300.0
"""Scripts remember a write for ten minutes: a retry after that would be applied a second time."""

_T = TypeVar("_T")
Revive = Callable[[], Awaitable[None]]


class Server:
    """Makes calls with clear errors; ``revive`` starts an embedded server again before a retry.

    A server object belongs to the event loop and the process that use it first. Sockets and tasks
    cannot be shared with others, so calls from there are rejected at once.

    Raises:
        InvalidInputError: ``retry_seconds`` is out of bounds.
    """

    def __init__(
        self,
        client: AnyClient,
        keys: Keys,
        *,
        where: str,
        retry_seconds: float,
        call_seconds: float = CALL_SECONDS,
        read_only: bool = False,
        is_number_given: bool = True,
        revive: Revive | None = None,
    ) -> None:
        if not 0 <= retry_seconds <= LONGEST_RETRY_SECONDS:
            raise InvalidInputError(
                f"retry_seconds is {retry_seconds}, but must be from 0 to {LONGEST_RETRY_SECONDS:g}"
            )
        self.keys = keys
        self.where = where
        self.retry_seconds = retry_seconds
        self.call_seconds = call_seconds
        self.topology = topology_of(client, call_seconds)
        self.use = StoreUse(self.topology.is_cluster, read_only, is_number_given)
        self.nodes = Nodes(self.topology, keys, where, self.use)
        self.key_space = KeySpace(self.nodes, keys, where, self.use)
        self.locator = Locator(keys, self.key_space, self.ready, self._retrying, self.read_all)
        self.can_half_close = ConnectionMaker.of(client).can_half_close
        """Whether ``blocking_all`` takes a bell."""
        self._revive = revive
        self._not_revived: MurmurError | None = None
        self._ready: asyncio.Task[None] | None = None
        self._closed = self._was_ready = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        """The process and event loop that it belongs to, from the first use on."""
        self.when_ready: list[Callable[[], None]] = []
        """What is called once the server has been checked."""

    def is_ready(self) -> bool:
        """Whether ``ready`` would return at once, as it does for every call but the first ones."""
        return self._was_ready and not self._is_elsewhere()

    async def ready(self) -> None:
        """Check the server once, before the first use.

        Raises:
            StoreConfigurationError: the server is too old, has another number of partitions or
                schema, or does not give the user all permissions.
            StoreUnavailableError: not reached within 5 seconds, or ``retry_seconds`` if less.
            StoreReadOnlyError: the server stayed a replica for as long.
            StoreClosedError: closed, or used from another event loop or process.
        """
        if self._closed:
            raise StoreClosedError("the store is closed; open a new one")
        self._check_home()
        check = self._ready
        if check is None or check.done():
            if check is not None and not check.cancelled() and check.exception() is None:
                # Also when the callers that waited for it were cancelled before its end.
                self._was_ready = True
                return
            check = self._ready = start_shared_task(self._check(), "check the server")
        try:
            await asyncio.shield(check)
            self._was_ready = not self._closed
        except asyncio.CancelledError:
            if self._closed and check.cancelled() and not is_cancelled():
                raise StoreClosedError("the store was closed during the call") from None
            raise

    @property
    def is_cluster(self) -> bool:
        """Whether the partitions are spread over the nodes of a cluster."""
        return self.topology.is_cluster

    def loader(self, partition: int) -> Loader:
        """How the server of a partition is called; while none has it, how others are.

        Raises:
            ClusterDownError: no server is known that has any partition.
        """
        try:
            return self.nodes.of_partition(partition).loader
        except RedisError:
            # Where no server is known at all, the second look raises the same error.
            return (self.nodes.all or [self.nodes.of_partition(partition)])[0].loader

    async def check_worker(self) -> None:
        """Check the further rights of a worker; StoreConfigurationError names those that miss."""
        await self.ready()
        self.use.check_may_write()
        await self._retrying(lambda: readiness.check_worker(self.nodes))

    async def read(self, *command: object) -> Reply:
        """Execute one read; repeat it after lost connections, until ``retry_seconds`` are over."""
        await self.ready()
        return await self._retrying(lambda: self.nodes.of_command(command).commands.call(*command))

    async def read_all(self, *commands: Command) -> list[Reply]:
        """Execute several reads, in one round trip to each node, retried like ``read``."""
        await self.ready()
        return await self._retrying(lambda: self.nodes.pipeline(commands))

    async def ping(self) -> None:
        """Check that it takes writes and has the scripts and meta; prepare it again if it has not.

        Raises:
            StoreConfigurationError: another program has filled it since the last check.
            StoreError: it takes no writes now: it is a replica, out of memory, or has too few
                replicas.
        """
        await self.ready()
        if self.use.read_only:
            await self._retrying(self.key_space.check)
            return
        await self._retrying(lambda: readiness.ping(self.nodes, self.keys, self.where))
        await self._retrying(lambda: never_sent(self.key_space.check()))

    async def blocking(self, *command: object, seconds: float) -> Reply:
        """Execute one blocking read on a connection of its own; errors are the driver's."""
        self._check_home()
        return await self.nodes.of_command(command).blocking.blocking(*command, seconds=seconds)

    async def blocking_all(
        self, *commands: Command, seconds: float, bell: Bell | None = None
    ) -> list[Reply] | None:
        """Execute a blocking command and those behind it; see ``Connections.blocking_all``.

        All of them are for keys of one partition.
        """
        self._check_home()
        node = self.nodes.of_command(commands[0])
        return await node.blocking.blocking_all(list(commands), seconds, bell)

    async def read_streams(self, after: Mapping[str, str], count: int, seconds: float) -> Reply:
        """Wait for entries of streams, each after its position, at most ``seconds``."""
        block = ("BLOCK", max(1, round(seconds * 1000)))
        command = ("XREAD", "COUNT", count, *block, "STREAMS", *after, *after.values())
        return await self.blocking(*command, seconds=seconds)

    async def new_connection(self, node: ServerNode, again: bool) -> Any:
        """Make a connection for the caller alone, with all scripts loaded.

        Args:
            node: to which server.
            again: an earlier connection was lost. The server is checked again, as it may be another
                one: after a failover, or a restart without its data.
        """
        await self.ready()
        if again:
            await node.prepare_again()
            if not self.is_cluster:
                await never_sent(self.key_space.check())
        return await node.commands.new_connection(node.loader.first_commands())

    async def blocking_connection(self, partition: int, _again: bool) -> Any:
        """Make a connection for the caller alone, for reads that block; a lane makes it again."""
        self._check_home()
        return await self.nodes.of_partition(partition).blocking.new_connection([("PING",)])

    async def script(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        """Execute a script once; the caller judges the driver's errors."""
        self.use.check_may_write()
        try:
            return await self._script(name, keys, args)
        except (ResponseError, failures.UnconfirmedError) as error:
            if isinstance(error, ResponseError) and not failures.is_not_loaded(error):
                raise
            missing = error
        await self.mend(keys[0], missing)
        return await self._script(name, keys, args)

    async def _script(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        node = self.nodes.of_key(keys[0])
        return read_answer(await node.commands.call(*self.nodes.script(name, keys, args)))

    async def mend(self, key: str, error: BaseException) -> None:
        """Prepare a server for a call that failed with this error, before it is sent again.

        Args:
            key: of the call.
            error: the server does not have the scripts, or the partition's number.
        """
        if isinstance(error, failures.UnconfirmedError):
            await never_sent(self.key_space.confirm([self.keys.partition_of_key(key)]))
            return
        await self.nodes.of_key(key).prepare_again()
        if not self.is_cluster:
            await never_sent(self.key_space.check())

    async def idempotent_script(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        """Execute a script that may safely run twice, retried like ``read``."""
        await self.ready()
        return await self._retrying(lambda: self.script(name, keys, args))

    async def partition_script(self, name: str, partition: int, *args: str | int) -> Answer:
        """Execute a script that serves all runs of a partition and may safely run twice."""
        return await self.idempotent_script(name, self.keys.base_and_feed(partition), [*args])

    async def single_script(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        """Execute a script at most once; it is not retried after a lost reply.

        Raises:
            StoreUnavailableError: the connection broke; the script may have been executed.
            StoreError: the server refused it.
        """
        await self.ready()
        try:
            return await self.script(name, keys, args)
        except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
            failure = error
        raise self.unavailable(self.judge(failure))

    def judge(self, error: BaseException) -> BaseException:
        """Raise an error that a retry cannot change; else return the driver's own one."""
        reason = failures.reason_of(error)
        if failures.fate_of(reason) in failures.FINAL:
            raise failures.clear_error(reason, self.where)
        return reason

    async def recover(self, attempt: int) -> None:
        """Wait with backoff and jitter before a further try, and revive an embedded server."""
        await self.topology.pause_before_retry(attempt)
        if self._revive is None or self._closed:
            return
        try:
            await self._revive()
        except MurmurError as error:
            # The next try may find it running; the last one raises this error.
            logger.debug("%s was not revived: %s", self.where, error)
            self._not_revived = error
        else:
            self._not_revived = None

    def unavailable(self, reason: BaseException) -> MurmurError:
        """The error for a server that stayed out of reach, or that could not be revived."""
        return self._not_revived or failures.unavailable(self.where, reason)

    def start(self, work: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
        """Start a task that ends with the store at the latest."""
        task = start_task(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Close every connection; calls under way fail, and later ones raise StoreClosedError."""
        self._closed, self._was_ready = True, False
        tasks = [*self._tasks, *([self._ready] if self._ready is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.topology.close()

    @property
    def closed(self) -> bool:
        """True once ``close`` was called, and always in other event loops and processes."""
        # A close there would unregister the sockets of the loop or process that uses the store.
        return self._closed or self._is_elsewhere()

    def _check_home(self) -> None:
        if self._home is None:
            self._home = os.getpid(), asyncio.get_running_loop()
        elif self._is_elsewhere():
            what = "event loop" if self._home[0] == os.getpid() else "process (before a fork)"
            raise StoreClosedError(f"the store belongs to another {what}; open one here")

    def _is_elsewhere(self) -> bool:
        if self._home is None or self._home[0] != os.getpid():
            return self._home is not None
        try:
            return asyncio.get_running_loop() is not self._home[1]
        except RuntimeError:
            return True

    async def _check(self) -> None:
        if self._revive is not None:
            await self._revive()
        patience = min(self.retry_seconds, OPENING_SECONDS)
        await self._retrying(self.topology.find, patience)
        for node in self.nodes.all:
            node.preparation.is_protocol_known = False
        await self._retrying(lambda: readiness.begin(self.nodes), patience)
        await self._retrying(self.key_space.check, patience)
        await readiness.stamp(self.nodes)
        self.topology.watch()
        self.start(readiness.watch(self.nodes), "watch the servers")
        self.start(self.key_space.watch(), "watch the number of partitions")
        for start in self.when_ready:
            start()

    async def _retrying(
        self, call: Callable[[], Awaitable[_T]], seconds: float | None = None
    ) -> _T:
        since, retries = asyncio.get_running_loop().time(), None
        while True:
            try:
                return await call()
            except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
                failure = error
            retries = retries or Retries(self, "during the call", seconds, since)
            await retries.after(failure)
