"""The floors of the engine: programs on the same server that promise less."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast
from unittest import mock

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.engine import event_of
from benchmarks.measure import rate
from murmur_streams import RedisRunStore, new_run_id
from murmur_streams.stores.redis.connection.lane import Lane

Send = Callable[[list[tuple[Any, ...]]], Awaitable[object]]
"""Sends commands together and waits for all their replies."""

MINIMAL_APPEND = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local seq = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('XADD', KEYS[2], '*', 'seq', seq, 'type', 'log', 'data', ARGV[1])
return seq
"""
RUN, JOURNAL = "bench:floor:run", "bench:floor:journal"


def driver(url: str, connections: int = 1) -> Any:
    """A plain redis-py client with its faster settings: no socket timeout."""
    pool = cast("Any", BlockingConnectionPool).from_url(
        url, protocol=2, socket_timeout=None, max_connections=connections, timeout=None
    )
    return cast("Any", Redis).from_pool(pool)


def through(client: Any) -> Send:
    """Send through redis-py: one command by itself, several as a pipeline."""

    async def send(commands: list[tuple[Any, ...]]) -> object:
        if len(commands) == 1:
            return await client.execute_command(*commands[0])
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute()

    return send


async def minimal(client: Any, send: Send, count: int, together: int, tasks: int = 1) -> float:
    """Appends per second with the minimal script."""
    sha = await client.script_load(MINIMAL_APPEND)
    await client.hset(RUN, "version", 0)
    command = ("EVALSHA", sha, 2, RUN, JOURNAL, "0")

    async def one() -> None:
        for _ in range(count // together // tasks):
            await send([command] * together)

    found = await rate(count, lambda: asyncio.gather(*(one() for _ in range(tasks))))
    assert int(await client.hget(RUN, "version")) == count
    await client.delete(RUN, JOURNAL)
    return found


async def own(store: RedisRunStore, send: Send, count: int, together: int) -> float:
    """Appends per second with our own script, without our writer."""
    run_id = new_run_id()
    await store.create(run_id, "bench")
    template = await _append_command(store, run_id)
    before = (await store.snapshot(run_id)).version
    # ARGV 2 and 3 are the producer and its number.
    producer = 3 + int(template[2]) + 1
    commands = [
        (*template[:producer], "bench", number, *template[producer + 2 :])
        for number in range(1, count + 1)
    ]

    async def work() -> None:
        for first in range(0, count, together):
            await send(commands[first : first + together])

    found = await rate(count, work)
    assert (await store.snapshot(run_id)).version == before + count
    await store.delete(run_id, force=True)
    return found


async def _append_command(store: RedisRunStore, run_id: str) -> tuple[Any, ...]:
    """The command that the store sends for one event."""
    sent: list[tuple[Any, ...]] = []
    really = Lane.call

    def call(lane: Lane, *command: object) -> asyncio.Future[Any]:
        sent.append(command)
        return really(lane, *command)

    with mock.patch.object(Lane, "call", call):
        await store.append(run_id, event_of(run_id, 0))
    (command,) = sent
    return command


async def delivery_ms(writer: Any, reader: Any, count: int) -> list[float]:
    """XADD to the wake-up of a blocked XREAD, in milliseconds."""
    key, delays = "bench:floor:delivery", list[float]()

    async def read() -> None:
        last: bytes = b"0-0"
        while len(delays) < count:
            for _, entries in await reader.xread({key: last}, block=5000, count=10):
                for entry_id, fields in entries:
                    last = entry_id
                    delays.append((time.perf_counter() - float(fields[b"at"])) * 1000)

    task = asyncio.create_task(read())
    try:
        for _ in range(count):
            await asyncio.sleep(0.005)
            await writer.xadd(key, {"at": time.perf_counter()})
        await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await writer.delete(key)
    return delays


async def read_journal(client: Any, key: str, page: int = 256) -> int:
    """Read a stream page by page; returns the number of its entries."""
    last, read = "-", 0
    while entries := await client.xrange(key, last, "+", count=page):
        read += len(entries)
        last = f"({entries[-1][0].decode()}"
    return read
