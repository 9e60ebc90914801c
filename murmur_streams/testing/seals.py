"""The contract of the seal: where a stream ends, and the entries that come after it."""

from __future__ import annotations

import asyncio

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing import workbench
from murmur_streams.testing.fixtures import ContractFixtures, opened_with
from murmur_streams.testing.workbench import TARGET, Workbench, note

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


class SealContract(ContractFixtures):
    """Where streams end."""

    @opened_with(late_event_seconds=NEVER_SECONDS)
    async def test_a_live_subscriber_sees_the_last_event(
        self, bench: Workbench, store: RunStore, other: RunStore
    ) -> None:
        """A live subscriber sees the last event, also when it is pushed after the state."""

        async def live(reader: RunStore) -> list[str]:
            run_id = await bench.run(store)
            subscriber = bench.subscribe(reader, run_id)
            await store.append(run_id, note(run_id))
            await subscriber.until(1)
            await store.set_state(run_id, RunState.COMPLETED)
            await store.push_event(run_id, workbench.closing(run_id))
            return workbench.kinds(await subscriber.ended())

        seen = await asyncio.gather(*(live(reader) for reader in [store, other] * 50))
        assert seen == [["custom", "agent_completed"]] * 100

    @pytest.mark.parametrize("state_first", [True, False])
    @pytest.mark.parametrize(("kind", "agent"), CLOSING + NOT_CLOSING)
    @opened_with(late_event_seconds=NEVER_SECONDS)
    async def test_state_and_closing_event_seal(
        self, store: RunStore, run_id: str, kind: RunEventType, agent: str | None, state_first: bool
    ) -> None:
        """An ended run is sealed by a closing event, before its state or after it, and no other."""
        if state_first:
            await store.set_state(run_id, RunState.FAILED)
        await store.push_event(run_id, RunEvent(type=kind, run_id=run_id, agent=agent))
        if not state_first:
            await store.set_state(run_id, RunState.COMPLETED)
        is_sealed = (await store.snapshot(run_id)).seal is not None
        assert is_sealed == ((kind, agent) in CLOSING)
        await store.push_event(run_id, workbench.closing(run_id))
        seen = [kind] if is_sealed else [kind, "agent_completed"]
        assert workbench.kinds(await workbench.events_of(store, run_id)) == seen

    async def test_subscribers_see_the_cancellation(
        self, bench: Workbench, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """A subscriber sees the cancellation of a run, whether it comes before it or after."""
        subscriber = bench.subscribe(other, run_id)
        await store.append(run_id, note(run_id))
        await subscriber.until(1)
        await store.set_state(run_id, RunState.CANCELLED)
        assert workbench.kinds(await subscriber.ended()) == ["custom", "run_cancelled"]
        assert workbench.kinds(await workbench.events_of(store, run_id)) == [
            "custom",
            "run_cancelled",
        ]

    @opened_with(late_event_seconds=0.05)
    async def test_a_bare_end_seals_when_time_is_over(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        """A run whose last event does not come is sealed after ``late_event_seconds``."""
        subscriber = bench.subscribe(store, run_id)
        await store.append(run_id, note(run_id))
        await subscriber.until(1)
        await store.set_state(run_id, RunState.COMPLETED)
        assert workbench.numbers(await subscriber.ended()) == [0]
        expected = ["run.created", "custom", "run.state", "run.sealed"]
        assert await workbench.types_of(store, run_id) == expected

    @opened_with(late_event_seconds=0.05)
    async def test_many_subscribers_seal_a_run_once(
        self, bench: Workbench, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        subscribers = [bench.subscribe(reader, run_id) for reader in [store, other] * 10]
        await store.set_state(run_id, RunState.FAILED)
        for subscriber in subscribers:
            assert await subscriber.ended() == []
        assert (await workbench.types_of(store, run_id)).count("run.sealed") == 1

    @opened_with(late_event_seconds=0)
    async def test_a_closing_event_can_be_late(self, store: RunStore, run_id: str) -> None:
        """A closing event after ``late_event_seconds`` is a late entry."""
        await store.set_state(run_id, RunState.COMPLETED)
        await store.push_event(run_id, workbench.closing(run_id))
        assert await workbench.events_of(store, run_id) == []
        sealed, late = (await workbench.journal_of(store, run_id))[2:]
        assert (sealed.type, sealed.is_late) == ("run.sealed", False)
        assert (late.type, late.is_late) == ("agent_completed", True)

    async def test_late_events_are_not_streamed(self, store: RunStore, run_id: str) -> None:
        """Late events are in the journal and in no stream."""
        await store.finish(run_id, RunState.COMPLETED, event=workbench.closing(run_id))
        late = [*workbench.notes(run_id, 3), workbench.closing(run_id)]
        for event in late:
            await store.push_event(run_id, event)
        assert workbench.kinds(await workbench.events_of(store, run_id)) == ["agent_completed"]
        entries = await workbench.journal_of(store, run_id)
        assert workbench.kinds(entry for entry in entries if entry.is_late) == workbench.kinds(late)

    async def test_a_late_event_changes_no_run(self, store: RunStore, run_id: str) -> None:
        """A closing event after the seal changes nothing but the run's version."""
        await store.finish(run_id, RunState.COMPLETED)
        before = await store.snapshot(run_id)
        await store.push_event(run_id, workbench.closing(run_id))
        after = await store.snapshot(run_id)
        assert (after.state, after.seal, after.closing) == (before.state, before.seal, None)
        assert after.version == before.version + 1

    @opened_with(late_event_seconds=NEVER_SECONDS)
    async def test_live_and_late_subscribers_agree(
        self, bench: Workbench, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        """Live and late subscribers see the same events."""
        live = bench.subscribe(other, run_id)
        await store.append(run_id, note(run_id, 1))
        await live.until(1)
        await store.set_state(run_id, RunState.COMPLETED)
        for event in (note(run_id, 2), workbench.closing(run_id), note(run_id, 3)):
            await store.push_event(run_id, event)
        assert await live.ended() == await workbench.events_of(store, run_id)
