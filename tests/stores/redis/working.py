"""The calls of a worker on a queue, in one line each."""

from __future__ import annotations

import secrets
from typing import cast

from murmur_streams.core.model.work import Claim, TargetRule
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space

WORK = [TargetRule("work")]
INTERVAL_SECONDS = 60.0
HOUR_MS = 3_600_000


async def take(queue: Queue, count: int = 1, worker: str = "first") -> list[Claim]:
    """Claim runs of ``work``."""
    return (await queue.claim(worker, WORK, count, "host-1")).claims


async def claimed(store: RedisRunStore, queue: Queue, count: int = 1) -> list[Claim]:
    """So many new runs of ``work`` that a worker holds."""
    for _ in range(count):
        await store.submit(secrets.token_hex(4), "work")
    return await take(queue, count)


def ids(claims: list[Claim]) -> list[str]:
    """Their runs."""
    return [claim.run_id for claim in claims]


def expire_leases(space: Space) -> None:
    """Let all leases be over, as if their workers had been silent for long."""
    leases = space.keys.leases(0)
    run_ids = cast("list[bytes]", space.admin.zrange(leases, 0, -1))
    space.admin.zadd(leases, dict.fromkeys(run_ids, 1))


def let_an_hour_pass(space: Space) -> None:
    """Let what is delayed in the queue of ``work`` be due an hour earlier."""
    queue = space.keys.queue("work", 0)
    rows = cast("list[tuple[bytes, float]]", space.admin.zrange(queue, 0, -1, withscores=True))
    space.admin.zadd(queue, {name: score - HOUR_MS for name, score in rows})


def server_ms(space: Space) -> int:
    """The server's time, Unix milliseconds."""
    seconds, micros = space.admin.time()
    return seconds * 1000 + micros // 1000


async def handed_on(queue: Queue, worker: str = "first") -> list[str]:
    """Tend; whose leases had run out."""
    return (await queue.tend(worker, [], INTERVAL_SECONDS)).requeued


async def entries(store: RedisRunStore, run_id: str, kind: str) -> list[dict[str, str]]:
    """The fields of the run's entries of this type, times left out."""
    times = {"at", "due", "seconds"}
    return [
        {name: text for name, text in entry.fields.items() if name not in {*times, "type"}}
        async for entry in store.journal(run_id)
        if entry.type == kind
    ]
