"""What no store could beat: the least that the same server and driver can do."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from redis.asyncio import Redis

MINIMAL_APPEND = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local seq = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('XADD', KEYS[2], '*', 'seq', seq, 'type', 'log', 'data', ARGV[1])
return seq
"""


def driver(url: str) -> Any:
    """A plain redis-py client with its faster settings: no socket timeout."""
    return cast("Any", Redis).from_url(url, protocol=2, socket_timeout=None)


async def append_in_turn(client: Any, count: int) -> None:
    """A minimal append script, one call after the other."""
    sha = await client.script_load(MINIMAL_APPEND)
    await client.hset("bench:floor:run", "version", 0)
    for number in range(count):
        await client.evalsha(sha, 2, "bench:floor:run", "bench:floor:journal", number)
    await client.delete("bench:floor:run", "bench:floor:journal")


async def append_at_once(client: Any, tasks: int, each: int) -> None:
    """The same from many tasks."""
    sha = await client.script_load(MINIMAL_APPEND)
    await client.hset("bench:floor:run", "version", 0)

    async def one() -> None:
        for number in range(each):
            await client.evalsha(sha, 2, "bench:floor:run", "bench:floor:journal", number)

    await asyncio.gather(*(one() for _ in range(tasks)))
    await client.delete("bench:floor:run", "bench:floor:journal")


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
    for _ in range(count):
        await asyncio.sleep(0.005)
        await writer.xadd(key, {"at": time.perf_counter()})
    await task
    await writer.delete(key)
    return delays
