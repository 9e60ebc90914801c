"""Whether there is a worker that can be told of a cancel."""

from __future__ import annotations

from murmur_streams.core.errors import RunNotFoundError
from murmur_streams.core.run import Run
from murmur_streams.core.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.workers import Workers

GONE = "its worker has not been heard of ({}); it ends when any worker is there"


async def missing_worker(store: RedisRunStore, run_id: str) -> str | None:
    """Why a running run's worker seems to be gone; None when it is there, or the run has ended."""
    try:
        run = await store.snapshot(run_id)
    except RunNotFoundError:
        return None
    if run.state is not RunState.RUNNING or run.worker is None:
        return None
    over_ms = await _over_ms(store, run)
    if over_ms is not None and over_ms > 0:
        return GONE.format(f"its lease ran out {over_ms / 1000:.0f} s ago")
    if run.worker not in {worker.id for worker in await Workers(store).list()}:
        return GONE.format("it is not among the live ones")
    return None


async def _over_ms(store: RedisRunStore, run: Run) -> int | None:
    """How long ago the run's lease ran out, by the server's clock; None without one."""
    leases = store.keys.leases(store.keys.partition(run.run_id))
    until, (seconds, micros) = await store.server.read_all(
        ("ZSCORE", leases, run.run_id), ("TIME",)
    )
    if until is None:
        return None
    return int(seconds) * 1000 + int(micros) // 1000 - int(float(until))
