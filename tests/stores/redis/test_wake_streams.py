"""Wake-up streams: hints for idle workers, which expire when no worker uses them any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.servers import Space
from tests.stores.redis.working import ids, take

DAY_MS = 86_400_000


def blocked(space: Space) -> int:
    """How many clients the server has in a blocking read."""
    clients: Any = space.admin.info("clients")
    return int(clients["blocked_clients"])


def remaining_ms(space: Space, key: str) -> int:
    """How long the key lives on, in milliseconds; negative if it is missing."""
    remaining: Any = space.admin.pttl(key)
    return int(remaining)


async def test_a_wake_stream_goes_when_its_agent_is_no_more(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """Neither submits nor workers leave a wake-up stream that stays for ever."""
    await store.submit("run", "work")
    await queue.prepare(["other"])
    for target in ("work", "other"):
        assert DAY_MS - 60_000 < remaining_ms(space, space.keys.wake(target, 0)) <= DAY_MS


async def test_a_worker_that_waits_keeps_its_wake_stream(
    space: Space, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then a wait moves the expiry on, also of a stream that came without one."""
    monkeypatch.setattr("murmur_streams.stores.redis.workers.RENEWED_SECONDS", 0)
    await queue.prepare(["work"])
    for forgotten in (True, False):
        key = space.keys.wake("work", 0)
        space.admin.persist(key) if forgotten else space.admin.pexpire(key, 60_000)
        await queue.wait(["work"], 0.01)
        assert remaining_ms(space, key) > DAY_MS - 60_000


async def test_a_worker_that_waits_outlives_its_wake_stream(
    space: Space, store: RedisRunStore, queue: Queue
) -> None:
    """The stream expires under a worker that waits: it is made again and brings the next token."""
    await queue.prepare(["work"])
    waiting = asyncio.create_task(queue.wait(["work"], 30))
    await wait_until(lambda: blocked(space) == 1, "the worker waits")
    stream = space.keys.wake("work", 0)
    space.admin.pexpire(stream, 1)
    # Not "until it is missing": the worker that the expiry wakes makes it anew at once.
    await wait_until(lambda: not 0 <= remaining_ms(space, stream) <= 1, "it has expired")
    await store.submit("run", "work")
    await waiting
    assert ids(await take(queue)) == ["run"]
    await queue.wait(["work"], 0.01)
    await store.submit("next", "work")
    await asyncio.wait_for(queue.wait(["work"], 30), 5)
    assert ids(await take(queue)) == ["next"]
