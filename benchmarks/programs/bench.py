"""One store of one library, and the events to give it: only what both libraries have."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.meter import Meter

TARGET = "bench"
TASKS = 100
PATIENCE_SECONDS = 5.0
"""For events that a store may have lost."""


@dataclass(slots=True)
class Bench:
    """A library, one of its stores, and the clocks.

    Args:
        library: a module with the names of ``murmur.runs``.
        kind: the name of the store.
        store: the open store.
        meter: the clocks of this process and of its server.
        address: of the store.
    """

    library: Any
    kind: str
    store: Any
    meter: Meter
    address: str

    def events(self, run_id: str, count: int, first: int = 0) -> list[Any]:
        """Events of the type, and with the fields, that both libraries have."""
        kind = self.library.RunEventType.AGENT_STARTED
        return [self.event(kind, run_id, f"task-{each}") for each in range(first, first + count)]

    def in_turn(self, run_ids: list[str], each: int, first: int = 0) -> list[Any]:
        """So many events for each run, the first ones of all runs first."""
        by_run = [self.events(run_id, each, first) for run_id in run_ids]
        return [event for together in zip(*by_run, strict=True) for event in together]

    async def begin(self, run_id: str = "") -> str:
        """Make a run that works."""
        run_id = run_id or str(uuid.uuid4())
        await self.store.create(run_id, TARGET)
        await self.store.set_state(run_id, self.library.RunState.RUNNING)
        return run_id

    async def begin_many(self, count: int) -> list[str]:
        """Make runs that work, a hundred at a time."""
        run_ids = [str(uuid.uuid4()) for _ in range(count)]
        await in_tasks(self.begin, run_ids)
        return run_ids

    async def end(self, run_id: str, task_id: Callable[[], str]) -> None:
        """End a run as murmur does: the state first, and then the last event.

        Args:
            run_id: the run.
            task_id: makes the last event's task_id, just before that event is pushed.
        """
        await self.store.set_state(run_id, self.library.RunState.COMPLETED)
        last = self.event(self.library.RunEventType.AGENT_COMPLETED, run_id, task_id())
        await self.store.push_event(run_id, last)

    async def push(self, events: Iterable[Any], tasks: int) -> None:
        """Push events from many tasks, each one after the other."""
        given = list(events)

        async def one(own: list[Any]) -> None:
            for event in own:
                await self.store.push_event(event.run_id, event)

        await asyncio.gather(*(one(given[task::tasks]) for task in range(tasks)))

    async def stored(self, run_id: str, expected: int) -> int:
        """How many events a live subscriber receives, at most as many as expected."""
        seen, loop = 0, asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(PATIENCE_SECONDS) as limit,
                aclosing(self.store.stream(run_id)) as events,
            ):
                async for _ in events:
                    seen += 1
                    limit.reschedule(loop.time() + PATIENCE_SECONDS)
                    if seen == expected:
                        break
        return seen

    def event(self, kind: Any, run_id: str, task_id: str) -> Any:
        """An event; each library reads the clock itself, as in its users' programs."""
        return self.library.RunEvent(type=kind, run_id=run_id, agent=TARGET, task_id=task_id)


async def in_tasks(work: Any, items: Iterable[Any], tasks: int = TASKS) -> None:
    """Do ``work`` for each item, from many tasks."""
    given = list(items)

    async def one(own: list[Any]) -> None:
        for item in own:
            await work(item)

    await asyncio.gather(*(one(given[task::tasks]) for task in range(min(tasks, len(given)))))
