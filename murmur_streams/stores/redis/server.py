"""The server of one store: checked before use, scripts by hash, reads with retries."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from murmur_streams.core.model.errors import (
    InvalidInputError,
    MurmurError,
    StoreClosedError,
    StoreConfigurationError,
)
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.own_tasks import end_tasks, is_cancelled, start_task
from murmur_streams.stores.pauses import pause_before_retry
from murmur_streams.stores.redis.connection.checks import (
    WORKER_PROBES,
    check_permissions,
    check_server,
    server_info,
)
from murmur_streams.stores.redis.connection.connections import Connections, NeverSentError, Reply
from murmur_streams.stores.redis.connection.eviction import Eviction
from murmur_streams.stores.redis.connection.failures import (
    FINAL,
    UNCONFIRMED,
    Fate,
    UnconfirmedError,
    clear_error,
    code_of,
    fate_of,
    unavailable,
)
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.meta import check_meta, confirm_partitions
from murmur_streams.stores.redis.scripts import load_scripts

logger = logging.getLogger("murmur_streams.redis")

CALL_SECONDS = 5.0
"""A call that takes longer counts as lost with its connection."""
SILENT_SECONDS = 1.0
"""A server that is silent for so long may speak another protocol (TLS or plain)."""
OPENING_SECONDS = 5.0
"""Patience for the first connection: a wrong address is more likely than a broken network."""
LONGEST_RETRY_SECONDS = 300.0
"""Scripts remember a write for ten minutes: a retry after that would be applied a second time."""
COMMAND_CONNECTIONS = 4
BLOCKING_CONNECTIONS = 1_000

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
        self._commands = Connections(
            client, size=COMMAND_CONNECTIONS, deadline_seconds=call_seconds
        )
        self._blocking = Connections(
            client, size=BLOCKING_CONNECTIONS, deadline_seconds=call_seconds
        )
        self._revive = revive
        self._not_revived: MurmurError | None = None
        self._ready: asyncio.Task[None] | None = None
        self._closed = False
        self.eviction = Eviction(where)
        self._watching: asyncio.Task[None] | None = None
        self._is_protocol_known = False
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        """The process and event loop that it belongs to, from the first use on."""
        self.when_ready: Callable[[], None] | None = None
        """Called once the server has been checked."""

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
        if self._ready is None or (self._ready.done() and not _succeeded(self._ready)):
            self._ready = start_task(self._check(), "check the server")
        check = self._ready
        try:
            await asyncio.shield(check)
        except asyncio.CancelledError:
            if self._closed and check.cancelled() and not is_cancelled():
                raise StoreClosedError("the store was closed during the call") from None
            raise

    async def check_worker(self) -> None:
        """Check the further rights of a worker; StoreConfigurationError names those that miss."""
        await self.ready()
        await self._retrying(
            lambda: check_permissions(self._commands, self.keys, self.where, WORKER_PROBES)
        )

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
        hashes = [script.sha for script in load_scripts().values()]
        meta = ("HGET", self.keys.meta, "partitions")
        # This changes nothing, and fails wherever a write fails.
        write = ("ZADD", self.keys.workers, "XX", "0", "")
        await self.ready()
        _, found, partitions, _ = await self._retrying(
            lambda: self._ask_now(("PING",), ("SCRIPT", "EXISTS", *hashes), meta, write)
        )
        if not all(found) or text(partitions) != str(self.keys.partitions):
            await self._retrying(self.prepare_again)

    async def _ask_now(self, *commands: tuple[object, ...]) -> list[Reply]:
        """Execute commands; a refusal for the moment is raised, and not retried."""
        try:
            return await self._commands.pipeline(list(commands))
        except RedisError as error:
            if code_of(error) and fate_of(error) is Fate.NOT_EXECUTED:
                raise unavailable(self.where, error) from None
            raise

    async def blocking(self, *command: object, seconds: float) -> Reply:
        """Execute one blocking read on a connection of its own; errors are the driver's."""
        self._check_home()
        return await self._blocking.blocking(*command, seconds=seconds)

    async def new_connection(self, again: bool) -> Any:
        """Make a connection for the caller alone, with all scripts loaded.

        Args:
            again: an earlier connection was lost. The server is checked again, as it may be another
                one: after a failover, or a restart without its data.
        """
        await self.ready()
        if again:
            await self.prepare_again()
        return await self._commands.new_connection(
            [("SCRIPT", "LOAD", script.text) for script in load_scripts().values()]
        )

    async def script(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        """Execute a script once; the caller judges the driver's errors."""
        script = load_scripts()[name]
        command = (script.sha, len(keys), *keys, *args)
        try:
            return await self._evalsha(command)
        except (NoScriptError, UnconfirmedError) as error:
            missing = error
        await self.prepare_for(missing)
        return await self._evalsha(command)

    async def _evalsha(self, command: tuple[object, ...]) -> Answer:
        reply = await self._commands.call("EVALSHA", *command)
        answer = tuple(text(part) for part in reply)
        if answer[0] == UNCONFIRMED:
            raise UnconfirmedError("the number of partitions is not confirmed")
        return answer

    async def idempotent_script(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        """Execute a script that may safely run twice, retried like ``read``."""
        await self.ready()
        return await self._retrying(lambda: self.script(name, keys, args))

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
            reason = reason_of(error)
        if fate_of(reason) in FINAL:
            raise clear_error(reason, self.where)
        raise self.unavailable(reason)

    async def recover(self, attempt: int) -> None:
        """Wait with backoff and jitter before a further try, and revive an embedded server."""
        await pause_before_retry(attempt)
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
        return self._not_revived or unavailable(self.where, reason)

    async def close(self) -> None:
        """Close every connection; calls under way fail, and later ones raise StoreClosedError."""
        self._closed = True
        tasks = [task for task in (self._ready, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._commands.close()
        await self._blocking.close()

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
        return self._home is not None and self._home != (os.getpid(), _running_loop())

    async def _check(self) -> None:
        if self._revive is not None:
            await self._revive()
        self._is_protocol_known = False
        info = await self._retrying(self._begin, min(self.retry_seconds, OPENING_SECONDS))
        if "maxmemory_policy" in info:
            look = functools.partial(server_info, self._commands, "memory")
            self._watching = start_task(self.eviction.watch(look), "watch the eviction policy")
        if self.when_ready is not None:
            self.when_ready()

    async def _begin(self) -> dict[str, str]:
        """Check the server for the first time; probe a silent one with TLS, or without."""
        checking = start_task(self._prepare(is_first=True), "check the server")
        try:
            await asyncio.wait([checking], timeout=SILENT_SECONDS)
            # The exception is always read: asyncio logs one that is never read.
            is_silent = not checking.done() or is_lost(checking.exception())
            if is_silent and not self._is_protocol_known:
                # Once for each check: on a broken network the probe takes the time of retries.
                self._is_protocol_known = True
                refusal = await self._commands.protocol_refusal()
                if refusal is not None:
                    raise StoreConfigurationError(f"no connection to {self.where}: {refusal}")
            return await checking
        finally:
            await end_tasks([checking])

    async def _prepare(self, *, is_first: bool) -> dict[str, str]:
        info = await check_server(
            self._commands, self.keys, self.where, self.eviction, is_first=is_first
        )
        await self._load_scripts()
        await check_meta(self._commands, self.keys, self.where)
        return info

    async def prepare_again(self) -> None:
        """Check a server without the scripts as at the start: it is a new one, or was emptied."""
        await _never_sent(self._prepare(is_first=False))

    async def prepare_for(self, error: NoScriptError | UnconfirmedError) -> None:
        """Prepare the server for a call that failed with this error, before it is sent again."""
        if isinstance(error, UnconfirmedError):
            await _never_sent(confirm_partitions(self._commands, self.keys, self.where))
        else:
            await self.prepare_again()

    async def _load_scripts(self) -> None:
        await self._commands.pipeline(
            [("SCRIPT", "LOAD", script.text) for script in load_scripts().values()]
        )

    async def _retrying(
        self, call: Callable[[], Awaitable[_T]], seconds: float | None = None
    ) -> _T:
        loop = asyncio.get_running_loop()
        began, attempt = loop.time(), 0
        while True:
            try:
                return await call()
            except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
                reason = reason_of(error)
            if self._closed:
                raise StoreClosedError("the store was closed during the call")
            fate = fate_of(reason)
            if fate in FINAL:
                raise clear_error(reason, self.where)
            if loop.time() - began >= self._patience(reason, seconds):
                raise self.unavailable(reason)
            logger.debug("call to %s failed, trying again: %r", self.where, reason)
            await self.recover(attempt)
            attempt += 1

    def _patience(self, reason: BaseException, seconds: float | None) -> float:
        # A server that answers "not now" exists, and is worth the longer wait. A replica at the
        # first connection is not: like a missing answer, that is more often a wrong address.
        waits = fate_of(reason) is Fate.NOT_EXECUTED and code_of(reason) != "READONLY"
        return self.retry_seconds if waits or seconds is None else seconds


async def _never_sent(preparing: Awaitable[object]) -> None:
    """Mark errors of a preparation: the call itself was not sent, so it was not applied."""
    try:
        await preparing
    except NeverSentError:
        raise
    except Exception as error:
        raise NeverSentError from error


def is_lost(error: BaseException | None) -> bool:
    """Whether a call failed without an answer."""
    return error is not None and fate_of(reason_of(error)) is Fate.UNKNOWN


def reason_of(error: BaseException) -> BaseException:
    """The driver's error of a failed call, also if the call was never sent."""
    return error.__cause__ or error if isinstance(error, NeverSentError) else error


def text(value: object) -> str:
    """Decode a part of a reply."""
    # The store writes only UTF-8; other data must not end a reader with a UnicodeDecodeError.
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _succeeded(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is None


def pairs(flat: list[Any]) -> dict[str, str]:
    """Decode a flat reply of names and values."""
    texts = [text(part) for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
