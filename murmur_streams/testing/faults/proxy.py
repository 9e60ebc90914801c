"""A proxy between a store and its server that breaks things at chosen moments.

It knows where requests and replies begin and end, so a fault hits exactly one of them::

    proxy.plan = once(Fault.DROP_REPLY, calls("append"))
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from murmur_streams.testing.faults.plans import LOSSES, Answer, Fault, Plan, nothing
from murmur_streams.testing.faults.resp import parts_of, take_frame
from murmur_streams.testing.faults.tcp_proxy import CutError, Side, TcpProxy, Wire, together

_OF_STREAMS = (
    *((b"SUBSCRIBE",), (b"PSUBSCRIBE",), (b"SSUBSCRIBE",), (b"MONITOR",)),
    *((b"PSYNC",), (b"CLUSTER", b"SYNCSLOTS")),
)
"""After one of these requests there is more on a connection than one reply for each request."""


class FaultProxy(TcpProxy):
    """A ``TcpProxy`` that knows the requests of Redis clients, and breaks those of its plan.

    One request of a connection is on its way to the server at a time. From a SUBSCRIBE, PSYNC and
    the like on, it passes bytes on as they come: Sentinels, replicas and nodes can use it, too.
    """

    scheme = "redis"

    def __init__(self, upstream: str | tuple[str, int], port: int = 0) -> None:
        super().__init__(upstream, port)
        self.plan: Plan = nothing
        self.answer: Answer | None = None
        """Answers in the server's place, when it returns something."""
        self.seen: list[str] = []
        """The faults that happened, by name."""
        self.requests = 0
        self._stalled_requests: list[bytes] = []

    @property
    def stalled(self) -> int:
        """How many requests wait for ``execute_stalled``."""
        return len(self._stalled_requests)

    async def execute_stalled(self) -> list[bytes]:
        """Let the server execute what was stalled, in order; its replies."""
        stalled, self._stalled_requests = self._stalled_requests, []
        return [await self._execute_alone(request) for request in stalled]

    async def _serve(self, wire: Wire) -> None:
        store = _Store(wire.to_server)
        try:
            while (request := await store.next_request()) is not None:
                self.requests += 1
                if _begins_a_stream(request):
                    await wire.to_server.write(request)
                    await together(store.pass_on_rest(), wire.to_client.pass_on())
                    return
                await self._pass(request, store, wire)
        finally:
            await store.stop()
            await wire.linger()

    async def _pass(self, request: bytes, store: _Store, wire: Wire) -> None:
        parts = parts_of(request)
        fault = self.plan(parts)
        if fault is not Fault.NONE:
            self.seen.append(fault.name)
        store.is_mute |= fault in LOSSES
        if fault is Fault.LOSE_REQUEST:
            return
        await self._before(fault, request, store, wire.to_server)
        reply = self.answer(parts) if self.answer is not None else None
        if reply is None:
            await _send(wire.to_server, request, fault)
            reply = await store.or_gone(_read_frame(wire.to_client))
        if not store.is_mute:
            await _answer(wire.to_client, reply, fault)
        elif fault not in LOSSES | {Fault.NONE}:
            raise CutError

    async def _before(self, fault: Fault, request: bytes, store: _Store, to_server: Side) -> None:
        """The faults that keep a request from its server."""
        if fault is Fault.DROP_REQUEST:
            raise CutError
        if fault is Fault.CUT_REQUEST:
            await to_server.write(request[: len(request) // 2])
            # Closed, not aborted: what was written arrives.
            await to_server.close()
            raise CutError
        if fault in {Fault.STALL, Fault.STALL_LATE}:
            # The store gives up by closing its connection.
            await store.gone.wait()
            if fault is Fault.STALL:
                await self._execute_alone(request)
            else:
                self._stalled_requests.append(request)
            raise CutError

    async def _execute_alone(self, request: bytes) -> bytes:
        reader, writer = await self._connect()
        try:
            writer.write(request)
            buffer = bytearray()
            while (frame := take_frame(buffer)) is None:
                data = await reader.read(65536)
                if not data:
                    raise CutError
                buffer += data
            return frame
        finally:
            writer.transport.abort()


_TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection; none of a request's."""


class _Store:
    """The store's side of one connection: its requests, and whether it is still there."""

    def __init__(self, side: Side) -> None:
        self.gone = asyncio.Event()
        self.is_mute = False
        """Nothing is answered any more."""
        self._buffer = bytearray()
        self._more = asyncio.Event()
        self._side = side
        self._reading = asyncio.create_task(self._read())

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
                raise CutError
            return coming.result()
        finally:
            coming.cancel()
            going.cancel()
            await asyncio.gather(coming, going, return_exceptions=True)

    async def pass_on_rest(self) -> None:
        """Pass on everything that the store sends from now on, and its end."""
        while not self.gone.is_set() or self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            await self._side.write(data)
            self._more.clear()
            if not self._buffer and not self.gone.is_set():
                await self._more.wait()
        if not self._side.vanishes:
            await self._side.close()

    async def stop(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while chunk := await self._side.read():
                if not self._buffer and chunk.startswith(_TLS_HANDSHAKE):
                    # A store whose server is silent asks once whether it speaks TLS.
                    break
                self._buffer += chunk
                self._more.set()
        finally:
            self.gone.set()
            self._more.set()


def _begins_a_stream(request: bytes) -> bool:
    parts = tuple(part.upper() for part in parts_of(request)[:2])
    return any(parts[: len(each)] == each for each in _OF_STREAMS)


async def _read_frame(to_client: Side) -> bytes:
    # One request is on its way at a time, so nothing comes after its reply.
    buffer = bytearray()
    while (frame := take_frame(buffer)) is None:
        data = await to_client.read()
        if not data:
            raise CutError
        buffer += data
    return frame


async def _answer(to_client: Side, reply: bytes, fault: Fault) -> None:
    if fault is Fault.DROP_REPLY:
        raise CutError
    if fault is Fault.CUT_REPLY:
        await to_client.write(reply[: len(reply) // 2])
        # Closed, not aborted: what was written arrives.
        await to_client.close()
        raise CutError
    await _send(to_client, b"what is this?\r\n" if fault is Fault.GARBAGE else reply, fault)


async def _send(side: Side, frame: bytes, fault: Fault) -> None:
    size = 1 if fault is Fault.BYTE_BY_BYTE else len(frame)
    for start in range(0, len(frame), size):
        if fault is Fault.DELAY:
            await asyncio.sleep(0.002)
        await side.write(frame[start : start + size])
        if fault is Fault.BYTE_BY_BYTE:
            await asyncio.sleep(0)
