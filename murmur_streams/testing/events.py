"""The contract of events: append and push, their fields, their order, many at once."""

# ruff: noqa: S101, PLR2004  # asserts are how a contract speaks, and expected numbers their point

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from pydantic import JsonValue

from murmur_streams.core.model.errors import (
    InvalidInputError,
    RunTerminatedError,
    WrongExpectedVersionError,
)
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import (
    Workbench,
    closing,
    events_of,
    journal_of,
    note,
    numbers,
)

DATA: list[JsonValue] = [
    None,
    True,
    0,
    -1.5,
    1e308,
    2**1000,
    "",
    "naïve\u0000\u2028 \U0001f600 ключ",
    [],
    {},
    {"": [1, {"a": None}]},
    "x" * 5000,
]


class EventContract(ContractRoom):
    """Events on their way in."""

    async def test_append_returns_the_new_version(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        versions = [
            await store.append(run_id, note(run_id)),
            await store.append(run_id, note(run_id), note(run_id), note(run_id)),
        ]
        assert (versions, (await store.snapshot(run_id)).version) == ([2, 5], 5)

    async def test_append_takes_500_events_in_one_step(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        assert await store.append(run_id, *(note(run_id, number) for number in range(500))) == 501

    async def test_append_writes_all_or_none(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        with pytest.raises(InvalidInputError):
            await store.append(run_id, note(run_id), note("another"), note(run_id))
        assert (await store.snapshot(run_id)).version == 1

    async def test_append_at_the_expected_version_succeeds(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        assert await store.append(run_id, note(run_id), expected_version=1) == 2

    @pytest.mark.parametrize("expected", [0, 1, 3, -1, 10**12])
    async def test_append_at_another_version_is_refused(
        self, bench: Workbench, store: RunStore, expected: int
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id))
        with pytest.raises(WrongExpectedVersionError) as caught:
            await store.append(run_id, note(run_id), expected_version=expected)
        assert (caught.value.expected, caught.value.actual) == (expected, 2)
        assert (await store.snapshot(run_id)).version == 2

    async def test_of_many_who_expect_one_version_one_wins(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id, stores = await bench.run(store), [store, bench.other(store)]
        outcomes = await asyncio.gather(
            *(
                stores[number % 2].append(run_id, note(run_id, number), expected_version=1)
                for number in range(20)
            ),
            return_exceptions=True,
        )
        assert sorted(str(type(outcome).__name__) for outcome in outcomes) == (
            ["WrongExpectedVersionError"] * 19 + ["int"]
        )

    @pytest.mark.parametrize(
        "state", [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED], ids=str
    )
    async def test_append_after_the_end_is_refused(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, state)
        version = (await store.snapshot(run_id)).version
        with pytest.raises(RunTerminatedError):
            await store.append(run_id, note(run_id))
        assert (await store.snapshot(run_id)).version == version

    async def test_fifty_tasks_that_append_at_once_leave_a_dense_journal(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id, stores = await bench.run(store), [store, bench.other(store)]

        async def write(task: int) -> None:
            for number in range(10):
                await stores[task % 2].append(run_id, note(run_id, task * 10 + number))

        await asyncio.gather(*(write(task) for task in range(50)))
        entries = await journal_of(store, run_id)
        assert [entry.seq for entry in entries] == list(range(1, 502))

    async def test_fifty_tasks_append_at_once_each_in_its_order(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """When fifty tasks append at once, every event is there, each task's in its order."""
        run_id = await bench.run(store)

        async def write(task: int) -> None:
            for number in range(10):
                await store.append(run_id, note(run_id, task * 10 + number))

        await asyncio.gather(*(write(task) for task in range(50)))
        await store.finish(run_id, RunState.COMPLETED)
        seen = [int(str(number)) for number in numbers(await events_of(store, run_id))]
        by_task = [[n for n in seen if n // 10 == task] for task in range(50)]
        assert by_task == [list(range(task * 10, task * 10 + 10)) for task in range(50)]

    async def test_ms_never_goes_back_in_a_journal(self, bench: Workbench) -> None:
        now_ms = [1_700_000_000_000]
        store = bench.open(clock=lambda: now_ms[0])
        run_id = await bench.run(store)
        for step_ms in (0, 5000, -9000, 1, 4000):
            now_ms[0] += step_ms
            await store.append(run_id, note(run_id))
        moments = [entry.ms for entry in await journal_of(store, run_id)]
        assert moments == sorted(moments)

    @pytest.mark.parametrize("kind", RunEventType)
    async def test_an_event_of_every_type_comes_back(
        self, bench: Workbench, store: RunStore, kind: RunEventType
    ) -> None:
        run_id = await bench.run(store)
        event = RunEvent(
            type=kind, run_id=run_id, agent="a", task_id="t", error="e\n…", name="n", data={"a": 1}
        )
        await store.push_event(run_id, event)
        await store.finish(run_id, RunState.COMPLETED)
        seen = (await events_of(store, run_id))[0]
        assert seen.model_copy(update={"id": None, "seq": None}) == event

    @pytest.mark.parametrize("data", DATA, ids=lambda data: ascii(data)[:20])
    async def test_the_data_of_an_event_comes_back(
        self, bench: Workbench, store: RunStore, data: JsonValue
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, RunEvent(type=RunEventType.CUSTOM, run_id=run_id, data=data))
        await store.finish(run_id, RunState.COMPLETED)
        assert [event.data for event in await events_of(store, run_id)] == [data]

    async def test_a_timestamp_of_any_zone_comes_back_as_the_same_moment(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        moment = datetime(2026, 1, 31, 1, 2, 3, 456_789, timezone(timedelta(hours=5, minutes=30)))
        event = RunEvent(type=RunEventType.LOG, run_id=run_id, timestamp=moment)
        await store.append(run_id, event)
        await store.finish(run_id, RunState.COMPLETED)
        seen = (await events_of(store, run_id))[0].timestamp
        assert (seen, seen.utcoffset()) == (moment.astimezone(UTC), timedelta(0))

    async def test_what_the_store_gives_is_not_taken_from_the_caller(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        event = note(run_id).model_copy(update={"id": "forged", "seq": 99, "attempt": 7})
        await store.append(run_id, event)
        await store.finish(run_id, RunState.COMPLETED)
        seen = (await events_of(store, run_id))[0]
        assert (seen.id != "forged", seen.seq, seen.attempt) == (True, 2, None)

    async def test_each_event_carries_its_cursor_and_seq(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id), note(run_id))
        await store.finish(run_id, RunState.COMPLETED, event=closing(run_id))
        entries = await journal_of(store, run_id)
        assert [(event.id, event.seq) for event in await events_of(store, run_id)] == [
            (entry.cursor, entry.seq) for entry in entries[1:4]
        ]

    async def test_a_write_keeps_the_value_it_began_with(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """What a caller does to its list while the write is under way is not written."""
        run_id, given, output = await bench.run(store), [0], [0]
        event = note(run_id).model_copy(update={"data": given})
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
        assert numbers(await events_of(store, run_id)) == [[0], [0]]
        assert cast("AgentResult[object]", await store.get_result(run_id)).output == [0]

    async def test_a_reader_changes_nothing_for_others(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """What one reader does to an event or an entry, no other reader sees."""
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id).model_copy(update={"data": [0]}))
        await store.finish(run_id, RunState.COMPLETED)
        for _ in range(2):
            (event,) = await events_of(store, run_id)
            assert event.data == [0]
            cast("list[int]", event.data).append(1)
            entries = await journal_of(store, run_id)
            assert entries[1].fields["name"] == "note"
            cast("dict[str, str]", entries[1].fields)["name"] = "changed"
        assert (await store.audit(run_id)).ok

    async def test_a_cancelled_caller_breaks_no_other_call(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        tasks = [
            asyncio.create_task(store.append(run_id, note(run_id, number))) for number in range(50)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await store.finish(run_id, RunState.COMPLETED)
        seen = numbers(await events_of(store, run_id))
        acknowledged = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, int)]
        assert [n for n in seen if n in acknowledged] == acknowledged
        assert len(seen) == len(set(map(str, seen)))
