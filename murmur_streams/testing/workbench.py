"""The tools of the contract's tests: stores, runs, subscribers, and an audit of every run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Self

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import new_run_id
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore

StoreFactory = Callable[..., RunStore]
"""Opens a store. Options, each with the store's own default: ``ttl_seconds``,
``late_event_seconds``, ``limits`` and ``clock``."""

PATIENCE_SECONDS = 20.0
TARGET = "researcher"
LIVE = [state for state in RunState if not state.is_terminal]
ENDED = [state for state in RunState if state.is_terminal]


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]], why: str, seconds: float = PATIENCE_SECONDS
) -> None:
    """Look again and again until ``condition`` holds.

    Raises:
        AssertionError: it did not within ``seconds``; the text names ``why``.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + seconds
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert loop.time() < give_up, f"waited {seconds:g} s in vain: {why}"
        await asyncio.sleep(0.005)


def note(run_id: str, number: int = 0, **unchecked: object) -> RunEvent:
    """An event that ends nothing and carries a number, or fields of any value."""
    event = RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name="note", data=number)
    return event.model_copy(update=unchecked)


def closing(run_id: str) -> RunEvent:
    """The event that ends a run on TARGET."""
    return RunEvent(type=RunEventType.AGENT_COMPLETED, run_id=run_id, agent=TARGET)


def notes(run_id: str, count: int) -> list[RunEvent]:
    """Notes that carry the numbers from 0 on."""
    return [note(run_id, number) for number in range(count)]


def numbers(events: list[RunEvent]) -> list[object]:
    """The numbers of the notes among the events, in order."""
    return [event.data for event in events if event.type is RunEventType.CUSTOM]


def kinds(found: Iterable[RunEvent | JournalEntry]) -> list[str]:
    """The types of events or entries, in order."""
    return [str(each.type) for each in found]


class Subscriber:
    """Reads a stream in the background and keeps what it saw."""

    def __init__(self, events: AsyncIterator[RunEvent]) -> None:
        self.seen: list[RunEvent] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._read(events))

    async def until(self, count: int) -> None:
        """Wait until it has seen so many events."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.seen) < count:
                assert not self._task.done(), f"ended after {len(self.seen)} events: {self._task}"
                self._more.clear()
                await self._more.wait()

    async def ended(self) -> list[RunEvent]:
        """Wait for the stream's end; what was seen, or the stream's error."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._task
        return self.seen

    @property
    def is_done(self) -> bool:
        """True once the stream has ended, well or not."""
        return self._task.done()

    async def cancel(self) -> None:
        """Stop reading."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, events: AsyncIterator[RunEvent]) -> None:
        try:
            async for event in events:
                self.seen.append(event)
                self._more.set()
        finally:
            self._more.set()


class Workbench:
    """The stores and runs of one test; at its end every run is audited and every store closed."""

    def __init__(self, factory: StoreFactory, *, shares_runs: bool) -> None:
        self._factory = factory
        self._shares_runs = shares_runs
        self._stores: list[RunStore] = []
        self._subscribers: list[Subscriber] = []
        self._run_ids: set[str] = set()

    def open(self, **options: Any) -> RunStore:
        """Open a store."""
        store = self._factory(**options)
        self._stores.append(store)
        return store

    def other(self, store: RunStore, **options: Any) -> RunStore:
        """Another view of the store's runs; the store itself where they are not shared."""
        return self.open(**options) if self._shares_runs else store

    async def run(self, store: RunStore, run_id: str | None = None, **given: Any) -> str:
        """Create a run on TARGET; its id."""
        run_id = self.new_id() if run_id is None else run_id
        await store.create(run_id, TARGET, **given)
        return run_id

    def new_id(self) -> str:
        """Draw a run id that the end's audit will look at."""
        run_id = new_run_id()
        self._run_ids.add(run_id)
        return run_id

    def subscribe(self, store: RunStore, run_id: str, after: str | None = None) -> Subscriber:
        """Begin to read a run's stream in the background."""
        subscriber = Subscriber(store.stream(run_id, after=after))
        self._subscribers.append(subscriber)
        return subscriber

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        try:
            for subscriber in self._subscribers:
                await subscriber.cancel()
            if failure[0] is None and self._stores:
                await self._audit(self._stores[0])
        finally:
            for store in self._stores:
                await store.close()

    async def _audit(self, store: RunStore) -> None:
        for run_id in sorted(self._run_ids):
            try:
                report = await store.audit(run_id)
            except RunNotFoundError:
                continue
            assert report.ok, f"run {run_id}: {report.problems}"


async def events_of(store: RunStore, run_id: str, after: str | None = None) -> list[RunEvent]:
    """Read a stream to its end."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [event async for event in store.stream(run_id, after=after)]


async def journal_of(store: RunStore, run_id: str, after: str | None = None) -> list[JournalEntry]:
    """Read the journal as it stands."""
    return [entry async for entry in store.journal(run_id, after=after)]


async def types_of(store: RunStore, run_id: str) -> list[str]:
    """The types of the journal's entries, in order."""
    return kinds(await journal_of(store, run_id))


async def is_gone(store: RunStore, run_id: str) -> bool:
    """Whether the run does not exist any more."""
    try:
        await store.get_status(run_id)
    except RunNotFoundError:
        return True
    return False


async def until_gone(store: RunStore, run_id: str) -> None:
    """Wait until the run has expired."""
    await wait_until(lambda: is_gone(store, run_id), "the run expires")


async def until_failed(store: RunStore, run_id: str) -> None:
    """Sweep until the run has failed."""

    async def is_failed() -> bool:
        await store.sweep()
        return (await store.get_status(run_id)).state is RunState.FAILED

    await wait_until(is_failed, "a sweep fails the run")
