"""The contract of removal: runs are deleted, or expire after their end; live ones stay."""

from __future__ import annotations

import asyncio
import re

import pytest

from murmur_streams.core.model.errors import RunNotFoundError, RunNotTerminalError
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing import workbench
from murmur_streams.testing.fixtures import ContractFixtures, opened_with
from murmur_streams.testing.results import agent_result
from murmur_streams.testing.workbench import TARGET, Workbench, note

SHORT_SECONDS = 0.05


class RemovalContract(ContractFixtures):
    """Runs that are deleted or expire."""

    @pytest.mark.parametrize("state", workbench.LIVE)
    async def test_a_live_run_is_not_deleted(
        self, store: RunStore, run_id: str, state: RunState
    ) -> None:
        await store.set_state(run_id, state)
        before = await store.snapshot(run_id)
        with pytest.raises(RunNotTerminalError):
            await store.delete(run_id)
        assert await store.snapshot(run_id) == before

    @pytest.mark.parametrize("state", RunState)
    async def test_a_forced_delete_removes_any_run(
        self, store: RunStore, run_id: str, state: RunState
    ) -> None:
        await store.set_state(run_id, state)
        assert await store.delete(run_id, force=True) is True
        assert await workbench.is_gone(store, run_id)

    async def test_a_run_is_deleted_once(self, bench: Workbench, store: RunStore) -> None:
        """``delete`` is True for a run that has ended, False for one that does not exist."""
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)
        assert [await store.delete(run_id), await store.delete(run_id)] == [True, False]
        assert await store.delete(bench.new_id()) is False

    async def test_a_deleted_id_begins_a_new_life(self, bench: Workbench, store: RunStore) -> None:
        """A new run of a deleted run's id has nothing of it."""
        run_id = await bench.run(store, input=1)
        await store.finish(run_id, RunState.COMPLETED, result=agent_result(1))
        first = await store.snapshot(run_id)
        await store.delete(run_id)
        await store.create(run_id, TARGET)
        second = await store.snapshot(run_id)
        assert (second.version, second.state, second.result_size) == (1, RunState.PENDING, None)
        assert (await store.get_input(run_id), await store.get_result(run_id)) == (None, None)
        assert second.epoch != first.epoch

    @opened_with(late_event_seconds=1000)
    @pytest.mark.parametrize("state", [RunState.PENDING, RunState.COMPLETED])
    async def test_a_delete_ends_the_streams(
        self, bench: Workbench, store: RunStore, other: RunStore, run_id: str, state: RunState
    ) -> None:
        """All streams of a deleted run end, also when it has ended and waits for its seal."""
        await store.append(run_id, note(run_id))
        await store.set_state(run_id, state)
        idle = store.stream(run_id)
        assert (await anext(idle)).data == 0
        subscribers = [bench.subscribe(each, run_id) for each in (store, other, other)]
        for subscriber in subscribers:
            await subscriber.until(1)
        await store.delete(run_id, force=True)
        assert [len(await subscriber.ended()) for subscriber in subscribers] == [1, 1, 1]
        async with asyncio.timeout(workbench.PATIENCE_SECONDS):
            assert [event async for event in idle] == []

    @pytest.mark.parametrize("state", workbench.ENDED)
    @opened_with(ttl_seconds=SHORT_SECONDS)
    async def test_an_ended_run_expires(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        """A run expires after its end, and its id can begin a new life."""
        run_id = await bench.run(store, input=1)
        await store.finish(run_id, state)
        await workbench.until_gone(store, run_id)
        await store.create(run_id, TARGET)
        run = await store.snapshot(run_id)
        assert (run.version, await store.get_input(run_id)) == (1, None)

    @opened_with(ttl_seconds=SHORT_SECONDS)
    async def test_sweep_removes_remains_once(self, bench: Workbench, store: RunStore) -> None:
        """One sweep removes all that expired runs left behind, and a live run stays."""
        live, *ended = [await bench.run(store) for _ in range(4)]
        await asyncio.gather(*(store.finish(run_id, RunState.COMPLETED) for run_id in ended))
        for run_id in ended:
            await workbench.until_gone(store, run_id)
        await store.sweep()
        assert await store.sweep() == 0
        assert await store.append(live, note(live)) == 2

    @opened_with(ttl_seconds=SHORT_SECONDS)
    async def test_a_late_event_does_not_keep_a_run(self, store: RunStore, run_id: str) -> None:
        """An ended run expires, however often late events are written to it."""
        await store.finish(run_id, RunState.CANCELLED)

        async def push_until_gone() -> bool:
            try:
                await store.push_event(run_id, workbench.closing(run_id))
            except RunNotFoundError:
                return True
            return False

        await workbench.wait_until(
            push_until_gone, "the run expires however often it is written to"
        )

    @pytest.mark.parametrize("store_options", [{}, {"ttl_seconds": 0}, {"ttl_seconds": -1}])
    async def test_sweep_leaves_unexpired_runs(self, bench: Workbench, store: RunStore) -> None:
        """Runs stay before their time, and always in a store without a time to live."""
        live, ended = await bench.run(store), await bench.run(store)
        await store.finish(ended, RunState.COMPLETED)
        assert await store.sweep() == 0
        states = [(await store.get_status(run_id)).state for run_id in (live, ended)]
        assert states == [RunState.PENDING, RunState.COMPLETED]

    @opened_with(live_ttl_seconds=SHORT_SECONDS)
    async def test_a_silent_live_run_fails(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        """A live run without any write for its lifetime fails, and an entry records it."""
        subscriber = bench.subscribe(store, run_id)
        await workbench.until_failed(store, run_id)
        assert await subscriber.ended() == []
        error = (await store.snapshot(run_id)).error or ""
        assert re.fullmatch(r"it got no write for \d+ seconds \(live_ttl_seconds\)", error)
        assert await workbench.types_of(store, run_id) == ["run.created", "run.state"]
        assert await store.sweep() == 0

    @opened_with(live_ttl_seconds=0)
    async def test_a_live_run_without_a_ttl_stays(self, store: RunStore, run_id: str) -> None:
        assert await store.sweep() == 0
        assert (await store.get_status(run_id)).state is RunState.PENDING

    @opened_with(live_ttl_seconds=SHORT_SECONDS)
    async def test_creating_a_run_fails_overdue_ones(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        """Without any sweep, the creation of a run fails the runs that are overdue."""

        async def is_failed() -> bool:
            await bench.run(store)
            return (await store.get_status(run_id)).state is RunState.FAILED

        await workbench.wait_until(is_failed, "creating runs fails the overdue one")
