"""A program without workers owns the runs that it sets running: while it lives they do not fail."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import wait_until
from tests.servers import Space

ROOT = Path(__file__).resolve().parents[3]
SHORT_SECONDS = 0.5
LONG_SECONDS = 3600.0
PROGRAM = """
import asyncio, sys
from murmur_streams import RedisRunStore, RunState
async def main(url, prefix, *run_ids):
    async with RedisRunStore(url, key_prefix=prefix, owner_lease_seconds=0.5) as store:
        for run_id in run_ids:
            await store.create(run_id, "t")
            await store.set_state(run_id, RunState.RUNNING)
        print("running", flush=True)
        await asyncio.sleep(3600)
asyncio.run(main(*sys.argv[1:]))
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(space: Space) -> Iterator[Start]:
    """Starts programs that set runs running and then do nothing."""
    started: list[subprocess.Popen[str]] = []

    def begin(*run_ids: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, space.url, space.prefix, *run_ids],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
async def other(space: Space) -> AsyncIterator[RedisRunStore]:
    """Another process's store; it looks after lost runs in the background."""
    async with space.store(owner_lease_seconds=SHORT_SECONDS) as store:
        yield store


def event(run_id: str) -> RunEvent:
    return RunEvent(type=RunEventType.CUSTOM, run_id=run_id)


async def ends_of(store: RedisRunStore, run_id: str) -> list[tuple[str, str | None]]:
    """State and error of each entry that ended the run."""
    return [
        (entry.fields["state"], entry.fields.get("error"))
        async for entry in store.journal(run_id)
        if entry.type == "run.state" and RunState(entry.fields["state"]).is_terminal
    ]


async def test_the_runs_of_a_killed_process_fail_once_with_owner_lost(
    space: Space, other: RedisRunStore, start: Start
) -> None:
    """Another store with a lease fails them, and their streams end."""
    process = start("r-1", "r-2")
    process.send_signal(signal.SIGKILL)
    for run_id in ("r-1", "r-2"):
        assert [seen async for seen in other.stream(run_id)] == []
    async with space.store(owner_lease_seconds=SHORT_SECONDS) as third:
        await third.sweep()
        for run_id in ("r-1", "r-2"):
            assert await ends_of(third, run_id) == [("failed", "owner_lost")]
            assert (await third.audit(run_id)).ok
    assert space.admin.zcard(space.keys.owners(0)) == 0


async def test_a_sweep_by_a_store_without_a_lease_fails_lost_runs_too(
    space: Space, start: Start
) -> None:
    """sweep() by any store is enough."""
    start("r-1").send_signal(signal.SIGKILL)
    async with space.store() as store:

        async def is_failed() -> bool:
            await store.sweep()
            return (await store.snapshot("r-1")).error == "owner_lost"

        await wait_until(is_failed, "the sweep fails the run")


async def test_an_owner_that_only_waits_keeps_its_runs(
    space: Space, other: RedisRunStore, start: Start
) -> None:
    """It moves its deadlines on without a write to the runs."""
    start("r-1")
    deadlines: set[float | None] = set()

    async def extended_often() -> bool:
        await other.sweep()
        deadlines.add(space.admin.zscore(space.keys.owners(0), "r-1"))
        return len(deadlines) > 5

    await wait_until(extended_often, "the owner moves its deadline on")
    assert (await other.get_status("r-1")).state is RunState.RUNNING


async def test_an_owner_with_a_late_lease_lives_while_it_writes(
    space: Space, other: RedisRunStore, start: Start
) -> None:
    """The row shows that the lease is over; the journal has a later write of another program."""
    async with space.store(owner_lease_seconds=LONG_SECONDS) as owner:
        await owner.create("r-1", "t")
        await owner.set_state("r-1", RunState.RUNNING)
        for _ in range(3):
            space.admin.zadd(space.keys.owners(0), {"r-1": 1})
            await owner.append("r-1", event("r-1"))
            await other.sweep()
        assert (await other.get_status("r-1")).state is RunState.RUNNING


async def test_a_run_that_ended_or_waits_again_has_no_owner(space: Space) -> None:
    """Its row goes with an end, a return to pending, or a deletion."""
    async with space.store(owner_lease_seconds=LONG_SECONDS) as store:
        for run_id in ("ended", "waits", "deleted"):
            await store.create(run_id, "t")
            await store.set_state(run_id, RunState.RUNNING)
        assert space.admin.zcard(space.keys.owners(0)) == 3
        await store.finish("ended", RunState.COMPLETED)
        await store.set_state("waits", RunState.PENDING)
        await store.delete("deleted", force=True)
        assert space.admin.zcard(space.keys.owners(0)) == 0


async def test_a_rebuilt_run_keeps_its_owner(space: Space) -> None:
    """After a rebuild the owner goes on extending its lease."""
    async with space.store(owner_lease_seconds=SHORT_SECONDS) as store:
        await store.create("r-1", "t")
        await store.set_state("r-1", RunState.RUNNING)
        await store.rebuild("r-1")
        before = space.admin.zscore(space.keys.owners(0), "r-1")
        await wait_until(
            lambda: space.admin.zscore(space.keys.owners(0), "r-1") != before, "it is kept alive"
        )


async def test_a_closed_store_leaves_its_runs_to_be_failed(
    space: Space, other: RedisRunStore
) -> None:
    """Closing counts as the end of the owner."""
    async with space.store(owner_lease_seconds=SHORT_SECONDS) as store:
        await store.create("r-1", "t")
        await store.set_state("r-1", RunState.RUNNING)
    assert [seen async for seen in other.stream("r-1")] == []
    assert (await other.snapshot("r-1")).error == "owner_lost"


async def test_without_a_lease_runs_have_no_owner(space: Space) -> None:
    """A store without owner_lease_seconds writes no row."""
    async with space.store() as store:
        await store.create("r-1", "t")
        await store.set_state("r-1", RunState.RUNNING)
        assert not space.admin.exists(space.keys.owners(0))
        assert not space.admin.hexists(space.keys.run("r-1"), "owner")


@pytest.mark.parametrize("seconds", [0, -1, 0.01, float("nan")])
async def test_a_lease_that_is_too_short_is_refused(space: Space, seconds: float) -> None:
    """Zero, negative and NaN leases raise InvalidInputError."""
    with pytest.raises(InvalidInputError, match="owner_lease_seconds"):
        space.store(owner_lease_seconds=seconds)
