"""The floors of the Redis store: what the same server and driver do for a program without a store.

``python -m benchmarks.programs.floors`` takes orders; the address is the server's URL.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from benchmarks.harness.meter import Meter
from benchmarks.harness.program import Order, ready, serve
from benchmarks.harness.raw import raw_connection
from benchmarks.harness.results import Reading
from benchmarks.harness.servers import driver
from benchmarks.programs.reading import PAUSE_SECONDS, latencies

MINIMAL_APPEND = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local seq = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('XADD', KEYS[2], '*', 'seq', seq, 'type', 'log', 'data', ARGV[1])
return seq
"""
RUN, JOURNAL = "floor:run", "floor:journal"
PAGE = 256
BLOCK_MS = 5_000
LAST = b"last"


async def append(meter: Meter, url: str, figure: str, count: int, together: int) -> list[Reading]:
    """The minimal script through redis-py; several calls are a pipeline."""
    async with driver(url) as client:
        command = await _command(client)

        async def work() -> None:
            if together == 1:
                for _ in range(count):
                    await client.execute_command(*command)
                return
            for _ in range(count // together):
                pipeline = client.pipeline(transaction=False)
                for _ in range(together):
                    pipeline.execute_command(*command)
                await pipeline.execute()

        return [await _measured(meter, client, figure, count, work)]


async def append_raw(
    meter: Meter, url: str, figure: str, count: int, together: int
) -> list[Reading]:
    """The same over a bare socket."""
    async with driver(url) as client, raw_connection(url) as raw:
        commands = [await _command(client)] * together

        async def work() -> None:
            for _ in range(count // together):
                await raw.send(commands)

        return [await _measured(meter, client, figure, count, work)]


async def deliver(meter: Meter, url: str, count: int) -> list[Reading]:
    """XADD to the wake-up of an XREAD BLOCK of this process."""
    delays: list[float] = []
    async with driver(url) as reader, driver(url) as writer:
        task = asyncio.create_task(_read(reader, "floor:delivery", delays))
        await feed(meter, url, "floor:delivery", count, writer=writer)
        await task
    return latencies("delivery", delays[1:])


async def follow(_meter: Meter, url: str, run_id: str) -> list[Reading]:
    """The same, while another process writes."""
    delays: list[float] = []
    async with driver(url) as reader:
        ready()
        await _read(reader, run_id, delays)
    return latencies("delivery_other", delays[1:])


async def feed(
    meter: Meter, url: str, run_id: str, count: int, writer: Any = None
) -> list[Reading]:
    """Add entries at a fixed rate, each with the time before; then the last one."""
    if writer is None:
        async with driver(url) as own:
            return await feed(meter, url, run_id, count, own)
    began = time.monotonic()
    for number in range(count + 2):
        await asyncio.sleep(max(0, began + number * PAUSE_SECONDS - time.monotonic()))
        await writer.xadd(run_id, {"at": repr(time.monotonic())})
    await writer.xadd(run_id, {LAST: ""})
    return []


async def replay(meter: Meter, url: str, count: int) -> list[Reading]:
    """Read a stream page by page; each entry becomes a dict of str."""
    async with driver(url) as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(count):
            fields = {"seq": number, "type": "agent_started", "agent": "bench"}
            pipeline.xadd(JOURNAL, fields | {"task_id": f"task-{number}", "ts": time.time()})
        await pipeline.execute()
    async with driver(url, decode_responses=True) as client:
        gc.collect()
        last, read, began = "-", 0, meter.mark()
        while entries := await client.xrange(JOURNAL, last, "+", count=PAGE):
            read += len(entries)
            last = f"({entries[-1][0]}"
        found = meter.since(began, "replay", read)
        assert read == count
        await client.delete(JOURNAL)
    return [found]


async def _command(client: Any) -> tuple[Any, ...]:
    sha = await client.script_load(MINIMAL_APPEND)
    await client.hset(RUN, "version", 0)
    return ("EVALSHA", sha, 2, RUN, JOURNAL, "0")


async def _measured(
    meter: Meter, client: Any, figure: str, count: int, work: Callable[[], Awaitable[None]]
) -> Reading:
    gc.collect()
    found = await meter.rate(figure, count, work)
    assert int(await client.hget(RUN, "version")) == count
    await client.delete(RUN, JOURNAL)
    return found


async def _read(reader: Any, key: str, delays: list[float]) -> None:
    last: bytes = b"0-0"
    while True:
        for _, entries in await reader.xread({key: last}, block=BLOCK_MS, count=10):
            for entry_id, fields in entries:
                if LAST in fields:
                    return
                last = entry_id
                delays.append((time.monotonic() - float(fields[b"at"])) * 1000)


_WORKS: dict[str, Callable[..., Any]] = {
    work.__name__: work for work in (append, append_raw, deliver, follow, feed, replay)
}


async def _do(order: Order) -> list[Reading]:
    meter = Meter(order.address)
    try:
        work = _WORKS[order.work](meter, order.address, **order.arguments)
        return cast("list[Reading]", await work)
    finally:
        meter.close()


if __name__ == "__main__":
    serve(_do)
