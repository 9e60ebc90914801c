"""The list of workers, as they report themselves."""

from __future__ import annotations

from dataclasses import replace

from murmur_streams.core.model.work import WorkerInfo
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.servers import Space

INFO = WorkerInfo(
    id="w-1.ab",
    host="host-1",
    pid=7,
    version="1",
    python="3.11",
    targets=["work", "other"],
    concurrency=10,
    started_ms=1,
    state="working",
    held=150,
    runs=[f"run-{number}" for number in range(150)],
)


async def test_a_worker_is_listed_as_it_reported_itself(store: RedisRunStore) -> None:
    """With at most a hundred of its runs, and the time of its heartbeat."""
    workers = store.workers()
    await workers.beat(INFO)
    await workers.beat(replace(INFO, id="w-0", state="draining", runs=[], held=0))
    first, second = await workers.list()
    assert (first.id, first.state, first.runs) == ("w-0", "draining", [])
    assert second == replace(INFO, runs=[*INFO.runs][:100], last_beat_ms=second.last_beat_ms)
    assert second.last_beat_ms > 1_600_000_000_000


async def test_a_worker_that_stops_or_falls_silent_is_no_longer_listed(
    space: Space, store: RedisRunStore
) -> None:
    """A stopped worker leaves the list at once, a silent one after some intervals."""
    workers = store.workers(interval_seconds=0.05)
    for worker_id in ("stops", "silent"):
        await workers.beat(replace(INFO, id=worker_id))
    await workers.remove("stops")
    assert "stops" not in {info.id for info in await workers.list()}

    async def is_gone() -> bool:
        return await workers.list() == []

    await wait_until(is_gone, "the silent one is forgotten")
    await workers.beat(INFO)
    assert space.admin.zrange(space.keys.workers, 0, -1) == [INFO.id.encode()]
