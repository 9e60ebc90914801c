"""The contract of the seal: where a stream ends, and what comes after it."""

# ruff: noqa: S101  # asserts are how a contract speaks

from __future__ import annotations

import asyncio

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import (
    TARGET,
    Workbench,
    closing,
    events_of,
    journal_of,
    note,
    numbers,
    types_of,
)

NEVER_SECONDS = 1000
CLOSING = [
    (RunEventType.GROUP_COMPLETED, None),
    (RunEventType.GROUP_COMPLETED, "someone"),
    (RunEventType.AGENT_COMPLETED, None),
    (RunEventType.AGENT_COMPLETED, ""),
    (RunEventType.AGENT_COMPLETED, TARGET),
    (RunEventType.AGENT_FAILED, None),
    (RunEventType.AGENT_FAILED, TARGET),
]
NOT_CLOSING = [
    (RunEventType.AGENT_COMPLETED, "someone"),
    (RunEventType.AGENT_FAILED, "someone"),
    (RunEventType.AGENT_STARTED, TARGET),
    (RunEventType.RUN_CANCELLED, None),
    (RunEventType.CUSTOM, None),
]
RUNS = 100


class SealContract(ContractRoom):
    """Where streams end."""

    async def test_a_live_subscriber_sees_an_event_after_the_state(self, bench: Workbench) -> None:
        """A live subscriber sees the last event, also when it is pushed after the state."""
        store = bench.open(late_event_seconds=NEVER_SECONDS)
        readers = [store, bench.other(store, late_event_seconds=NEVER_SECONDS)]

        async def live(number: int) -> list[str]:
            run_id = await bench.run(store)
            subscriber = bench.subscribe(readers[number % 2], run_id)
            await store.append(run_id, note(run_id))
            await subscriber.until(1)
            await store.set_state(run_id, RunState.COMPLETED)
            await store.push_event(run_id, closing(run_id))
            return [str(event.type) for event in await subscriber.ended()]

        seen = await asyncio.gather(*(live(number) for number in range(RUNS)))
        assert seen == [["custom", "agent_completed"]] * RUNS

    @pytest.mark.parametrize(("kind", "agent"), CLOSING)
    async def test_a_closing_event_after_the_state_seals(
        self, bench: Workbench, kind: RunEventType, agent: str | None
    ) -> None:
        store = bench.open(late_event_seconds=NEVER_SECONDS)
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.FAILED)
        await store.push_event(run_id, RunEvent(type=kind, run_id=run_id, agent=agent))
        assert [event.type for event in await events_of(store, run_id)] == [kind]

    @pytest.mark.parametrize(("kind", "agent"), CLOSING)
    async def test_a_state_after_the_closing_event_seals(
        self, bench: Workbench, kind: RunEventType, agent: str | None
    ) -> None:
        store = bench.open(late_event_seconds=NEVER_SECONDS)
        run_id = await bench.run(store)
        await store.push_event(run_id, RunEvent(type=kind, run_id=run_id, agent=agent))
        await store.set_state(run_id, RunState.COMPLETED)
        assert [event.type for event in await events_of(store, run_id)] == [kind]

    @pytest.mark.parametrize(("kind", "agent"), NOT_CLOSING)
    async def test_another_event_after_the_state_does_not_seal(
        self, bench: Workbench, kind: RunEventType, agent: str | None
    ) -> None:
        """An event that is not a closing one is streamed after the state, and does not seal."""
        store = bench.open(late_event_seconds=NEVER_SECONDS)
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.COMPLETED)
        await store.push_event(run_id, RunEvent(type=kind, run_id=run_id, agent=agent))
        await store.push_event(run_id, closing(run_id))
        assert [event.type for event in await events_of(store, run_id)] == [
            kind,
            RunEventType.AGENT_COMPLETED,
        ]

    @pytest.mark.parametrize(("kind", "agent"), NOT_CLOSING)
    async def test_a_state_after_another_event_does_not_seal(
        self, bench: Workbench, kind: RunEventType, agent: str | None
    ) -> None:
        store = bench.open(late_event_seconds=NEVER_SECONDS)
        run_id = await bench.run(store)
        await store.push_event(run_id, RunEvent(type=kind, run_id=run_id, agent=agent))
        await store.set_state(run_id, RunState.COMPLETED)
        assert (await store.snapshot(run_id)).seal is None

    async def test_a_live_subscriber_sees_the_cancellation(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        subscriber = bench.subscribe(bench.other(store), run_id)
        await store.append(run_id, note(run_id))
        await subscriber.until(1)
        await store.set_state(run_id, RunState.CANCELLED)
        assert [str(event.type) for event in await subscriber.ended()] == [
            "custom",
            "run_cancelled",
        ]

    async def test_a_late_subscriber_sees_the_cancellation(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.CANCELLED)
        assert [str(event.type) for event in await events_of(store, run_id)] == ["run_cancelled"]

    async def test_a_bare_end_seals_when_its_time_is_over(self, bench: Workbench) -> None:
        store = bench.open(late_event_seconds=0.05)
        run_id = await bench.run(store)
        subscriber = bench.subscribe(store, run_id)
        await store.append(run_id, note(run_id))
        await subscriber.until(1)
        await store.set_state(run_id, RunState.COMPLETED)
        assert numbers(await subscriber.ended()) == [0]
        assert await types_of(store, run_id) == [
            "run.created",
            "custom",
            "run.state",
            "run.sealed",
        ]

    async def test_many_subscribers_of_a_bare_end_seal_it_once(self, bench: Workbench) -> None:
        store = bench.open(late_event_seconds=0.05)
        readers = [store, bench.other(store, late_event_seconds=0.05)]
        run_id = await bench.run(store)
        subscribers = [bench.subscribe(readers[number % 2], run_id) for number in range(20)]
        await store.set_state(run_id, RunState.FAILED)
        for subscriber in subscribers:
            assert await subscriber.ended() == []
        assert (await types_of(store, run_id)).count("run.sealed") == 1

    async def test_a_closing_event_after_the_time_is_over_is_late(self, bench: Workbench) -> None:
        store = bench.open(late_event_seconds=0)
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.COMPLETED)
        await store.push_event(run_id, closing(run_id))
        assert await events_of(store, run_id) == []
        assert [(entry.type, entry.is_late) for entry in await journal_of(store, run_id)][2:] == [
            ("run.sealed", False),
            ("agent_completed", True),
        ]

    async def test_late_events_are_journalled_and_not_streamed(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED, event=closing(run_id))
        for number in range(3):
            await store.push_event(run_id, note(run_id, number))
        await store.push_event(run_id, closing(run_id))
        assert [str(event.type) for event in await events_of(store, run_id)] == ["agent_completed"]
        late = [entry.type for entry in await journal_of(store, run_id) if entry.is_late]
        assert late == ["custom"] * 3 + ["agent_completed"]

    async def test_live_and_late_subscribers_see_the_same(self, bench: Workbench) -> None:
        store = bench.open(late_event_seconds=NEVER_SECONDS)
        run_id = await bench.run(store)
        live = bench.subscribe(bench.other(store, late_event_seconds=NEVER_SECONDS), run_id)
        await store.append(run_id, note(run_id, 1))
        await live.until(1)
        await store.set_state(run_id, RunState.COMPLETED)
        await store.push_event(run_id, note(run_id, 2))
        await store.push_event(run_id, closing(run_id))
        await store.push_event(run_id, note(run_id, 3))
        assert await live.ended() == await events_of(store, run_id)

    async def test_a_late_event_does_not_change_the_run(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)
        before = await store.snapshot(run_id)
        await store.push_event(run_id, closing(run_id))
        after = await store.snapshot(run_id)
        assert (after.state, after.seal, after.closing) == (before.state, before.seal, None)
        assert after.version == before.version + 1
