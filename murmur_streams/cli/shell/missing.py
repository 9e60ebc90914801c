"""Whether there is a worker that can be told of a cancel."""

from __future__ import annotations

from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.work_store import WorkStore

GONE = "its worker has not been heard of ({}); it ends when any worker is there"


async def missing_worker(store: WorkStore, run_id: str) -> str | None:
    """Why a running run's worker seems to be gone; None when it is there, or the run has ended."""
    try:
        run = await store.snapshot(run_id)
    except RunNotFoundError:
        return None
    if run.state is not RunState.RUNNING or run.worker is None:
        return None
    left_ms = await store.lease_left_ms(run_id)
    if left_ms is not None and left_ms < 0:
        return GONE.format(f"its lease ran out {-left_ms / 1000:.0f} s ago")
    if run.worker not in {worker.id for worker in await store.workers().list()}:
        return GONE.format("it is not among the live ones")
    return None
