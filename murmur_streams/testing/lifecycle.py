"""The contract of a run's life: creation, states, progress, its end, requests to cancel it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pydantic import JsonValue

from murmur_streams.core.model.errors import RunExistsError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunProgress, RunState, RunStatus
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing import workbench
from murmur_streams.testing.fixtures import ContractFixtures
from murmur_streams.testing.results import agent_result
from murmur_streams.testing.workbench import TARGET, Workbench, note

RESULT = agent_result({"answer": 42})

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
    "request_cancel": lambda store, run_id: store.request_cancel(run_id),
    "archive": lambda store, run_id: store.archive(run_id),
    "stream": workbench.events_of,
    "journal": workbench.journal_of,
    "audit": lambda store, run_id: store.audit(run_id),
}
"""Every call on a run that must exist."""


class LifecycleContract(ContractFixtures):
    """The life of a run, up to its end."""

    async def test_a_new_run_waits(self, store: RunStore, other: RunStore, run_id: str) -> None:
        """Every store sees a new run: pending, with no progress, result or input."""
        for each in (store, other):
            assert await each.get_status(run_id) == RunStatus(run_id=run_id, state=RunState.PENDING)
            assert (await each.get_result(run_id), await each.get_input(run_id)) == (None, None)

    async def test_an_id_can_be_taken_only_once(self, bench: Workbench, store: RunStore) -> None:
        """A second run of one id is refused and leaves the first as it was."""
        run_id = await bench.run(store, input="first")
        with pytest.raises(RunExistsError):
            await store.create(run_id, "another", input="second")
        run = await store.snapshot(run_id)
        assert (await store.get_input(run_id), run.target) == ("first", TARGET)

    async def test_one_of_many_creates_wins(
        self, bench: Workbench, store: RunStore, other: RunStore
    ) -> None:
        """One of many calls that create one id at the same time succeeds."""
        run_id = bench.new_id()
        creates = [each.create(run_id, TARGET) for _ in range(10) for each in (store, other)]
        outcomes = await asyncio.gather(*creates, return_exceptions=True)
        assert [type(each) for each in outcomes if each is not None] == [RunExistsError] * 19

    @pytest.mark.parametrize("name", CALLS_ON_A_RUN)
    async def test_a_call_needs_its_run(self, bench: Workbench, store: RunStore, name: str) -> None:
        """Every call on a run that never existed, or was deleted, raises RunNotFoundError."""
        unknown, deleted = bench.new_id(), await bench.run(store, input=1)
        await store.finish(deleted, RunState.COMPLETED, result=RESULT)
        await store.delete(deleted)
        for run_id in (unknown, deleted):
            with pytest.raises(RunNotFoundError):
                await CALLS_ON_A_RUN[name](store, run_id)

    @pytest.mark.parametrize(
        "given", [0, False, "", [], {}, 1.5, "text", [1, [2]], {"ключ": {"a": [None]}}], ids=repr
    )
    async def test_an_input_comes_back(
        self, bench: Workbench, store: RunStore, given: JsonValue
    ) -> None:
        run_id = await bench.run(store, input=given)
        assert await store.get_input(run_id) == given

    async def test_metadata_comes_back(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store, metadata={"tenant": "a", "n": [1, None]})
        assert (await store.snapshot(run_id)).metadata == {"tenant": "a", "n": [1, None]}

    @pytest.mark.parametrize("wanted", RunState)
    @pytest.mark.parametrize("current", RunState)
    async def test_set_state_follows_the_table(
        self, store: RunStore, run_id: str, current: RunState, wanted: RunState
    ) -> None:
        """A live run takes any other state; the same one, or one after the end, does nothing."""
        await store.set_state(run_id, current)
        before = await store.snapshot(run_id)
        await store.set_state(run_id, wanted)
        after = await store.snapshot(run_id)
        if current.is_terminal or current is wanted:
            assert after == before
        else:
            assert (after.state, after.version > before.version) == (wanted, True)

    async def test_set_state_takes_a_states_text(self, store: RunStore, run_id: str) -> None:
        await store.set_state(run_id, "running")  # pyright: ignore[reportArgumentType]
        assert (await store.get_status(run_id)).state is RunState.RUNNING

    async def test_progress_is_seen_at_once(self, store: RunStore, run_id: str) -> None:
        for completed in range(5):
            progress = RunProgress(total=9, completed=completed, failed=1, running=2)
            await store.update_progress(run_id, progress)
            assert (await store.get_status(run_id)).progress == progress

    async def test_progress_is_journalled_once_a_second(self, bench: Workbench) -> None:
        """Progress is journalled at most once a second; a clock that goes back changes nothing."""
        now_ms = [1_700_000_000_000]
        store = bench.open(clock=lambda: now_ms[0])
        run_id = await bench.run(store)
        for step_ms in (0, 400, 400, 199, 1, 999, -600, -500):
            now_ms[0] += step_ms
            await store.update_progress(run_id, RunProgress(total=step_ms + 1000))
        entries = await workbench.journal_of(store, run_id)
        totals = [entry.fields["total"] for entry in entries if entry.type == "run.progress"]
        assert totals == ["1000", "1001"]

    async def test_the_end_journals_the_last_progress(self, store: RunStore, run_id: str) -> None:
        for completed in range(3):
            await store.update_progress(run_id, RunProgress(total=3, completed=completed))
        await store.finish(run_id, RunState.COMPLETED)
        entries = await workbench.journal_of(store, run_id)
        assert [entry.fields.get("completed") for entry in entries[-2:]] == ["2", None]

    @pytest.mark.parametrize("state", workbench.ENDED)
    @pytest.mark.parametrize("current", workbench.LIVE)
    async def test_finish_ends_a_live_run(
        self, store: RunStore, run_id: str, current: RunState, state: RunState
    ) -> None:
        await store.set_state(run_id, current)
        assert await store.finish(run_id, state) is True
        assert (await store.get_status(run_id)).state is state

    @pytest.mark.parametrize("state", workbench.ENDED)
    @pytest.mark.parametrize("current", workbench.ENDED)
    async def test_an_ended_run_does_not_change(
        self, store: RunStore, run_id: str, current: RunState, state: RunState
    ) -> None:
        """After the end, ``finish`` is False, and it, progress and cancels change nothing."""
        await store.set_state(run_id, current)
        before = await store.snapshot(run_id)
        done = await store.finish(
            run_id, state, result=RESULT, event=workbench.closing(run_id), error="x"
        )
        assert (done, await store.snapshot(run_id)) == (False, before)
        await store.update_progress(run_id, RunProgress(total=1))
        assert await store.request_cancel(run_id) is current
        assert await store.snapshot(run_id) == before

    async def test_finish_is_one_step(self, store: RunStore, run_id: str) -> None:
        """``finish`` writes the result, the event, the state with its error, and the seal."""
        error = "no more coffee\n…☕"
        await store.finish(run_id, RunState.FAILED, result=RESULT, event=note(run_id), error=error)
        entries = await workbench.journal_of(store, run_id)
        assert workbench.kinds(entries) == ["run.created", "run.result", "custom", "run.state"]
        assert [entry.is_seal for entry in entries] == [False, False, False, True]
        assert (await store.snapshot(run_id)).error == error

    async def test_one_of_many_finishes_wins(
        self, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """One of many calls that finish a run at the same time succeeds."""
        ends = [
            each.finish(run_id, state) for state in workbench.ENDED * 5 for each in (store, other)
        ]
        assert (await asyncio.gather(*ends)).count(True) == 1

    async def test_a_snapshot_has_version_and_times(self, store: RunStore, run_id: str) -> None:
        await store.set_state(run_id, RunState.RUNNING)
        await store.append(run_id, note(run_id))
        await store.finish(run_id, RunState.COMPLETED)
        run = await store.snapshot(run_id)
        assert run.started_at is not None
        assert run.ended_at is not None
        assert run.created_at <= run.started_at <= run.ended_at
        assert (run.version, run.seal, run.run_id) == (4, 4, run_id)

    async def test_a_run_keeps_its_first_start(self, store: RunStore, run_id: str) -> None:
        await store.set_state(run_id, RunState.RUNNING)
        first = (await store.snapshot(run_id)).started_ms
        for state in workbench.LIVE:
            await store.set_state(run_id, state)
        assert (await store.snapshot(run_id)).started_ms == first

    @pytest.mark.parametrize("given", ["never", "before", "with the end"])
    async def test_a_cancel_is_one_event(self, store: RunStore, run_id: str, given: str) -> None:
        """A cancelled run has one event of its cancellation, whether the caller gives it or not."""
        event = RunEvent(type=RunEventType.RUN_CANCELLED, run_id=run_id)
        if given == "before":
            await store.push_event(run_id, event)
        if given == "with the end":
            await store.finish(run_id, RunState.CANCELLED, event=event)
        else:
            await store.set_state(run_id, RunState.CANCELLED)
        assert await workbench.types_of(store, run_id) == [
            "run.created",
            "run_cancelled",
            "run.state",
        ]

    async def test_a_cancel_request_ends_a_waiting_run(
        self, bench: Workbench, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """A pending run is cancelled at once, with the reason."""
        subscriber = bench.subscribe(store, run_id)
        assert await other.request_cancel(run_id, reason="no need") is RunState.CANCELLED
        assert workbench.kinds(await subscriber.ended()) == ["run_cancelled"]
        run = await store.snapshot(run_id)
        assert (run.state, run.cancel_reason) == (RunState.CANCELLED, "no need")
        assert run.cancel_requested is not None

    async def test_a_cancel_request_is_recorded_once(self, store: RunStore, run_id: str) -> None:
        """A running run goes on and has the first request; one that would wait again ends."""
        await store.set_state(run_id, RunState.RUNNING)
        for reason in ("first", "second"):
            assert await store.request_cancel(run_id, reason=reason) is RunState.RUNNING
        run = await store.snapshot(run_id)
        assert (run.state, run.cancel_reason) == (RunState.RUNNING, "first")
        assert (await workbench.types_of(store, run_id)).count("run.cancel_requested") == 1
        await store.set_state(run_id, RunState.PENDING)
        assert (await store.get_status(run_id)).state is RunState.CANCELLED

    async def test_a_second_close_does_nothing(self, bench: Workbench, store: RunStore) -> None:
        await bench.run(store)
        second = bench.open()
        await second.close()
        await second.close()
