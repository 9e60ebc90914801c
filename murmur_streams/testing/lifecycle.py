"""The contract of a run's life: create, states, progress, finish, snapshot, delete, sweep."""

# ruff: noqa: S101  # asserts are how a contract speaks

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import JsonValue

from murmur_streams.core.model.errors import (
    RegistryError,
    RunExistsError,
    RunNotFoundError,
    RunNotTerminalError,
)
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunProgress, RunState, RunStatus
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import (
    TARGET,
    Workbench,
    closing,
    events_of,
    journal_of,
    note,
    types_of,
)

LIVE = (RunState.PENDING, RunState.RUNNING)
TERMINAL = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)
NO_OPS = {(current, wanted) for current in TERMINAL for wanted in RunState} | {
    (state, state) for state in RunState
}
RESULT = AgentResult[Any](output={"answer": 42}, agent_name=TARGET, task_id="t1")

Call = Callable[[RunStore, str], Awaitable[object]]
CALLS_ON_A_RUN: dict[str, Call] = {
    "get_status": lambda store, run_id: store.get_status(run_id),
    "get_result": lambda store, run_id: store.get_result(run_id),
    "get_input": lambda store, run_id: store.get_input(run_id),
    "update_progress": lambda store, run_id: store.update_progress(run_id, RunProgress()),
    "set_state": lambda store, run_id: store.set_state(run_id, RunState.RUNNING),
    "set_result": lambda store, run_id: store.set_result(run_id, RESULT),
    "push_event": lambda store, run_id: store.push_event(run_id, note(run_id)),
    "append": lambda store, run_id: store.append(run_id, note(run_id)),
    "finish": lambda store, run_id: store.finish(run_id, RunState.COMPLETED),
    "snapshot": lambda store, run_id: store.snapshot(run_id),
    "stream": events_of,
    "journal": journal_of,
    "audit": lambda store, run_id: store.audit(run_id),
}
"""Every call that needs a run to be there."""


async def bring_to(store: RunStore, run_id: str, state: RunState) -> None:
    """Take a new run to a state."""
    if state is not RunState.PENDING:
        await store.set_state(run_id, state)


