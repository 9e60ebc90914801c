"""One simulation of the engine, from a seed, and the judgement of what happened in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from murmur_streams import Fleet
from murmur_streams.core.model import commands
from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.states import RunState
from murmur_streams.testing.checker import check
from murmur_streams.testing.history import History, Outcome, StoredRun, stored_runs
from murmur_streams.testing.simulation import Simulation, StuckError, simulate
from tests.simulation.programs import PATIENCE_SECONDS, Crew, Programs, disturb

SOON_MS, LATER_MS = 700, 2_500
"""How long a start and a cancel may take without faults: where the workers are woken by memory, and
where they look for what other processes wrote."""
LEFT_BEHIND_SECONDS = 3.0
"""Longer than the longest handler that ignores its cancellation."""


def findings_of(seed: int, on_note: Any = None) -> tuple[list[str], Simulation | None]:
    """Run a seed; what was found to be wrong, and the simulation unless it was stuck."""
    try:
        simulation = simulate(engine, seed, is_shuffled=seed % 3 > 0, on_note=on_note)
    except StuckError as error:
        return [f"stuck: {error}"], None
    except Exception as error:  # noqa: BLE001  # whatever a program met is a finding
        return [f"a program met {error!r}"], None
    problems = [_reported(each) for each in simulation.loop.errors]
    return simulation.findings + simulation.rows.problems + problems, simulation


def _reported(context: Mapping[str, Any]) -> str:
    return f"reported to the event loop: {context.get('message')}: {context.get('exception')!r}"


async def engine(simulation: Simulation) -> None:
    """Workers, submitters, cancellers and readers, while faults happen; then the judgement."""
    choice = simulation.choice
    simulation.is_one_process = choice.random() < 0.3
    is_calm = choice.random() < 0.2
    crew = Crew(simulation, choice.choice((1.0, 2.0)), choice.randint(1, 3))
    programs, fleets = Programs(simulation, choice), [Fleet("memory:"), Fleet("memory:")]
    for _ in range(choice.randint(1, 2)):
        crew.start()
    for number in range(choice.randint(1, 3)):
        fleet, run_id = choice.choice(fleets), f"run-{number}"
        programs.start(programs.submit(fleet, run_id), f"submit {run_id}")
        if choice.random() < 0.4:
            programs.start(_later(simulation, programs, choice.choice(fleets), run_id), "cancel")
        if choice.random() < 0.6:
            programs.start(programs.read(choice.choice(fleets), run_id), f"read {run_id}")
    if choice.random() < 0.4:
        programs.start(programs.write(choice.choice(fleets), "own-0"), "write own-0")
        programs.start(programs.read(choice.choice(fleets), "own-0"), "read own-0")
    if choice.random() < 0.2:
        programs.start(programs.submit_twice(fleets, "a-key"), "submit twice")
    if choice.random() < 0.2:
        programs.start(programs.pause(choice.choice(fleets)), "pause")
    feeding = asyncio.create_task(programs.read_feed(fleets[0]), name="feed")
    if is_calm:
        await asyncio.sleep(1)
    else:
        await disturb(simulation, crew, 2 + choice.random() * 3)
    if not crew.living:
        crew.start()
    await _settle(simulation, programs, fleets[0])
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    await _judge(simulation, crew, programs, fleets[0], is_calm=is_calm)
    await _close(simulation, crew, fleets)


async def _later(simulation: Simulation, programs: Programs, fleet: Fleet, run_id: str) -> None:
    await asyncio.sleep(simulation.choice.random() * 2)
    await programs.cancel(fleet, run_id)


async def _settle(simulation: Simulation, programs: Programs, fleet: Fleet) -> None:
    """Wait until every program has ended and every run too; note what has not."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*programs.tasks)
    except TimeoutError:
        late = [task.get_name() for task in programs.tasks if task.cancelled()]
        simulation.findings.append(f"still waiting: {', '.join(late)}")
    store = await fleet.store()
    for run_id in programs.run_ids:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (await store.get_status(run_id)).state.is_terminal:  # noqa: ASYNC110  # virtual time
                    await asyncio.sleep(0.5)


async def _judge(
    simulation: Simulation, crew: Crew, programs: Programs, fleet: Fleet, *, is_calm: bool
) -> None:
    store, history = await fleet.store(), simulation.history
    stored = await stored_runs(store, [*programs.run_ids, *programs.own_run_ids])
    found = [f"{each.run_id}: {each.rule}: {each.text}" for each in check(history, stored)]
    found += _ends(programs, stored)
    found += _cancels(history, stored)
    if is_calm:
        found += _lost_leases(stored)
        has_room = crew.concurrency * crew.count >= len(programs.run_ids) and not programs.pauses
        soon_ms = SOON_MS if simulation.is_one_process else LATER_MS
        found += _late(stored, soon_ms, has_room=has_room)
    for run_id, each in stored.items():
        if each.run is not None:
            found += [f"{run_id}: audit: {text}" for text in (await store.audit(run_id)).problems]
    simulation.findings += found


def _ends(programs: Programs, stored: Mapping[str, StoredRun]) -> Iterator[str]:
    for run_id in [*programs.run_ids, *programs.own_run_ids]:
        run = stored[run_id].run
        was_deleted = run is None and run_id in programs.deleted
        if not was_deleted and (run is None or not run.state.is_terminal):
            yield f"{run_id} has not ended: {run and run.state}"


def _cancels(history: History, stored: Mapping[str, StoredRun]) -> Iterator[str]:
    for call in history.calls:
        is_cancel = isinstance(call.command, commands.RequestCancel)
        if is_cancel and call.outcome is Outcome.ACKNOWLEDGED:
            run = stored[call.run_id].run
            if run is not None and run.state is not RunState.CANCELLED:
                yield f"{call.run_id}: its cancel was accepted, and it is {run.state}"


def _lost_leases(stored: Mapping[str, StoredRun]) -> Iterator[str]:
    """Without faults, each lease lasts as long as its execution."""
    for run_id, each in stored.items():
        for entry in each.journal:
            if entry.fields.get("reason") == "lease_expired":
                yield f"{run_id}: its lease ran out, and nothing was at fault"


def _late(stored: Mapping[str, StoredRun], soon_ms: int, *, has_room: bool) -> Iterator[str]:
    """Without faults, a cancel is obeyed soon, and a run starts soon if a slot is free for it."""
    for run_id, each in stored.items():
        waits_since: int | None = None
        requested: int | None = None
        for entry in each.journal:
            state = entry.fields.get("state")
            if entry.type == EntryType.CREATED and has_room and "due" not in entry.fields:
                waits_since = entry.ms
            elif entry.type == EntryType.CANCEL_REQUESTED:
                requested = entry.ms
            elif state == RunState.RUNNING and waits_since is not None:
                if entry.ms - waits_since > soon_ms:
                    yield f"{run_id}: it started after {entry.ms - waits_since} ms"
                waits_since = None
            elif state == RunState.CANCELLED and requested and entry.ms - requested > soon_ms:
                yield f"{run_id}: its cancel took {entry.ms - requested} ms"


async def _close(simulation: Simulation, crew: Crew, fleets: list[Fleet]) -> None:
    """Stop everything; note what does not end."""
    for process in [*crew.living]:
        crew.stop(process)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for process in crew.ending:
                await simulation.wait_for(process)
    except TimeoutError:
        simulation.findings.append("a worker does not stop")
    await asyncio.sleep(LEFT_BEHIND_SECONDS)
    for fleet in fleets:
        await fleet.close()
    for task in simulation.living_tasks():
        simulation.findings.append(f"left running: {task.get_name()} {task.get_coro()}")
