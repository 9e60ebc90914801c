"""The stores of one library at work, in a process of its own.

``python -m benchmarks.store_program murmur_streams.runs`` (or ``murmur.runs``, with murmur-runtime
on the path) reads orders, a JSON object a line, and answers each with a line of JSON. It calls
only what both libraries have, and gives a store only its path or URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import statistics
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from benchmarks.measure import rate

Found = dict[str, float]

TARGET = "bench"
TASKS = 100
PAUSE_SECONDS = 0.01
"""Between two events of the delivery: 100 a second."""
LOOK_SECONDS = 0.002
PATIENCE_SECONDS = 5.0
"""For events that a store may have lost."""
REPLAY_SECONDS = 60.0

_CLASSES = {
    "memory": "InMemoryRunStore",
    "sqlite": "SQLiteRunStore",
    "rocksdb": "RocksDBRunStore",
    "redis": "RedisRunStore",
}


@dataclass(frozen=True, slots=True)
class Order:
    """One measurement."""

    work: str
    store: str
    address: str
    """A path, or a URL; the memory store needs none."""
    count: int
    run_id: str = ""
    """The run to fill or to replay."""


class Bench:
    """One store of one library, and the events to give it."""

    def __init__(self, library: Any, store: Any) -> None:
        self._library = library
        self.store = store

    def events(self, run_id: str, count: int, first: int = 0) -> list[Any]:
        """Events of the type, and with the fields, that both libraries have."""
        kind = self._library.RunEventType.AGENT_STARTED
        return [self._event(kind, run_id, number) for number in range(first, first + count)]

    def in_turn(self, run_ids: list[str], each: int, first: int = 0) -> list[Any]:
        """So many events for each run, the first ones of all runs first."""
        by_run = [self.events(run_id, each, first) for run_id in run_ids]
        return [event for together in zip(*by_run, strict=True) for event in together]

    async def begin(self, run_id: str = "") -> str:
        """Make a run that works."""
        run_id = run_id or str(uuid.uuid4())
        await self.store.create(run_id, TARGET)
        await self.store.set_state(run_id, self._library.RunState.RUNNING)
        return run_id

    async def end(self, run_id: str, number: int) -> None:
        """End a run as murmur does: the state first, and then the last event."""
        await self.store.set_state(run_id, self._library.RunState.COMPLETED)
        last = self._event(self._library.RunEventType.AGENT_COMPLETED, run_id, number)
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

    def _event(self, kind: Any, run_id: str, number: int) -> Any:
        # Without a timestamp: each library reads the clock itself, as in its users' programs.
        return self._library.RunEvent(
            type=kind, run_id=run_id, agent=TARGET, task_id=f"task-{number}"
        )


async def create(bench: Bench, order: Order) -> Found:
    """Runs created in turn; then the status of each is asked for in turn."""
    store, run_ids = bench.store, [str(uuid.uuid4()) for _ in range(order.count)]

    async def make() -> None:
        for run_id in run_ids:
            await store.create(run_id, TARGET)

    async def ask() -> None:
        for run_id in run_ids:
            assert (await store.get_status(run_id)).run_id == run_id

    await bench.begin()
    created = await rate(order.count, make)
    return {"create": created, "get_status": await rate(order.count, ask)}


async def append(bench: Bench, order: Order, tasks: int = 1, runs: int = 1) -> Found:
    """Events pushed from ``tasks`` tasks to ``runs`` runs."""
    run_ids = [await bench.begin() for _ in range(runs)]
    each, first = order.count // runs, tasks // runs
    # One event of each task comes first: connections and threads exist when the clock starts.
    await bench.push(bench.in_turn(run_ids, first), tasks)
    events = bench.in_turn(run_ids, each, first)
    gc.collect()
    found = await rate(len(events), lambda: bench.push(events, tasks))
    expected = first + each
    stored = await asyncio.gather(*(bench.stored(run_id, expected) for run_id in run_ids))
    assert set(stored) == {expected}, f"{order}: {min(stored)} events of {expected} in a run"
    return {order.work: found}


async def append_one_run(bench: Bench, order: Order) -> Found:
    """Events pushed from 100 tasks to one run."""
    return await append(bench, order, TASKS)


async def append_many_runs(bench: Bench, order: Order) -> Found:
    """Events pushed from 100 tasks, each to a run of its own."""
    return await append(bench, order, TASKS, TASKS)


async def build(bench: Bench, order: Order) -> Found:
    """Events made and not pushed: what a program pays in addition to each push."""
    began = time.perf_counter()
    events = bench.events(str(uuid.uuid4()), order.count)
    return {"build": len(events) / (time.perf_counter() - began)}


async def delivery(bench: Bench, order: Order) -> Found:
    """From before push_event to the arrival at a live subscriber; the last event counts, too."""
    run_id = await bench.begin()
    sent, came = dict[str, float](), dict[str, float]()

    async def read() -> None:
        async for event in bench.store.stream(run_id):
            came[event.task_id] = time.perf_counter()

    reader = asyncio.create_task(read())
    await bench.push(bench.events(run_id, 1, order.count + 1), 1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not came:  # noqa: ASYNC110  # until the reader follows
            await asyncio.sleep(LOOK_SECONDS)
    began = time.perf_counter()
    for number, event in enumerate(bench.events(run_id, order.count)):
        await asyncio.sleep(max(0, began + number * PAUSE_SECONDS - time.perf_counter()))
        sent[event.task_id] = time.perf_counter()
        await bench.store.push_event(run_id, event)
    sent[f"task-{order.count}"] = time.perf_counter()
    await bench.end(run_id, order.count)
    await asyncio.wait({reader}, timeout=PATIENCE_SECONDS)
    await _stop(reader)
    delays = sorted(1000 * (came[name] - sent[name]) for name in sent if name in came)
    found = {"p50": statistics.median(delays), "p99": delays[int(len(delays) * 0.99)]}
    return found | {"delivered": len(delays)}


async def _stop(reader: asyncio.Task[None]) -> None:
    if reader.done():
        reader.result()
        return
    reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader


async def fill(bench: Bench, order: Order) -> Found:
    """Leave an ended run of ``count`` events; with none of them, a run that is not ended."""
    run_id = await bench.begin(order.run_id)
    if order.count:
        await bench.push(bench.events(run_id, order.count - 1), TASKS)
        await bench.end(run_id, order.count - 1)
    return {}


async def replay(bench: Bench, order: Order) -> Found:
    """Read an ended run from its start; in memory it is made first."""
    if order.store == "memory":
        await fill(bench, order)
    assert (await bench.store.get_status(order.run_id)).run_id == order.run_id
    gc.collect()
    came, began = 0, time.perf_counter()
    async with asyncio.timeout(REPLAY_SECONDS):
        async for _ in bench.store.stream(order.run_id):
            came += 1
    return {"replay": came / (time.perf_counter() - began), "replayed": came}


_WORKS: dict[str, Callable[[Bench, Order], Awaitable[Found]]] = {
    work.__name__: work
    for work in (build, create, append, append_one_run, append_many_runs, delivery, fill, replay)
}


@asynccontextmanager
async def _opened(library: Any, order: Order) -> AsyncGenerator[Any]:
    kind = getattr(library, _CLASSES[order.store])
    store = kind(order.address) if order.address else kind()
    try:
        yield store
    finally:
        # murmur's store in memory lacks close().
        if close := getattr(store, "close", None):
            await close()


async def _do(library: Any, order: Order) -> Found:
    async with _opened(library, order) as store:
        return await _WORKS[order.work](Bench(library, store), order)


def main() -> None:
    """Answer each order on stdin until it closes."""
    answers = sys.stdout
    # Output of a library must not mix with the answers.
    with contextlib.redirect_stdout(sys.stderr):
        library = import_module(sys.argv[1])
        for line in sys.stdin:
            found = asyncio.run(_do(library, Order(**json.loads(line))))
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
