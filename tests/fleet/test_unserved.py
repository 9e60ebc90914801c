"""A submission to a target that no live worker serves is taken, and the program's log warns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import StoreUnavailableError
from murmur_streams.core.model.work import WorkerInfo
from murmur_streams.fleet import stores
from murmur_streams.stores.work_store import WorkStore
from tests.fleet.working import working
from tests.servers import Space

LOGGER = "murmur_streams.fleet"
WAIT_SECONDS = 30.0


@pytest.fixture(params=["redis", "sqlite", "rocksdb"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet without agents, which submits to any name, on each store that has queues."""
    if request.param == "redis":
        space: Space = request.getfixturevalue("space")
        made = Fleet(space.url, key_prefix=space.prefix)
    else:
        made = Fleet(f"{request.param}://{tmp_path}/runs")
    async with made as fleet:
        yield fleet


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def worker(*targets: str, state: str = "working") -> WorkerInfo:
    return WorkerInfo(f"w-{state}", "h", 1, "0", "3", targets, 2, 5, state, 0, [])


async def beat(fleet: Fleet, info: WorkerInfo) -> None:
    await (await fleet.store()).workers().beat(info)


async def test_a_target_without_a_worker_is_warned_about(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is queued, and one line of the log names the target and the commands that help."""
    await beat(fleet, worker("writer"))
    handle = await fleet.submit("wirter")
    warning = await handle.unserved(WAIT_SECONDS)
    assert warning is not None
    assert warnings(caplog) == [warning]
    assert warning.startswith("no live worker serves 'wirter': its runs wait until one does; ")
    assert (await handle.status()).state == "pending"


async def test_a_served_target_is_not_warned_about(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """A live worker that names the target among its own is enough."""
    await beat(fleet, worker("reader", "writer"))
    assert await (await fleet.submit("writer")).unserved(WAIT_SECONDS) is None
    assert warnings(caplog) == []


async def test_a_draining_worker_serves_nothing(fleet: Fleet) -> None:
    """A worker that stops begins no run, so one that only it served waits."""
    await beat(fleet, worker("writer", state="draining"))
    assert await (await fleet.submit("writer")).unserved(WAIT_SECONDS)


async def test_one_warning_a_minute_for_each_target(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is asked once a minute for a target, however much is submitted to it."""
    now = [1000.0]
    fleet._unserved = stores.UnservedTargets(lambda: now[0])
    for _ in range(20):
        await (await fleet.submit("one")).unserved(WAIT_SECONDS)
    await (await fleet.submit("two")).unserved(WAIT_SECONDS)
    assert [text.split("'")[1] for text in warnings(caplog)] == ["one", "two"]
    now[0] += stores.EVERY_SECONDS
    assert await (await fleet.submit("one")).unserved(WAIT_SECONDS)
    assert len(warnings(caplog)) == 3


async def test_delayed_and_repeated_work_is_warned_about(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is due later, a retry and a requeued dead letter wait for a worker as well."""
    monkeypatch.setattr(stores, "EVERY_SECONDS", 0.0)
    later = await fleet.submit("later", delay=3600)
    assert await later.unserved(WAIT_SECONDS)
    await later.cancel()
    assert await (await fleet.retry(later.run_id)).unserved(WAIT_SECONDS)
    assert len(warnings(caplog)) == 2


async def test_a_requeued_letter_is_warned_about(fleet: Fleet) -> None:
    """The fleet that requeues looks for a worker like one that submits."""

    @fleet.agent
    async def broken() -> None:
        raise RuntimeError

    async with working(fleet):
        failed = await fleet.submit(broken)
        await failed.result(timeout=WAIT_SECONDS)
        assert await failed.unserved(WAIT_SECONDS) is None
    fleet._unserved = stores.UnservedTargets()
    assert await (await fleet.dead.requeue(failed.run_id)).unserved(WAIT_SECONDS)


async def test_a_worker_of_the_same_program_is_waited_for(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that registers between the two looks spares the program a false warning."""
    looks = 0
    plain = stores._is_served

    async def looked(store: WorkStore, target: str) -> bool:
        nonlocal looks
        looks += 1
        found = await plain(store, target)
        if looks == 1:
            assert not found
            await beat(fleet, worker(target))
        return found

    monkeypatch.setattr(stores, "_is_served", looked)
    assert await (await fleet.submit("writer")).unserved(WAIT_SECONDS) is None
    assert (looks, warnings(caplog)) == (2, [])


async def test_a_look_that_fails_disturbs_nothing(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is submitted before the look, and whatever the look meets stays inside."""

    async def refused(store: WorkStore, target: str) -> bool:
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(stores, "_is_served", refused)
    handle = await fleet.submit("writer")
    assert await handle.unserved(WAIT_SECONDS) is None
    assert warnings(caplog) == []


async def test_a_submission_does_not_wait_for_the_look(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is slow to list its workers holds up neither submissions nor their handles."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(store: WorkStore, target: str) -> bool:
        asked.set()
        await answer.wait()
        return True

    monkeypatch.setattr(stores, "_is_served", slow)
    handle = await fleet.submit("writer")
    await asyncio.wait_for(asked.wait(), WAIT_SECONDS)
    assert (await handle.status()).state == "pending"
    assert await handle.unserved(0) is None
    answer.set()


async def test_a_short_program_gets_its_warning(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing the fleet right after the submission waits for the look."""
    await fleet.submit("writer")
    await fleet.close()
    assert len(warnings(caplog)) == 1


def test_the_sync_calls_warn_as_well(space: Space, caplog: pytest.LogCaptureFixture) -> None:
    """A program without an event loop finds the same line in its log."""
    with caplog.at_level(logging.WARNING, LOGGER):
        fleet: Any = Fleet(space.url, key_prefix=space.prefix)
        fleet.sync.submit("writer")
        fleet.sync.close()
    assert len(warnings(caplog)) == 1


def test_the_remembered_targets_are_bounded() -> None:
    """A fleet without agents takes any name, and a caller can send many."""

    async def look() -> int:
        targets = stores.UnservedTargets()
        store: Any = object()
        for number in range(3 * stores.MOST_TARGETS):
            targets.look(store, f"t{number}")
        await targets.settle()
        return len(targets._looked)

    assert asyncio.run(look()) <= stores.MOST_TARGETS
