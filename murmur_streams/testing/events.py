"""The contract of events: append and push, their fields, their order, many at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from pydantic import JsonValue

from murmur_streams.core.model.errors import RunTerminatedError, WrongExpectedVersionError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing import workbench
from murmur_streams.testing.fixtures import ContractFixtures
from murmur_streams.testing.workbench import Workbench, note

DATA: list[JsonValue] = [
    *[None, True, 0, -1.5, 1e308, 2**1000],
    *["", "naïve\u0000\u2028 \U0001f600 ключ", "x" * 5000],
    *[[], {}, {"": [1, {"a": None}]}],
]


async def only_event(store: RunStore, run_id: str) -> RunEvent:
    """End the run; the one event of its stream."""
    await store.finish(run_id, RunState.COMPLETED)
    (event,) = await workbench.events_of(store, run_id)
    return event


class EventContract(ContractFixtures):
    """Events that are written, and what readers get."""

    async def test_append_returns_the_version(self, store: RunStore, run_id: str) -> None:
        """``append`` of up to 500 events is one step; its answer is the run's new version."""
        for count, version in ((1, 2), (3, 5), (500, 505)):
            assert await store.append(run_id, *workbench.notes(run_id, count)) == version
            assert (await store.snapshot(run_id)).version == version

    @pytest.mark.parametrize("expected", [0, 1, 3, -1, 10**12])
    async def test_append_expects_a_version(
        self, store: RunStore, run_id: str, expected: int
    ) -> None:
        """``append`` at the version that it expects succeeds; at another one it is refused."""
        assert await store.append(run_id, note(run_id), expected_version=1) == 2
        with pytest.raises(WrongExpectedVersionError) as caught:
            await store.append(run_id, note(run_id), expected_version=expected)
        assert (caught.value.expected, caught.value.actual) == (expected, 2)
        assert (await store.snapshot(run_id)).version == 2

    async def test_one_of_many_that_expect_wins(
        self, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """One of many appends that expect the same version succeeds."""
        appends = [
            each.append(run_id, note(run_id, number), expected_version=1)
            for number in range(10)
            for each in (store, other)
        ]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, WrongExpectedVersionError)]
        assert (len(refused), sum(isinstance(each, int) for each in outcomes)) == (19, 1)

    @pytest.mark.parametrize("state", workbench.ENDED)
    async def test_append_after_the_end_is_refused(
        self, store: RunStore, run_id: str, state: RunState
    ) -> None:
        await store.set_state(run_id, state)
        version = (await store.snapshot(run_id)).version
        with pytest.raises(RunTerminatedError):
            await store.append(run_id, note(run_id))
        assert (await store.snapshot(run_id)).version == version

    @pytest.mark.parametrize("shared", [False, True], ids=["one store", "two stores"])
    async def test_many_tasks_append_at_once(
        self, store: RunStore, other: RunStore, run_id: str, shared: bool
    ) -> None:
        """The entries of fifty tasks have no hole, and each task's are in its order."""
        stores = [store, other if shared else store]

        async def append(task: int) -> None:
            for number in range(10):
                await stores[task % 2].append(run_id, note(run_id, task * 10 + number))

        await asyncio.gather(*(append(task) for task in range(50)))
        entries = await workbench.journal_of(store, run_id)
        assert [entry.seq for entry in entries] == list(range(1, 502))
        await store.finish(run_id, RunState.COMPLETED)
        seen = [
            int(str(number))
            for number in workbench.numbers(await workbench.events_of(store, run_id))
        ]
        assert sorted(seen, key=lambda number: number // 10) == list(range(500))

    async def test_ms_never_goes_back_in_a_journal(self, bench: Workbench) -> None:
        now_ms = [1_700_000_000_000]
        store = bench.open(clock=lambda: now_ms[0])
        run_id = await bench.run(store)
        for step_ms in (0, 5000, -9000, 1, 4000):
            now_ms[0] += step_ms
            await store.append(run_id, note(run_id))
        moments = [entry.ms for entry in await workbench.journal_of(store, run_id)]
        assert moments == sorted(moments)

    @pytest.mark.parametrize("kind", RunEventType)
    async def test_an_event_comes_back(
        self, store: RunStore, run_id: str, kind: RunEventType
    ) -> None:
        """An event of every type comes back with all its fields."""
        fields: dict[str, Any] = {"agent": "a", "task_id": "t", "error": "e\n…", "name": "n"}
        event = RunEvent(type=kind, run_id=run_id, **fields, data={"a": 1})
        await store.push_event(run_id, event)
        seen = await only_event(store, run_id)
        assert seen.model_copy(update={"id": None, "seq": None}) == event

    @pytest.mark.parametrize("data", DATA, ids=lambda data: ascii(data)[:20])
    async def test_data_comes_back(self, store: RunStore, run_id: str, data: JsonValue) -> None:
        await store.append(run_id, RunEvent(type=RunEventType.CUSTOM, run_id=run_id, data=data))
        assert (await only_event(store, run_id)).data == data

    async def test_a_timestamp_comes_back_in_utc(self, store: RunStore, run_id: str) -> None:
        """A timestamp of any zone comes back as the same moment in UTC."""
        moment = datetime(2026, 1, 31, 1, 2, 3, 456_789, timezone(timedelta(hours=5, minutes=30)))
        event = RunEvent(type=RunEventType.LOG, run_id=run_id, timestamp=moment)
        await store.append(run_id, event)
        seen = (await only_event(store, run_id)).timestamp
        assert (seen, seen.utcoffset()) == (moment.astimezone(UTC), timedelta(0))

    async def test_a_caller_cannot_set_store_fields(self, store: RunStore, run_id: str) -> None:
        """The id, seq and attempt of an event are the store's, whatever the caller gave."""
        await store.append(run_id, note(run_id, id="forged", seq=99, attempt=7))
        seen = await only_event(store, run_id)
        assert (seen.id != "forged", seen.seq, seen.attempt) == (True, 2, None)

    async def test_an_event_has_its_cursor_and_seq(self, store: RunStore, run_id: str) -> None:
        await store.append(run_id, *workbench.notes(run_id, 2))
        await store.finish(run_id, RunState.COMPLETED, event=workbench.closing(run_id))
        entries = await workbench.journal_of(store, run_id)
        assert [(event.id, event.seq) for event in await workbench.events_of(store, run_id)] == [
            (entry.cursor, entry.seq) for entry in entries[1:4]
        ]

    async def test_a_write_has_the_value_it_began_with(self, store: RunStore, run_id: str) -> None:
        """The store writes a list as it was at the call, also when the caller changes it later."""
        given, output = [0], [0]
        event = note(run_id, data=given)
        result = AgentResult[object](output=output, agent_name="a", task_id=run_id)
        writes: list[asyncio.Task[Any]] = [
            asyncio.create_task(store.append(run_id, event)),
            asyncio.create_task(store.push_event(run_id, event)),
            asyncio.create_task(store.set_result(run_id, result)),
        ]
        await asyncio.sleep(0)
        given.append(1)
        output.append(1)
        for write in writes:
            await write
        await store.finish(run_id, RunState.COMPLETED)
        assert workbench.numbers(await workbench.events_of(store, run_id)) == [[0], [0]]
        assert cast("AgentResult[object]", await store.get_result(run_id)).output == [0]

    async def test_readers_share_nothing(self, store: RunStore, run_id: str) -> None:
        """A change that one reader makes to an event or an entry reaches no other reader."""
        await store.append(run_id, note(run_id, data=[0]))
        await store.finish(run_id, RunState.COMPLETED)
        for _ in range(2):
            (event,) = await workbench.events_of(store, run_id)
            assert event.data == [0]
            cast("list[int]", event.data).append(1)
            entries = await workbench.journal_of(store, run_id)
            assert entries[1].fields["name"] == "note"
            cast("dict[str, str]", entries[1].fields)["name"] = "changed"
        assert (await store.audit(run_id)).ok

    async def test_a_cancelled_call_breaks_no_other(self, store: RunStore, run_id: str) -> None:
        """When some callers are cancelled, each acknowledged event is there once, in order."""
        tasks = [
            asyncio.create_task(store.append(run_id, each)) for each in workbench.notes(run_id, 50)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await store.finish(run_id, RunState.COMPLETED)
        seen = workbench.numbers(await workbench.events_of(store, run_id))
        acknowledged = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, int)]
        assert [n for n in seen if n in acknowledged] == acknowledged
        assert len(seen) == len(set(map(str, seen)))
