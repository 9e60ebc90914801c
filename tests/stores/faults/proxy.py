"""A proxy between a store and its server that breaks things at chosen moments.

It knows where requests and replies begin and end, so a fault hits exactly one of them::

    proxy.plan = once(Fault.DROP_REPLY, calls("append"))
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import re
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Self

from murmur_streams.stores.redis.script_rights import COMMIT
from murmur_streams.stores.redis.scripts import LOADED, load_library, load_scripts
from tests.stores.faults.resp import parts_of, take_frame

COUNT_AT = 12
"""Where a call of the commit says how many commands it carries; see ``lua/commit.lua``."""
Parts = list[bytes]
Answer = Callable[[Parts], bytes | None]


class Fault(Enum):
    """The fates of one request."""

    NONE = "passed on"
    DROP_REQUEST = "the connection is cut before the server sees the request"
    DROP_REPLY = "the server executes the request, then the connection is cut"
    CUT_REQUEST = "the server sees half of the request"
    CUT_REPLY = "the store sees half of the reply"
    GARBAGE = "the server executes the request, the store reads what is not a reply"
    STALL = "executed as soon as the store has given up waiting"
    STALL_LATE = "executed when the test says so, after retries and later calls"
    LOSE_REQUEST = "the server never sees the request, and sees later ones; no reply comes any more"
    LOSE_REPLY = "the server executes this and later requests; no reply comes any more"
    BYTE_BY_BYTE = "request and reply travel in pieces of one byte"
    DELAY = "request and reply take a moment"


LOSSES = frozenset({Fault.LOSE_REQUEST, Fault.LOSE_REPLY})
CUTS = (Fault.DROP_REQUEST, Fault.DROP_REPLY, Fault.CUT_REQUEST, Fault.CUT_REPLY)
Plan = Callable[[Parts], Fault]


def nothing(_: Parts) -> Fault:
    """The plan of a good day."""
    return Fault.NONE


def calls(*names: str) -> Callable[[Parts], bool]:
    """Whether a request executes one of these scripts or commands; without names, any."""
    wanted = set(names)
    return lambda parts: bool(wanted & set(executed_by(parts)) if wanted else executed_by(parts))


def executed_by(parts: Parts) -> list[str]:
    """The script that a request calls; if it is the commit, the commands that the call carries."""
    script = _scripts().get(parts[1]) if parts[0] in {b"FCALL", b"EVALSHA"} else None
    if script is None or not script.startswith(COMMIT):
        return [] if script is None else [script]
    arguments, names = parts[3 + int(parts[2]) :], list[str]()
    at = COUNT_AT + 1
    for _ in range(int(arguments[COUNT_AT])):
        names.append(arguments[at].decode())
        at += 3 + int(arguments[at + 2])
    return names


def number_of(parts: Parts) -> int:
    """The number of a call of the commit."""
    return int(parts[3 + int(parts[2]) + 1])


@functools.cache
def _scripts() -> dict[bytes, str]:
    """The name of the script that each function and each hash stands for."""
    scripts, library = load_scripts(), load_library()
    found = {script.sha.encode(): name for name, script in scripts.items()}
    functions = re.findall(rf"{library.name}_(\w+)", library.text)
    named = {library.function(name).encode(): name for name in functions if name != LOADED}
    return found | named


def commands(*names: str) -> Callable[[Parts], bool]:
    """Whether a request is one of these commands."""
    wanted = {name.encode() for name in names}
    return lambda parts: parts[0].upper() in wanted


def once(fault: Fault, which: Callable[[Parts], bool]) -> Plan:
    """The fault for the first request of this kind."""
    return in_turn([fault], which)


def always(fault: Fault, which: Callable[[Parts], bool]) -> Plan:
    """The fault for every request of this kind."""
    return lambda parts: fault if which(parts) else Fault.NONE


def in_turn(faults: list[Fault], which: Callable[[Parts], bool]) -> Plan:
    """One fault after the other for the requests of this kind, then none."""
    left = iter(faults)
    return lambda parts: next(left, Fault.NONE) if which(parts) else Fault.NONE


class FaultProxy:
    """Listens on a loopback port, and talks to a server's unix socket or TCP port."""

    def __init__(self, upstream: str | tuple[str, int]) -> None:
        self.plan: Plan = nothing
        self.answer: Answer | None = None
        """Answers in the server's place, when it returns something."""
        self.seen: list[str] = []
        """The faults that happened, by name."""
        self.requests = 0
        self.url = ""
        """For the store."""
        self.upstream = upstream
        """Where the next connection leads; those that are open stay where they are."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._stalled: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.shut()
        assert self._server is not None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def connections(self) -> int:
        """How many connections of the store are open."""
        return len(self._tasks)

    def cut_all(self) -> None:
        """Cut every connection, whatever is on its way."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def shut(self) -> None:
        """Cut every connection and take no new one."""
        assert self._server is not None
        self._server.close()
        self.cut_all()

    def cut_some(self, random: random.Random) -> None:
        """Cut about half of the connections."""
        for writer in sorted(self._writers, key=id):
            if random.random() < 0.5:
                writer.transport.abort()

    @property
    def stalled(self) -> int:
        """How many requests wait for ``execute_stalled``."""
        return len(self._stalled)

    async def execute_stalled(self) -> list[bytes]:
        """Let the server execute what was stalled, in order; its replies."""
        stalled, self._stalled = self._stalled, []
        return [await self._execute_alone(request) for request in stalled]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            # asyncio's server complains of handlers that were cancelled, so none is.
            with contextlib.suppress(*_ENDS):
                await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await self._connect()
        store = _Store(reader)
        try:
            while (request := await store.next_request()) is not None:
                self.requests += 1
                await self._pass(request, store, writer, up_reader, up_writer)
        finally:
            up_writer.transport.abort()
            await store.stop()

    async def _pass(
        self,
        request: bytes,
        store: _Store,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        parts = parts_of(request)
        fault = self.plan(parts)
        if fault is not Fault.NONE:
            self.seen.append(fault.name)
        store.is_mute |= fault in LOSSES
        if fault is Fault.LOSE_REQUEST:
            return
        await self._before(fault, request, store, up_writer)
        made_up = self.answer(parts) if self.answer is not None else None
        if made_up is None:
            await _send(up_writer, request, fault)
            made_up = await store.or_gone(_read_frame(up_reader))
        if not store.is_mute:
            await _answer(writer, made_up, fault)
        elif fault not in LOSSES | {Fault.NONE}:
            raise _CutError

    async def _before(
        self, fault: Fault, request: bytes, store: _Store, up_writer: asyncio.StreamWriter
    ) -> None:
        """The faults that keep a request from its server."""
        if fault is Fault.DROP_REQUEST:
            raise _CutError
        if fault is Fault.CUT_REQUEST:
            up_writer.write(request[: len(request) // 2])
            up_writer.close()
            await up_writer.wait_closed()
            raise _CutError
        if fault in {Fault.STALL, Fault.STALL_LATE}:
            # The store gives up by closing its connection.
            await store.gone.wait()
            if fault is Fault.STALL:
                await self._execute_alone(request)
            else:
                self._stalled.append(request)
            raise _CutError

    async def _execute_alone(self, request: bytes) -> bytes:
        reader, writer = await self._connect()
        try:
            writer.write(request)
            return await _read_frame(reader)
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.upstream, str):
            return await asyncio.open_unix_connection(self.upstream)
        return await asyncio.open_connection(*self.upstream)


class _CutError(Exception):
    """Ends a connection."""


_TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection; none of a request's."""
_ENDS = (ConnectionError, FileNotFoundError, _CutError, asyncio.CancelledError)


class _Store:
    """The store's side of one connection: its requests, and whether it is still there."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.gone = asyncio.Event()
        self.is_mute = False
        """Nothing is answered any more."""
        self._buffer = bytearray()
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read(reader))

    async def next_request(self) -> bytes | None:
        """The next request; None when the store has closed the connection."""
        while (request := take_frame(self._buffer)) is None:
            if self.gone.is_set():
                return None
            self._more.clear()
            await self._more.wait()
        return request

    async def or_gone(self, reply: Coroutine[None, None, bytes]) -> bytes:
        """The reply, unless the store goes away before."""
        coming = asyncio.create_task(reply)
        going = asyncio.create_task(self.gone.wait())
        try:
            await asyncio.wait({coming, going}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                raise _CutError
            return coming.result()
        finally:
            coming.cancel()
            going.cancel()
            await asyncio.gather(coming, going, return_exceptions=True)

    async def stop(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while chunk := await reader.read(65536):
                if not self._buffer and chunk.startswith(_TLS_HANDSHAKE):
                    # A store whose server is silent asks once whether it speaks TLS.
                    break
                self._buffer += chunk
                self._more.set()
        except ConnectionError:
            pass
        finally:
            self.gone.set()
            self._more.set()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    # One request is on its way at a time, so nothing comes after its reply.
    buffer = bytearray()
    while (frame := take_frame(buffer)) is None:
        data = await reader.read(65536)
        if not data:
            raise _CutError
        buffer += data
    return frame


async def _answer(writer: asyncio.StreamWriter, reply: bytes, fault: Fault) -> None:
    if fault is Fault.DROP_REPLY:
        raise _CutError
    if fault is Fault.CUT_REPLY:
        writer.write(reply[: len(reply) // 2])
        await writer.drain()
        # Closed, not aborted: what was written arrives.
        writer.close()
        await writer.wait_closed()
        raise _CutError
    await _send(writer, b"what is this?\r\n" if fault is Fault.GARBAGE else reply, fault)


async def _send(writer: asyncio.StreamWriter, frame: bytes, fault: Fault) -> None:
    size = 1 if fault is Fault.BYTE_BY_BYTE else len(frame)
    for start in range(0, len(frame), size):
        if fault is Fault.DELAY:
            await asyncio.sleep(0.002)
        writer.write(frame[start : start + size])
        await writer.drain()
        if fault is Fault.BYTE_BY_BYTE:
            await asyncio.sleep(0)
