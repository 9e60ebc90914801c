"""Works that write: events, runs, whole lives of runs."""

from __future__ import annotations

import asyncio
import gc
import uuid
from typing import Any

from benchmarks.harness.results import Reading
from benchmarks.programs.bench import TARGET, TASKS, Bench, in_tasks


async def build(bench: Bench, count: int) -> list[Reading]:
    """Events made and not pushed: what a program pays in addition to each push."""
    began = bench.meter.mark()
    bench.events(str(uuid.uuid4()), count)
    return [bench.meter.since(began, "build", count)]


async def create(bench: Bench, count: int) -> list[Reading]:
    """Runs created in turn; then the status of each is asked for in turn."""
    store, run_ids = bench.store, [str(uuid.uuid4()) for _ in range(count)]

    async def make() -> None:
        for run_id in run_ids:
            await store.create(run_id, TARGET)

    async def ask() -> None:
        for run_id in run_ids:
            assert (await store.get_status(run_id)).run_id == run_id

    await bench.begin()
    created = await bench.meter.rate("create", count, make)
    return [created, await bench.meter.rate("get_status", count, ask)]


async def append(bench: Bench, figure: str, count: int, tasks: int, runs: int) -> list[Reading]:
    """Events pushed from ``tasks`` tasks to ``runs`` runs."""
    run_ids = [await bench.begin() for _ in range(runs)]
    each, first = count // runs, max(1, tasks // runs)
    # One event of each task comes first: connections and threads exist when the clock starts.
    await bench.push(bench.in_turn(run_ids, first), tasks)
    events = bench.in_turn(run_ids, each, first)
    gc.collect()
    found = await bench.meter.rate(figure, len(events), lambda: bench.push(events, tasks))
    expected = first + each
    stored = await asyncio.gather(*(bench.stored(run_id, expected) for run_id in run_ids))
    assert set(stored) == {expected}, f"{figure}: {min(stored)} events of {expected} in a run"
    return [found]


async def lifecycle(bench: Bench, count: int) -> list[Reading]:
    """Runs of 100 tasks: create, running, two events, progress, completed."""
    store, states = bench.store, bench.library.RunState
    progress = bench.library.RunProgress(total=2, completed=1)
    run_ids = [str(uuid.uuid4()) for _ in range(count + TASKS)]
    events = {run_id: bench.events(run_id, 2) for run_id in run_ids}

    async def live(run_id: str) -> None:
        await store.create(run_id, TARGET)
        await store.set_state(run_id, states.RUNNING)
        for event in events[run_id]:
            await store.push_event(run_id, event)
        await store.update_progress(run_id, progress)
        await store.set_state(run_id, states.COMPLETED)

    await in_tasks(live, run_ids[:TASKS])
    gc.collect()
    work = run_ids[TASKS:]
    found = await bench.meter.rate("lifecycle", count, lambda: in_tasks(live, work))
    states_now = [(await store.get_status(run_id)).state for run_id in work]
    assert {str(state) for state in states_now} == {str(states.COMPLETED)}
    return [found]


async def fill(bench: Bench, run_id: str, count: int) -> list[Reading]:
    """Leave an ended run of ``count`` events; with none of them, a run that is not ended."""
    await bench.begin(run_id)
    if count:
        await bench.push(bench.events(run_id, count - 1), TASKS)
        await bench.end(run_id, lambda: f"task-{count - 1}")
    return []


async def lengths(bench: Bench, counts: list[int], appends: int) -> list[Reading]:
    """Events appended in turn to a run that already has so many."""
    run_id, found, length = await bench.begin(), list[Reading](), 0
    for count in counts:
        await bench.push(bench.events(run_id, count - length, length), TASKS)
        events = bench.events(run_id, appends, count)

        async def push(events: list[Any] = events) -> None:
            await bench.push(events, 1)

        found.append(await bench.meter.rate("append_to_length", appends, push, at=count))
        length = count + appends
    return found


WORKS = (build, create, append, lifecycle, fill, lengths)
