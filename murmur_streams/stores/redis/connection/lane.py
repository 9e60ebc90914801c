"""A lane: one connection that pipelines many calls; replies come in the order of the calls."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from redis.exceptions import InvalidResponse, RedisError, ResponseError

from murmur_streams.stores.own_tasks import start_task
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.connection.connections import Reply, drop_connection

Connect = Callable[[bool], Awaitable[Any]]
"""Makes a connection with all scripts loaded; True: the connection before it broke."""


@dataclass(slots=True)
class _Call:
    """One command, and the future of its reply."""

    packed: bytes
    reply: asyncio.Future[Reply]
    sent_at: float = 0.0


class Lane:
    """Sends commands as they come, without waiting for earlier replies.

    Calls that arrive in one turn of the event loop leave in one write. When the connection breaks,
    every call that was sent fails with the driver's error, and every other one with
    NeverSentError: the caller must know the difference, because a call that was sent may have been
    applied. The next call connects again.

    Args:
        connect: makes a connection.
        deadline_seconds: a connection whose reply takes longer counts as broken.
    """

    def __init__(self, connect: Connect, *, deadline_seconds: float) -> None:
        self._connect = connect
        self._deadline_seconds = deadline_seconds
        self._unsent: list[_Call] = []
        self._sent: deque[_Call] = deque()
        self._more = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._broke = False

    def call(self, *command: object) -> asyncio.Future[Reply]:
        """Queue a command; the future yields its reply or raises its error."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        try:
            # Here, and not when it is sent: a command that cannot be packed must fail alone.
            packed = _packed(command)
        except Exception as error:  # noqa: BLE001  # the caller judges it
            reply.set_exception(error)
            return reply
        self._unsent.append(_Call(packed, reply))
        if self._running is None:
            self._running = start_task(self._run(), "lane")
        self._more.set()
        return reply

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        connection: Any = None
        failure: BaseException = ConnectionError("the lane was closed")
        try:
            while True:
                connection = await self._connect(self._broke)
                try:
                    await self._use(connection)
                except _StaleError:
                    self._broke = True
                    await drop_connection(connection)
        except Exception as error:  # noqa: BLE001  # every caller judges it
            failure = error
        finally:
            # No await until _fail is done. A call that came in between would find a running lane
            # that has stopped sending, and would wait for a reply for ever; after _running is None
            # it starts a new task, and its entry in _unsent must not be failed with the old ones.
            self._running = None
            self._broke = True
            self._fail(failure)
            if connection is not None:
                await drop_connection(connection)

    async def _use(self, connection: Any) -> None:
        parts = [
            asyncio.create_task(self._send(connection), name="lane sends"),
            asyncio.create_task(self._receive(connection), name="lane receives"),
            asyncio.create_task(self._watch(), name="lane watches"),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _send(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._more.wait()
            self._more.clear()
            if not self._sent and _is_stale(connection):
                raise _StaleError
            calls, self._unsent = self._unsent, []
            now = loop.time()
            for call in calls:
                call.sent_at = now
            self._sent.extend(calls)
            await connection.send_packed_command([call.packed for call in calls])

    async def _receive(self, connection: Any) -> None:
        outdated: RedisError | None = None
        while True:
            try:
                reply = await connection.read_response()
            except RedisError as error:
                # An error with a code is the server's answer to one call, whatever its class.
                if not isinstance(error, ResponseError) and not failures.code_of(error):
                    raise
                self._answered().set_exception(error)
                if failures.needs_new_connection(error):
                    outdated = error
            else:
                self._answered().set_result(reply)
            if outdated is not None and not self._sent:
                # Only when all replies were read: closing earlier would leave the calls that were
                # sent without an answer, and so unknown, although the server answers each of them.
                raise outdated

    def _answered(self) -> asyncio.Future[Reply]:
        if not self._sent:
            raise InvalidResponse("the server sent a reply that no call asked for")
        reply = self._sent.popleft().reply
        # A cancelled caller's reply is read and dropped. If it were not, the next caller would get
        # it, and from then on every reply would go to the wrong call.
        return asyncio.get_running_loop().create_future() if reply.done() else reply

    async def _watch(self) -> None:
        # One timer for all calls: one for each would cost more than the call itself.
        loop, pause = asyncio.get_running_loop(), self._deadline_seconds / 4
        while True:
            await asyncio.sleep(pause)
            if self._sent and loop.time() - self._sent[0].sent_at > self._deadline_seconds:
                raise TimeoutError(f"no reply within {self._deadline_seconds} s")

    def _fail(self, failure: BaseException) -> None:
        never_sent = failures.NeverSentError()
        never_sent.__cause__ = failures.reason_of(failure)
        sent, self._sent = self._sent, deque()
        unsent, self._unsent = self._unsent, []
        for call in sent:
            if not call.reply.done():
                call.reply.set_exception(failure)
        for call in unsent:
            if not call.reply.done():
                call.reply.set_exception(never_sent)


class _StaleError(Exception):
    """The server closed an idle connection; nothing was sent on it."""


def _is_stale(connection: Any) -> bool:
    """Whether an idle connection has something to read: its end, or an unasked reply."""
    info = getattr(connection._writer, "get_extra_info", None)
    socket = None if info is None else info("socket")
    # fakeredis has no socket.
    return socket is not None and _is_readable(socket)


def _is_readable(socket: Any) -> bool:
    if not hasattr(select, "poll"):
        # Windows has no poll, and its select takes sockets of any number.
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def pack_plainly(command: tuple[object, ...]) -> bytes:
    """Encode a command by the protocol, where hiredis is not installed."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    lines = [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
    return b"".join([b"*%d\r\n" % len(parts), *lines])


try:
    import hiredis
except ImportError:
    _packed = pack_plainly
else:
    # The driver's own encoding takes a third of a call's time.
    _packed = cast("Callable[[tuple[object, ...]], bytes]", cast("Any", hiredis).pack_command)
