"""What every store keeps: asking for a run's end."""

# ruff: noqa: S101  # asserts are how a contract speaks

from __future__ import annotations

import pytest

from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.workbench import Workbench

REQUESTED = "run.cancel_requested"


class CancelContract:
    """``request_cancel``."""

    async def test_a_run_that_waits_is_cancelled_at_once(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        subscriber = bench.subscribe(store, run_id)
        state = await bench.other(store).request_cancel(run_id, reason="no need")
        assert state is RunState.CANCELLED
        assert [event.type for event in await subscriber.ended()] == [RunEventType.RUN_CANCELLED]
        run = await store.snapshot(run_id)
        assert (run.state, run.cancel_reason) == (RunState.CANCELLED, "no need")
        assert run.cancel_requested is not None

    async def test_a_run_that_is_running_goes_on_and_knows_of_the_request(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.RUNNING)
        for reason in ("first", "second"):
            assert await store.request_cancel(run_id, reason=reason) is RunState.RUNNING
        run = await store.snapshot(run_id)
        assert (run.state, run.cancel_reason) == (RunState.RUNNING, "first")
        kinds = [entry.type async for entry in store.journal(run_id)]
        assert kinds.count(REQUESTED) == 1

    async def test_a_run_whose_end_was_asked_for_waits_no_more(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.RUNNING)
        await store.request_cancel(run_id)
        await store.set_state(run_id, RunState.PENDING)
        assert (await store.get_status(run_id)).state is RunState.CANCELLED

    @pytest.mark.parametrize("state", [state for state in RunState if state.is_terminal], ids=str)
    async def test_a_request_after_the_end_changes_nothing(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, state)
        before = await store.snapshot(run_id)
        assert await store.request_cancel(run_id) is state
        assert await store.snapshot(run_id) == before

    async def test_the_end_of_a_run_that_is_not_there_cannot_be_asked_for(
        self, bench: Workbench, store: RunStore
    ) -> None:
        with pytest.raises(RunNotFoundError):
            await store.request_cancel(bench.new_id())