class LifecycleContract(ContractRoom):
    """A run's life."""

    async def test_a_new_run_waits_without_progress(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        assert await store.get_status(run_id) == RunStatus(run_id=run_id, state=RunState.PENDING)

    async def test_a_new_run_has_no_result(self, bench: Workbench, store: RunStore) -> None:
        assert await store.get_result(await bench.run(store)) is None

    async def test_another_process_sees_a_new_run(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        assert (await bench.other(store).get_status(run_id)).state is RunState.PENDING

    async def test_an_id_can_be_taken_only_once(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        with pytest.raises(RunExistsError):
            await store.create(run_id, TARGET)

    async def test_a_refused_create_leaves_the_first_run_as_it_was(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store, input="first")
        with pytest.raises(RegistryError):
            await store.create(run_id, "another", input="second")
        assert (await store.get_input(run_id), (await store.snapshot(run_id)).target) == (
            "first",
            TARGET,
        )

    async def test_of_many_who_create_one_id_at_once_one_wins(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id, stores = bench.new_id(), [store, bench.other(store)]
        outcomes = await asyncio.gather(
            *(stores[number % 2].create(run_id, TARGET) for number in range(20)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes if outcome is not None] == (
            [RunExistsError] * 19
        )

    @pytest.mark.parametrize("name", CALLS_ON_A_RUN)
    async def test_a_call_on_an_unknown_run_says_that_it_is_not_there(
        self, bench: Workbench, store: RunStore, name: str
    ) -> None:
        with pytest.raises(RunNotFoundError):
            await CALLS_ON_A_RUN[name](store, bench.new_id())

    @pytest.mark.parametrize(
        "given", [0, False, "", [], {}, 1.5, "text", [1, [2]], {"ключ": {"a": [None]}}], ids=repr
    )
    async def test_an_input_comes_back(
        self, bench: Workbench, store: RunStore, given: JsonValue
    ) -> None:
        run_id = await bench.run(store, input=given)
        assert await store.get_input(run_id) == given

    async def test_a_run_without_input_has_none(self, bench: Workbench, store: RunStore) -> None:
        assert await store.get_input(await bench.run(store)) is None

    async def test_metadata_comes_back(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store, metadata={"tenant": "a", "n": [1, None]})
        assert (await store.snapshot(run_id)).metadata == {"tenant": "a", "n": [1, None]}

    @pytest.mark.parametrize("wanted", RunState)
    @pytest.mark.parametrize("current", RunState)
    async def test_set_state_does_what_the_table_says(
        self, bench: Workbench, store: RunStore, current: RunState, wanted: RunState
    ) -> None:
        run_id = await bench.run(store)
        await bring_to(store, run_id, current)
        before = await store.snapshot(run_id)
        await store.set_state(run_id, wanted)
        after = await store.snapshot(run_id)
        if (current, wanted) in NO_OPS:
            assert after == before
        else:
            assert (after.state, after.version > before.version) == (wanted, True)

    async def test_set_state_takes_a_states_text(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, "running")  # pyright: ignore[reportArgumentType]
        assert (await store.get_status(run_id)).state is RunState.RUNNING

    async def test_progress_is_seen_at_once(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        for completed in range(5):
            progress = RunProgress(total=9, completed=completed, failed=1, running=2)
            await store.update_progress(run_id, progress)
            assert (await store.get_status(run_id)).progress == progress

    @pytest.mark.parametrize("state", TERMINAL)
    async def test_progress_after_the_end_changes_nothing(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, state)
        before = await store.snapshot(run_id)
        await store.update_progress(run_id, RunProgress(total=1))
        assert await store.snapshot(run_id) == before

    async def test_progress_is_journalled_at_most_once_a_second(self, bench: Workbench) -> None:
        now_ms = [1_700_000_000_000]
        store = bench.open(clock=lambda: now_ms[0])
        run_id = await bench.run(store)
        for step_ms in (0, 400, 400, 199, 1, 999, -600, -500):
            now_ms[0] += step_ms
            await store.update_progress(run_id, RunProgress(total=step_ms + 1000))
        entries = await journal_of(store, run_id)
        totals = [entry.fields["total"] for entry in entries if entry.type == "run.progress"]
        assert totals == ["1000", "1001"]

    async def test_the_last_progress_is_journalled_before_the_end(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        for completed in range(3):
            await store.update_progress(run_id, RunProgress(total=3, completed=completed))
        await store.finish(run_id, RunState.COMPLETED)
        entries = await journal_of(store, run_id)
        assert [entry.fields.get("completed") for entry in entries[-2:]] == ["2", None]

    @pytest.mark.parametrize("state", TERMINAL)
    @pytest.mark.parametrize("current", LIVE)
    async def test_finish_ends_a_live_run(
        self, bench: Workbench, store: RunStore, current: RunState, state: RunState
    ) -> None:
        run_id = await bench.run(store)
        await bring_to(store, run_id, current)
        assert await store.finish(run_id, state) is True
        assert (await store.get_status(run_id)).state is state

    @pytest.mark.parametrize("state", TERMINAL)
    @pytest.mark.parametrize("current", TERMINAL)
    async def test_finish_after_the_end_is_false_and_changes_nothing(
        self, bench: Workbench, store: RunStore, current: RunState, state: RunState
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, current)
        before = await store.snapshot(run_id)
        done = await store.finish(run_id, state, result=RESULT, event=closing(run_id), error="x")
        assert (done, await store.snapshot(run_id)) == (False, before)

    async def test_finish_writes_result_event_state_and_seal_in_one_step(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.FAILED, result=RESULT, event=note(run_id), error="why")
        entries = await journal_of(store, run_id)
        assert [(entry.type, entry.is_seal) for entry in entries] == [
            ("run.created", False),
            ("run.result", False),
            ("custom", False),
            ("run.state", True),
        ]

    async def test_finish_keeps_the_error(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.FAILED, error="no more coffee\n…☕")
        assert (await store.snapshot(run_id)).error == "no more coffee\n…☕"

    async def test_of_many_who_finish_at_once_one_does(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id, stores = await bench.run(store), [store, bench.other(store)]
        done = await asyncio.gather(
            *(stores[number % 2].finish(run_id, TERMINAL[number % 3]) for number in range(30))
        )
        assert done.count(True) == 1

    async def test_the_snapshot_has_the_version_and_the_times(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.RUNNING)
        await store.append(run_id, note(run_id))
        await store.finish(run_id, RunState.COMPLETED)
        run = await store.snapshot(run_id)
        assert run.started_at is not None
        assert run.ended_at is not None
        assert run.created_at <= run.started_at <= run.ended_at
        assert (run.version, run.seal, run.run_id) == (4, 4, run_id)

    async def test_a_second_running_keeps_the_first_start(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.RUNNING)
        first = (await store.snapshot(run_id)).started_ms
        await store.set_state(run_id, RunState.PENDING)
        await store.set_state(run_id, RunState.RUNNING)
        assert (await store.snapshot(run_id)).started_ms == first

    async def test_a_cancel_is_one_event(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.CANCELLED)
        assert await types_of(store, run_id) == ["run.created", "run_cancelled", "run.state"]

    async def test_a_cancel_event_that_exists_is_not_repeated(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.push_event(run_id, RunEvent(type=RunEventType.RUN_CANCELLED, run_id=run_id))
        await store.set_state(run_id, RunState.CANCELLED)
        assert (await types_of(store, run_id)).count("run_cancelled") == 1

    async def test_finish_with_the_cancel_event_writes_it_once(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        event = RunEvent(type=RunEventType.RUN_CANCELLED, run_id=run_id)
        await store.finish(run_id, RunState.CANCELLED, event=event)
        assert (await types_of(store, run_id)).count("run_cancelled") == 1

    @pytest.mark.parametrize("state", LIVE)
    async def test_a_live_run_is_not_deleted(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        run_id = await bench.run(store)
        await bring_to(store, run_id, state)
        before = await store.snapshot(run_id)
        with pytest.raises(RunNotTerminalError):
            await store.delete(run_id)
        assert await store.snapshot(run_id) == before

    @pytest.mark.parametrize("state", RunState)
    async def test_a_forced_delete_removes_any_run(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        run_id = await bench.run(store)
        await bring_to(store, run_id, state)
        assert await store.delete(run_id, force=True) is True
        with pytest.raises(RunNotFoundError):
            await store.get_status(run_id)

    async def test_an_ended_run_is_deleted(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)
        assert await store.delete(run_id) is True

    async def test_deleting_what_is_not_there_is_false(
        self, bench: Workbench, store: RunStore
    ) -> None:
        assert await store.delete(bench.new_id()) is False

    async def test_deleting_twice_is_false_the_second_time(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)
        assert [await store.delete(run_id), await store.delete(run_id)] == [True, False]

    @pytest.mark.parametrize("name", CALLS_ON_A_RUN)
    async def test_after_a_delete_every_call_raises_not_found(
        self, bench: Workbench, store: RunStore, name: str
    ) -> None:
        """After a delete every call on the run raises RunNotFoundError."""
        run_id = await bench.run(store, input=1)
        await store.finish(run_id, RunState.COMPLETED, result=RESULT)
        await store.delete(run_id)
        with pytest.raises(RunNotFoundError):
            await CALLS_ON_A_RUN[name](store, run_id)

    async def test_a_deleted_id_can_begin_a_new_life(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store, input=1)
        await store.finish(run_id, RunState.COMPLETED, result=RESULT)
        first = await store.snapshot(run_id)
        await store.delete(run_id)
        await store.create(run_id, TARGET)
        second = await store.snapshot(run_id)
        assert (second.version, second.state, second.result_size) == (1, RunState.PENDING, None)
        assert (await store.get_input(run_id), await store.get_result(run_id)) == (None, None)
        assert second.epoch != first.epoch

    async def test_a_delete_ends_the_streams_of_live_subscribers(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id))
        subscribers = [bench.subscribe(bench.other(store), run_id) for _ in range(3)]
        for subscriber in subscribers:
            await subscriber.until(1)
        await store.delete(run_id, force=True)
        assert [len(await subscriber.ended()) for subscriber in subscribers] == [1, 1, 1]

    async def test_a_delete_ends_the_stream_of_an_unsealed_run(self, bench: Workbench) -> None:
        """A delete ends the stream of a run that has ended and waits for its seal."""
        store = bench.open(late_event_seconds=1000)
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id))
        subscriber = bench.subscribe(store, run_id)
        await store.set_state(run_id, RunState.COMPLETED)
        await subscriber.until(1)
        await store.delete(run_id)
        assert len(await subscriber.ended()) == 1

    @pytest.mark.parametrize("state", [RunState.PENDING, RunState.COMPLETED], ids=str)
    async def test_a_subscriber_that_looked_away_sees_the_delete_too(
        self, bench: Workbench, state: RunState
    ) -> None:
        store = bench.open(late_event_seconds=1000)
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id))
        await store.set_state(run_id, state)
        stream = store.stream(run_id)
        assert (await anext(stream)).data == 0
        await store.delete(run_id, force=True)
        async with asyncio.timeout(20):
            assert [event async for event in stream] == []

    async def test_sweep_leaves_what_has_not_expired(
        self, bench: Workbench, store: RunStore
    ) -> None:
        live, ended = await bench.run(store), await bench.run(store)
        await store.finish(ended, RunState.COMPLETED)
        assert await store.sweep() == 0
        assert [(await store.get_status(run_id)).state for run_id in (live, ended)] == [
            RunState.PENDING,
            RunState.COMPLETED,
        ]

    async def test_a_second_close_does_nothing(self, bench: Workbench, store: RunStore) -> None:
        await bench.run(store)
        other = bench.open()
        await other.close()
        await other.close()
