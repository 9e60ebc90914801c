"""One server as the engine sees it: scripts by hash, reads with retries, and a check at the start."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from murmur_streams.core.decide import Answer
from murmur_streams.core.errors import MurmurError, StoreClosedError, StoreUnavailableError
from murmur_streams.stores.redis.checks import check_server
from murmur_streams.stores.redis.connections import Connections, NeverSentError, Reply
from murmur_streams.stores.redis.failures import Fate, clear_error, fate_of
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.scripts import load_scripts

logger = logging.getLogger("murmur_streams.redis")

CALL_SECONDS = 5.0
"""A call that takes longer has lost its connection."""
COMMAND_CONNECTIONS = 32
BLOCKING_CONNECTIONS = 1_000
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 2.0

_T = TypeVar("_T")
Revive = Callable[[], Awaitable[None]]


class Server:
    """Calls with clear errors; ``revive`` starts an embedded server again before a retry."""

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        *,
        where: str,
        retry_seconds: float,
        revive: Revive | None = None,
    ) -> None:
        self.keys = keys
        self.where = where
        self.retry_seconds = retry_seconds
        self._commands = Connections(
            client, size=COMMAND_CONNECTIONS, deadline_seconds=CALL_SECONDS
        )
        self._blocking = Connections(
            client, size=BLOCKING_CONNECTIONS, deadline_seconds=CALL_SECONDS
        )
        self._revive = revive
        self._ready: asyncio.Task[None] | None = None
        self._closed = False

    async def ready(self) -> None:
        """Check the server once, before the first use.

        Raises:
            StoreConfigurationError: too old, wrong partitions or schema, missing permissions.
        """
        if self._closed:
            raise StoreClosedError("the store is closed; open a new one")
        if self._ready is None or (self._ready.done() and not _succeeded(self._ready)):
            self._ready = asyncio.create_task(self._check())
        await asyncio.shield(self._ready)

    async def read(self, *command: object) -> Reply:
        """Execute one read, again after a lost connection, until ``retry_seconds`` are over."""
        await self.ready()
        return await self._retrying(lambda: self._commands.call(*command))

    async def read_all(self, *commands: tuple[object, ...]) -> list[Reply]:
        """Execute several reads in one round trip, retried like ``read``."""
        await self.ready()
        return await self._retrying(lambda: self._commands.pipeline(list(commands)))

    async def blocking(self, *command: object, seconds: float) -> Reply:
        """Execute one blocking read on a connection of its own; errors are the driver's."""
        return await self._blocking.blocking(*command, seconds=seconds)

    async def script(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        """Execute a script once; errors are the driver's, and its fate is the caller's to judge."""
        script = load_scripts()[name]
        command = (script.sha, len(keys), *keys, *args)
        try:
            reply = await self._commands.call("EVALSHA", *command)
        except NoScriptError:
            await self._load_scripts()
            reply = await self._commands.call("EVALSHA", *command)
        return tuple(text(part) for part in reply)

    async def idempotent_script(
        self, name: str, keys: list[str], args: list[str | int]
    ) -> Answer:
        """Execute a script that may safely run twice, retried like ``read``."""
        await self.ready()
        return await self._retrying(lambda: self.script(name, keys, args))

    async def single_script(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        """Execute a script at most once; after a lost reply it may have been executed.

        Raises:
            StoreUnavailableError: the connection broke; whether it was executed is unknown.
            StoreError: the server refused it.
        """
        await self.ready()
        try:
            return await self.script(name, keys, args)
        except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
            cause = error.__cause__ if isinstance(error, NeverSentError) else error
            reason = cause or error
        if fate_of(reason) is Fate.REFUSED:
            raise clear_error(reason, self.where) from None
        raise unavailable(self.where, reason) from None

    async def recover(self, attempt: int) -> None:
        """Wait with backoff and jitter before a further try, and revive an embedded server."""
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(attempt, 10))
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, no secret
        if self._revive is not None:
            await self._revive()

    async def close(self) -> None:
        """Close every connection; calls under way fail, later ones raise StoreClosedError."""
        self._closed = True
        if self._ready is not None and not self._ready.done():
            self._ready.cancel()
        await self._commands.close()
        await self._blocking.close()

    @property
    def closed(self) -> bool:
        """True once ``close`` was called."""
        return self._closed

    async def _check(self) -> None:
        if self._revive is not None:
            await self._revive()
        await self._retrying(lambda: check_server(self._commands, self.keys, self.where))
        await self._retrying(self._load_scripts)

    async def _load_scripts(self) -> None:
        await self._commands.pipeline(
            [("SCRIPT", "LOAD", script.text) for script in load_scripts().values()]
        )

    async def _retrying(self, call: Callable[[], Awaitable[_T]]) -> _T:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.retry_seconds
        attempt = 0
        while True:
            try:
                return await call()
            except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
                cause = error.__cause__ if isinstance(error, NeverSentError) else error
                reason = cause or error
            if isinstance(reason, MurmurError) or fate_of(reason) is Fate.REFUSED:
                raise clear_error(reason, self.where) from None
            if self._closed:
                raise StoreClosedError("the store was closed during the call") from None
            if loop.time() >= give_up:
                raise unavailable(self.where, reason) from None
            logger.debug("call to %s failed, trying again: %s", self.where, reason)
            await self.recover(attempt)
            attempt += 1


def unavailable(where: str, reason: BaseException) -> StoreUnavailableError:
    """The error for a server that stayed out of reach."""
    return StoreUnavailableError(
        f"{where} cannot be reached ({reason or type(reason).__name__}); "
        "check that it runs and that the address is right"
    )


def text(value: object) -> str:
    """Read a reply's part as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _succeeded(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is None
