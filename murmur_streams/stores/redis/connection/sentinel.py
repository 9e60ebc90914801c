"""Sentinel: where the primary of a service is, and when another server becomes the primary."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.own_tasks import end_tasks, start_shared_task, start_task
from murmur_streams.stores.redis.connection.failures import is_credentials, is_shut
from murmur_streams.stores.redis.connection.maker import Address, AnyClient, ConnectionMaker
from murmur_streams.stores.redis.connection.messages import messages

logger = logging.getLogger("murmur_streams.redis")

ASK_SECONDS = 1.0
"""How long the Sentinels get to answer, all at once."""
ANEW_SECONDS = 10.0
"""News of a failover reach every Sentinel within a few seconds. If most of them still name a lower
epoch after this time, they were set up anew."""
CHANNELS = ("+switch-master", "+promoted-slave")
"""In an orderly failover the second one comes first, while the old primary still takes writes."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The primary as one Sentinel sees it. Each failover has a higher epoch than those before."""

    epoch: int
    address: Address
    is_failing_over: bool = field(default=False, compare=False)
    """Whether it replaces this primary now."""


class Primary:
    """The present primary of a service.

    The answer with the highest configuration epoch counts, and none below the highest one seen: an
    old primary that comes back after a failover still takes itself for one, and so do the
    Sentinels that were cut off with it.

    Args:
        service: the name under which the Sentinels monitor it.
        sentinels: makes the connections to each of them.
    """

    def __init__(self, service: str, sentinels: Sequence[ConnectionMaker]) -> None:
        self._service = service
        self._sentinels = sentinels
        self._epoch = -1
        self._address: Address | None = None
        self._is_sure = self._is_agreed = False
        self._behind_since: float | None = None
        """Since when most Sentinels have named an epoch below the highest one seen."""
        self._asking: asyncio.Task[None] | None = None
        self._watches: list[asyncio.Task[None]] = []
        self.when_moved: Callable[[], Awaitable[None]] | None = None
        """Called when another server has become the primary."""

    @property
    def last_address(self) -> Address | None:
        """The address as of the last answer."""
        return self._address

    async def address(self) -> Address:
        """Where the primary is; asks the Sentinels the first time, and after ``doubt``.

        Raises:
            StoreConfigurationError: they do not know the service.
            ConnectionError: none of them answers.
        """
        if not self._is_sure:
            await self._ask_once()
        assert self._address is not None  # noqa: S101  # an ask that found none has raised
        return self._address

    @property
    def term(self) -> int:
        """The configuration epoch of the present primary: each failover has a higher one."""
        return self._epoch

    @property
    def name(self) -> str:
        """The address of the present primary, as INFO names a replica."""
        return "" if self._address is None else f"{self._address[0]}:{self._address[1]}"

    async def is_agreed(self) -> bool:
        """Whether most Sentinels, asked now, name the present primary, and none replaces it."""
        self._is_agreed = False
        await self._ask_again()
        return self._is_agreed

    def doubt(self) -> None:
        """Ask again before the next connection: this address answered as no primary does."""
        self._is_sure = False

    def watch(self) -> None:
        """Listen to every Sentinel from now on, and learn of a failover when it happens."""
        if not self._watches:
            self._watches = [
                start_task(self._watch(maker), "listen to a Sentinel") for maker in self._sentinels
            ]

    async def close(self) -> None:
        """Stop listening."""
        tasks = [*self._watches, *([self._asking] if self._asking else [])]
        await end_tasks(tasks)

    async def _ask_once(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = start_shared_task(self._ask(), "ask the Sentinels")
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        asks = [asyncio.create_task(self._answer(maker)) for maker in self._sentinels]
        try:
            done, _ = await asyncio.wait(asks, timeout=ASK_SECONDS)
        finally:
            await end_tasks(asks)
        failures = [task.exception() for task in done]
        seen = [task.result() for task in done if task.exception() is None]
        newest = max(seen, key=lambda each: each.epoch, default=None)
        if newest is None:
            raise self._no_answer([each for each in failures if each is not None])
        if newest.epoch < self._epoch and not self._have_begun_anew(seen, newest):
            raise RedisConnectionError(
                f"the Sentinels that answer know an older primary of {self._service!r} than others "
                "have named before"
            )
        await self._note(newest)
        is_replaced = any(each.is_failing_over and each == newest for each in seen)
        self._is_agreed = 2 * seen.count(newest) > len(self._sentinels) and not is_replaced

    def _have_begun_anew(self, seen: Sequence[_Seen], newest: _Seen) -> bool:
        """Whether the Sentinels count from a lower epoch, because they were set up anew."""
        if 2 * seen.count(newest) <= len(self._sentinels):
            self._behind_since = None
            return False
        now = asyncio.get_running_loop().time()
        self._behind_since = now if self._behind_since is None else self._behind_since
        return now - self._behind_since > ANEW_SECONDS

    def _no_answer(self, failures: Sequence[BaseException]) -> Exception:
        for failure in failures:
            if is_credentials(failure):
                return StoreConfigurationError(
                    f"the Sentinels of {self._service!r} refused the user name or password "
                    f"({failure}); check sentinel_username and sentinel_password in the URL"
                )
            if is_shut(failure):
                return cast("Exception", failure)
            if isinstance(failure, ResponseError) and "No such master" in str(failure):
                return StoreConfigurationError(
                    f"the Sentinels monitor no service {self._service!r}: the URL ends with "
                    "/service, as in their setting `sentinel monitor service ...`"
                )
        where = ", ".join(
            f"{each.settings.get('host')}:{each.settings.get('port')}" for each in self._sentinels
        )
        said = str(failures[0]) if failures else f"no answer within {ASK_SECONDS:g} s"
        return RedisConnectionError(f"none of the Sentinels {where} names a primary: {said}")

    async def _note(self, seen: _Seen) -> None:
        before, self._address = self._address, seen.address
        self._epoch, self._is_sure, self._behind_since = seen.epoch, True, None
        if before is None or before == seen.address:
            return
        host, port = seen.address
        logger.warning("the primary of %r is now %s:%d", self._service, host, port)
        if self.when_moved is not None:
            await self.when_moved()

    async def _answer(self, maker: ConnectionMaker) -> _Seen:
        """Ask one Sentinel.

        The one that leads a failover names the new primary here before it reports the switch.
        """
        connection = maker.make()
        try:
            await connection.connect()
            commands = [
                ("SENTINEL", "MASTER", self._service),
                ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
            ]
            await connection.send_packed_command(connection.pack_commands(commands))
            flat = cast("list[bytes]", await connection.read_response())
            host, port = cast("list[bytes]", await connection.read_response())
        finally:
            await _drop(connection)
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        is_failing_over = b"failover_in_progress" in fields.get(b"flags", b"")
        return _Seen(int(fields[b"config-epoch"]), (host.decode(), int(port)), is_failing_over)

    async def _watch(self, maker: ConnectionMaker) -> None:
        while True:
            connection = maker.make()
            try:
                # A frozen host takes a connection, and answers nothing, not even the password.
                async with asyncio.timeout(ASK_SECONDS):
                    await connection.connect()
                    await connection.send_command("SUBSCRIBE", *CHANNELS)
                # It may have happened before the subscription.
                await self._ask_again()
                await self._listen(connection)
            except (RedisError, OSError) as error:
                logger.debug("a Sentinel is not listened to: %r", error)
            finally:
                await _drop(connection)
            await asyncio.sleep(ASK_SECONDS)

    async def _listen(self, connection: Any) -> None:
        """Ask all Sentinels whenever this one reports something; raises when it is gone."""
        async with contextlib.aclosing(messages(connection)) as reports:
            async for kind, *_ in reports:
                if kind == b"message":
                    await self._ask_again()

    async def _ask_again(self) -> None:
        # An ask that is under way may have begun before what was reported.
        if self._asking is not None:
            await asyncio.wait([self._asking])
        # Who needs the address gets the error of an ask of its own.
        with contextlib.suppress(RedisError, OSError, StoreConfigurationError):
            await self._ask_once()


def primary_of(client: AnyClient) -> Primary | None:
    """The service whose primary a client uses; None for the client of one address.

    Raises:
        StoreConfigurationError: the client is for replicas.
    """
    pool = cast("Any", client).connection_pool
    if not isinstance(pool, SentinelConnectionPool):
        return None
    if not cast("Any", pool).is_master:
        raise StoreConfigurationError(
            "the client reads from replicas; make it with Sentinel.master_for(...)"
        )
    sentinels = [each.connection_pool for each in cast("Any", pool).sentinel_manager.sentinels]
    return Primary(
        str(cast("Any", pool).service_name),
        [
            ConnectionMaker.by(
                each.connection_class,
                each.connection_kwargs,
                socket_connect_timeout=ASK_SECONDS,
            )
            for each in sentinels
        ],
    )


async def _drop(connection: Any) -> None:
    with contextlib.suppress(Exception):
        await connection.disconnect(nowait=True)
