"""The server of one store: checked before use, scripts by hash, reads with retries."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from murmur_streams.core.model.errors import InvalidInputError, MurmurError, StoreClosedError
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.own_tasks import is_cancelled, start_task
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.connection.pools import Pools
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.loading import Loader, is_complete
from murmur_streams.stores.redis.preparation import Preparation
from murmur_streams.stores.redis.replication import Replicas
from murmur_streams.stores.redis.replies import read_answer, text

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
        client: Redis,
        keys: Keys,
        *,
        where: str,
        retry_seconds: float,
        call_seconds: float = CALL_SECONDS,
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
        self._pools = Pools(client, call_seconds)
        self._commands, self._blocking = self._pools.commands, self._pools.blocking
        self.loader = Loader(self._commands)
        self.preparation = Preparation(self._commands, keys, where, self.loader)
        self.can_half_close = self._blocking.can_half_close
        """Whether ``blocking_all`` takes a bell."""
        self._revive = revive
        self._not_revived: MurmurError | None = None
        self._ready: asyncio.Task[None] | None = None
        self._closed = self._was_ready = False
        self._watching: asyncio.Task[None] | None = None
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        """The process and event loop that it belongs to, from the first use on."""
        self.when_ready: Callable[[], None] | None = None
        """Called once the server has been checked."""

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
                return
            check = self._ready = start_task(self._check(), "check the server")
        try:
            await asyncio.shield(check)
            self._was_ready = not self._closed
        except asyncio.CancelledError:
            if self._closed and check.cancelled() and not is_cancelled():
                raise StoreClosedError("the store was closed during the call") from None
            raise

    async def check_worker(self) -> None:
        """Check the further rights of a worker; StoreConfigurationError names those that miss."""
        await self.ready()
        await self._retrying(self.preparation.check_worker)

    async def read(self, *command: object) -> Reply:
        """Execute one read; repeat it after lost connections, until ``retry_seconds`` are over."""
        await self.ready()
        return await self._retrying(lambda: self._commands.call(*command))

    async def read_all(self, *commands: tuple[object, ...]) -> list[Reply]:
        """Execute several reads in one round trip, retried like ``read``."""
        await self.ready()
        return await self._retrying(lambda: self._commands.pipeline(list(commands)))

    async def ping(self) -> None:
        """Check that it takes writes and has the scripts and meta; prepare it again if it has not.

        Raises:
            StoreConfigurationError: another program has filled it since the last check.
            StoreError: it takes no writes now: it is a replica, out of memory, or has too few
                replicas.
        """
        meta = ("HGET", self.keys.meta, "partitions")
        # This changes nothing, and fails wherever a write fails.
        write = ("ZADD", self.keys.workers, "XX", "0", "")
        await self.ready()
        if self.preparation.read_only:
            await self._retrying(self.preparation.compare)
            return
        _, found, partitions, _ = await self._retrying(
            lambda: self._ask_now(("PING",), self.loader.probe(), meta, write)
        )
        if not is_complete(found) or text(partitions) != str(self.keys.partitions):
            await self._retrying(self.preparation.again)

    async def _ask_now(self, *commands: tuple[object, ...]) -> list[Reply]:
        """Execute commands; a refusal for the moment is raised, and not retried."""
        try:
            return await self._commands.pipeline(list(commands))
        except RedisError as error:
            if failures.is_not_loaded(error):
                await self.preparation.again()
                return await self._commands.pipeline(list(commands))
            if failures.code_of(error) and failures.fate_of(error) is failures.Fate.NOT_EXECUTED:
                raise failures.unavailable(self.where, error) from None
            raise

    async def blocking(self, *command: object, seconds: float) -> Reply:
        """Execute one blocking read on a connection of its own; errors are the driver's."""
        self._check_home()
        return await self._blocking.blocking(*command, seconds=seconds)

    async def blocking_all(
        self, *commands: tuple[object, ...], seconds: float, bell: Bell | None = None
    ) -> list[Reply] | None:
        """Execute a blocking command and those behind it; see ``Connections.blocking_all``."""
        self._check_home()
        return await self._blocking.blocking_all(list(commands), seconds, bell)

    async def read_streams(self, after: Mapping[str, str], count: int, seconds: float) -> Reply:
        """Wait for entries of streams, each after its position, at most ``seconds``."""
        block = ("BLOCK", max(1, round(seconds * 1000)))
        command = ("XREAD", "COUNT", count, *block, "STREAMS", *after, *after.values())
        return await self.blocking(*command, seconds=seconds)

    async def new_connection(self, again: bool) -> Any:
        """Make a connection for the caller alone, with all scripts loaded.

        Args:
            again: an earlier connection was lost. The server is checked again, as it may be another
                one: after a failover, or a restart without its data.
        """
        await self.ready()
        if again:
            await self.preparation.again()
        return await self._commands.new_connection(self.loader.first_commands())

    async def blocking_connection(self, _again: bool) -> Any:
        """Make a connection for the caller alone, for reads that block; a lane makes it again."""
        self._check_home()
        return await self._blocking.new_connection([("PING",)])

    def replicas(self) -> Replicas:
        """This server's replicas, for calls that wait for them; called before the first use."""
        self.preparation.check.waits_for_replicas = True
        return Replicas(self._pools, self.where, self.call_seconds)

    async def script(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        """Execute a script once; the caller judges the driver's errors."""
        self.preparation.check_may_write()
        try:
            return read_answer(await self._commands.call(*self.loader.command(name, keys, args)))
        except (ResponseError, failures.UnconfirmedError) as error:
            if isinstance(error, ResponseError) and not failures.is_not_loaded(error):
                raise
            missing = error
        await self.preparation.for_retry(missing)
        return read_answer(await self._commands.call(*self.loader.command(name, keys, args)))

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
        await self._pools.pause_before_retry(attempt)
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

    async def close(self) -> None:
        """Close every connection; calls under way fail, and later ones raise StoreClosedError."""
        self._closed, self._was_ready = True, False
        tasks = [task for task in (self._ready, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pools.close()

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
        preparation = self.preparation
        preparation.is_protocol_known = False
        info = await self._retrying(preparation.begin, min(self.retry_seconds, OPENING_SECONDS))
        watching = preparation.watch(may_ask="maxmemory_policy" in info)
        self._watching = start_task(watching, "watch the server")
        self._pools.watch()
        if self.when_ready is not None:
            self.when_ready()

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


class Retries:
    """The tries of one call or one reader: decides whether another is worth it, and waits for it.

    Args:
        server: what is called.
        closing: what a closed store interrupts, for the error.
        seconds: patience with a server that is not reached; None: the store's ``retry_seconds``.
        since: when it began to fail, by the loop's clock; None: at the first failure.
    """

    def __init__(
        self, server: Server, closing: str, seconds: float | None = None, since: float | None = None
    ) -> None:
        self._server = server
        self._closing = closing
        self._seconds = seconds
        self._failing_since = since
        self._attempt = 0

    def restart(self) -> None:
        """Forget the failures, after a try that succeeded."""
        self._failing_since, self._attempt = None, 0

    async def after(self, error: BaseException) -> None:
        """Wait before the next try; revive an embedded server.

        Raises:
            StoreClosedError: the store was closed.
            StoreUnavailableError: the time for retries is over.
            MurmurError: another try cannot end differently.
        """
        server, now = self._server, asyncio.get_running_loop().time()
        if server.closed:
            raise StoreClosedError(f"the store was closed {self._closing}")
        reason = server.judge(error)
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since >= self._patience(reason):
            raise server.unavailable(reason)
        logger.debug("a call to %s failed, trying again: %r", server.where, reason)
        await server.recover(self._attempt)
        self._attempt += 1

    def _patience(self, reason: BaseException) -> float:
        # A server that answers "not now" exists, and is worth the longer wait. A replica at the
        # first connection is not: like a missing answer, that is more often a wrong address.
        is_busy = failures.fate_of(reason) is failures.Fate.NOT_EXECUTED
        waits = is_busy and failures.code_of(reason) != "READONLY"
        return self._server.retry_seconds if waits or self._seconds is None else self._seconds
