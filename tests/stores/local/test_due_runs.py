"""A store looks for due runs at begins and ends of runs, but only when one may be due."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from murmur_streams import InMemoryRunStore, RunState
from murmur_streams.stores.local.engine.database import Stored
from murmur_streams.stores.local.engine.store import LocalRunStore
from murmur_streams.stores.local.sqlite.store import SQLiteRunStore
from tests.stores.local.stores import STORES, Clock

TTL_MS = 1_000


def _open(name: str, path: Path, clock: Clock) -> LocalRunStore:
    options: dict[str, Any] = {"ttl_seconds": TTL_MS / 1000, "clock": clock}
    return InMemoryRunStore(**options) if name == "memory" else STORES[name](path, **options)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", *STORES])
async def store(request: Any, tmp_path: Path, clock: Clock) -> AsyncIterator[LocalRunStore]:
    async with _open(request.param, tmp_path / "runs", clock) as store:
        yield store


async def _rows_of(store: LocalRunStore, run_id: str) -> Stored | None:
    """The run as the database has it, expired or not."""
    return await store._access.read(lambda reader: reader.stored(run_id))


async def _ended(store: LocalRunStore, run_id: str) -> None:
    await store.create(run_id, "agent")
    await store.finish(run_id, RunState.COMPLETED)


async def _looks(store: LocalRunStore, count: int) -> int:
    """How often so many creates look for due runs."""
    looks = 0

    def counted(group: Any) -> None:
        database, due = group.database, group.database.due

        def count_and_look(*given: Any) -> list[str]:
            nonlocal looks
            looks += 1
            return due(*given)

        database.due = count_and_look

    await store._access.write(counted)
    for number in range(count):
        await store.create(f"new{number}", "agent")
    return looks


async def test_creates_do_not_look_while_nothing_is_due(store: LocalRunStore) -> None:
    """The first one learns when the next run is due; until then the others do not ask."""
    await _ended(store, "ended")
    assert await _looks(store, 50) <= 4


async def test_a_run_that_ends_later_is_removed_in_time(store: LocalRunStore, clock: Clock) -> None:
    """The first moment is known when a run ends that expires before it."""
    await store.create("live", "agent")
    await _ended(store, "first")
    clock.ms += TTL_MS // 2
    await _ended(store, "second")
    clock.ms += TTL_MS // 2
    await store.create("one", "agent")
    assert await _rows_of(store, "first") is None
    assert await _rows_of(store, "second") is not None
    clock.ms += TTL_MS
    await store.create("two", "agent")
    assert await _rows_of(store, "second") is None
    assert await _rows_of(store, "live") is not None


async def test_runs_of_another_process_are_removed_in_time(tmp_path: Path, clock: Clock) -> None:
    """Its write makes the store forget when the first run is due."""
    path = tmp_path / "runs"
    async with contextlib.AsyncExitStack() as stack:
        store, other = [
            await stack.enter_async_context(
                SQLiteRunStore(path, ttl_seconds=TTL_MS / 1000, clock=clock)
            )
            for _ in range(2)
        ]
        await store.create("live", "agent")
        await _ended(other, "ended")
        clock.ms += TTL_MS
        await store.create("new", "agent")
        assert await _rows_of(store, "ended") is None
