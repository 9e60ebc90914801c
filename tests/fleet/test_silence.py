"""A handler that writes nothing while its worker lives: it is reported and may go on."""

from __future__ import annotations

import asyncio

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import wait_until
from tests.fleet.working import working


async def test_a_silence_is_recorded_once_until_the_next_write(fleet: Fleet) -> None:
    """A silence is recorded once, and ends with the next write."""
    began, spoken, opened = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @fleet.agent(silent_after_seconds=0.5)
    async def is_silent(run: RunContext) -> int:
        began.set()
        await spoken.wait()
        await run.emit("a word")
        await opened.wait()
        return run.attempt

    @fleet.agent
    async def may_be_silent() -> None:
        await opened.wait()

    async with working(fleet, lease_seconds=4) as worker:
        handle, other = await fleet.submit(is_silent), await fleet.submit(may_be_silent)
        await began.wait()

        async def silences() -> list[JournalEntry]:
            journal = (await fleet.store()).journal(handle.run_id)
            return [entry async for entry in journal if entry.type == EntryType.SILENT]

        async def recorded_once() -> bool:
            return len(await silences()) == 1

        async def recorded_twice() -> bool:
            return len(await silences()) == 2

        await wait_until(recorded_once, "the silence is recorded")
        (first,) = await silences()
        assert (first.attempt, first.fields["worker"]) == (1, worker.name)
        run = await handle.snapshot()
        assert (run.state, run.attempt) == (RunState.RUNNING, 1)
        spoken.set()
        await wait_until(recorded_twice, "the next silence is recorded, too")
        opened.set()
        assert await handle.output(timeout=30) == 1
        await other.result(timeout=30)

        async def counted_both() -> bool:
            return worker.counts["silent"] == 2

        # The worker hears of it after the journal's readers.
        await wait_until(counted_both, "the worker counts both")
    report = await (await fleet.store()).audit(handle.run_id)
    assert report.ok, report
