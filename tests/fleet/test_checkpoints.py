"""A checkpoint of one execution is there for the next one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from murmur_streams import Backoff, Fleet, RunContext
from murmur_streams.core.model.errors import PayloadTooLargeError
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import Stage, wait_until
from tests.fleet.working import working


async def test_a_retry_goes_on_where_the_attempt_before_it_was(fleet: Fleet) -> None:
    """Each execution begins with the last checkpoint of the one before."""
    seen: list[Any] = []

    @fleet.agent(retries=2, backoff=Backoff(first_seconds=0))
    async def counts(run: RunContext) -> Any:
        seen.append(run.last_checkpoint)
        step = cast("dict[str, int]", run.last_checkpoint or {"step": 0})["step"]
        await run.checkpoint({"step": step + 1})
        await run.checkpoint({"step": step + 2})
        assert run.last_checkpoint == {"step": step + 2}
        if run.attempt < 3:
            raise ValueError("again")
        return run.last_checkpoint

    @fleet.agent
    def in_a_thread(run: RunContext) -> Any:
        assert run.last_checkpoint is None
        run.checkpoint([1, None])
        return run.last_checkpoint

    async with working(fleet):
        handle = await fleet.submit(counts)
        assert await handle.output(timeout=30) == {"step": 6}
        assert await (await fleet.submit(in_a_thread)).output(timeout=30) == [1, None]
    assert seen == [None, {"step": 2}, {"step": 4}]
    assert await (await fleet.store()).last_checkpoint(handle.run_id) == {"step": 6}
    report = await (await fleet.store()).audit(handle.run_id)
    assert report.ok, report


async def test_a_checkpoint_survives_its_worker(stage: Stage) -> None:
    """After a kill, the next worker gets the value."""
    gate = stage.gate()
    first = await stage.ready(stage.start(lease_seconds=1))
    handle = await stage.fleet.submit("keeps_its_position", {"gate": str(gate)})
    store = await stage.fleet.store()

    async def is_stored() -> bool:
        return await store.last_checkpoint(handle.run_id) == {"step": 1}

    await wait_until(is_stored, "the checkpoint is kept")
    first.kill()
    await stage.ready(stage.start(lease_seconds=1))
    await stage.in_state(handle, RunState.RUNNING, attempt=2)
    gate.touch()
    assert (await handle.output(timeout=30)).total == 21
    assert await stage.check([handle]) == [2]


async def test_a_checkpoint_over_its_limit_is_rejected(
    fleet: Fleet,
) -> None:
    """A checkpoint over its limit is rejected, and the one before stays."""

    @fleet.agent
    async def keeps(run: RunContext) -> Any:
        await run.checkpoint(1)
        with pytest.raises(PayloadTooLargeError):
            await run.checkpoint("x" * (17 * 1024 * 1024))
        return run.last_checkpoint

    async with working(fleet):
        assert await (await fleet.submit(keeps)).output(timeout=30) == 1


async def test_unawaited_checkpoints_are_stored_in_order(fleet: Fleet) -> None:
    """The last of twenty is the one that the retry finds."""

    @fleet.agent(retries=1, backoff=Backoff(first_seconds=0))
    async def keeps(run: RunContext) -> Any:
        if run.attempt == 1:
            for step in range(20):
                run.checkpoint(step)
            await asyncio.sleep(0)
            raise ValueError("again")
        return run.last_checkpoint

    async with working(fleet):
        assert await (await fleet.submit(keeps)).output(timeout=30) == 19
