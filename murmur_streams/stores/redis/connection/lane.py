"""A lane: one connection that pipelines many calls; replies come in the order of the calls."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from redis.exceptions import InvalidResponse, RedisError, ResponseError

from murmur_streams.stores.own_tasks import start_task
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.connection.connections import Reply, drop_connection
from murmur_streams.stores.redis.connection.reply_protocol import ReplyProtocol, take_over

Connect = Callable[[bool], Awaitable[Any]]
"""Makes a connection with all scripts loaded; True: the connection before it broke."""


@dataclass(slots=True)
class _Call:
    """One command, and the future of its reply."""

    packed: bytes
    reply: asyncio.Future[Reply]
    notify: Callable[[], None] | None
    sent_at: float = 0.0

    def answer(self, reply: Reply) -> None:
        """Hand the reply, or the exception that stands for it, to the caller."""
        # A cancelled caller's reply is dropped. If it were not read, the next caller would get it,
        # and from then on every reply would go to the wrong call.
        if not self.reply.done():
            if isinstance(reply, BaseException):
                self.reply.set_exception(reply)
            else:
                self.reply.set_result(reply)
        if self.notify is not None:
            self.notify()


class CommandSender(Protocol):
    """Sends commands as they come; ``Lane`` explains it."""

    def call(
        self, *command: object, notify: Callable[[], None] | None = None
    ) -> asyncio.Future[Reply]: ...


class Lane:
    """Sends commands as they come, without waiting for earlier replies.

    When the connection breaks, every call that was sent fails with the driver's error, and every
    other one with NeverSentError: the caller must know the difference, because a call that was sent
    may have been applied. The next call connects again.

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
        self._transport: Any = None
        """The open connection's transport, where calls are written to it at once."""
        self._protocol: ReplyProtocol | None = None
        self._outdated: RedisError | None = None
        """The reply that says that this server is not the primary any more."""

    def call(
        self, *command: object, notify: Callable[[], None] | None = None
    ) -> asyncio.Future[Reply]:
        """Send a command; the future yields its reply or raises its error.

        Args:
            command: the command.
            notify: called as soon as the future is done, in the same turn of the event loop.
        """
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        try:
            # Here, and not when it is sent: a command that cannot be packed must fail alone.
            packed = _packed(command)
        except Exception as error:  # noqa: BLE001  # the caller judges it
            reply.set_exception(error)
            if notify is not None:
                loop.call_soon(notify)
            return reply
        call = _Call(packed, reply, notify, loop.time())
        if self._protocol is not None and self._may_write():
            self._sent.append(call)
            try:
                self._transport.write(packed)
            except Exception as error:  # noqa: BLE001  # the lane ends with it
                self._protocol.lose(error)
            return reply
        self._unsent.append(call)
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
        taken = take_over(connection, self._on_reply)
        if taken is None:
            works = [self._send(connection), self._receive(connection)]
        else:
            self._transport, self._protocol = taken
            works = [self._write(), _until(self._protocol.lost)]
        parts = [asyncio.create_task(work, name="lane") for work in (*works, self._watch())]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            self._protocol = None
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    def _may_write(self) -> bool:
        """Whether the next call may leave at once: nothing waits, and the connection is open."""
        if self._unsent or self._transport.is_closing():
            return False
        return bool(self._sent) or not _is_stale(self._transport)

    async def _write(self) -> None:
        """Write what came before the connection was open, or while it seemed to be closed."""
        while True:
            if self._unsent and not self._sent and _is_stale(self._transport):
                raise _StaleError
            for call in self._take_unsent():
                self._transport.write(call.packed)
            self._more.clear()
            await self._more.wait()

    def _take_unsent(self) -> list[_Call]:
        calls, self._unsent = self._unsent, []
        now = asyncio.get_running_loop().time()
        for call in calls:
            call.sent_at = now
        self._sent.extend(calls)
        return calls

    async def _send(self, connection: Any) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            calls = self._take_unsent()
            await connection.send_packed_command([call.packed for call in calls])

    async def _receive(self, connection: Any) -> None:
        while True:
            try:
                reply = await connection.read_response()
            except RedisError as error:
                reply = error
            self._on_reply(reply)

    def _on_reply(self, reply: Reply) -> None:
        """Hand a reply to its call; raises what ends the connection."""
        # An error with a code is the server's answer to one call, whatever its class.
        is_error = isinstance(reply, RedisError)
        if is_error and not isinstance(reply, ResponseError) and not failures.code_of(reply):
            raise reply
        if not self._sent:
            raise InvalidResponse("the server sent a reply that no call asked for")
        if is_error and failures.needs_new_connection(reply):
            self._outdated = reply
        self._sent.popleft().answer(reply)
        if self._outdated is not None and not self._sent:
            # Only when all replies were read: closing earlier would leave the calls that were
            # sent without an answer, and so unknown, although the server answers each of them.
            outdated, self._outdated = self._outdated, None
            raise outdated

    async def _watch(self) -> None:
        # One timer for all calls: one for each would cost more than the call itself.
        loop = asyncio.get_running_loop()
        while True:
            since = self._sent[0].sent_at if self._sent else loop.time()
            left = since + self._deadline_seconds - loop.time()
            if left <= 0:
                raise TimeoutError(f"no reply within {self._deadline_seconds} s")
            await asyncio.sleep(left)

    def _fail(self, failure: BaseException) -> None:
        never_sent = failures.NeverSentError()
        never_sent.__cause__ = failures.reason_of(failure)
        sent, self._sent = self._sent, deque()
        unsent, self._unsent = self._unsent, []
        for call in sent:
            call.answer(failure)
        for call in unsent:
            call.answer(never_sent)


class _StaleError(Exception):
    """The server closed an idle connection; nothing was sent on it."""


async def _until(lost: asyncio.Future[None]) -> None:
    await lost


def _is_stale(transport: Any) -> bool:
    """Whether an idle connection is closing, or has something to read: its end, or a reply."""
    return transport.is_closing() or _is_readable(transport.get_extra_info("socket"))


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
