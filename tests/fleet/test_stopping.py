"""A worker that stops claims nothing more, drains, and hands the rest back."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from murmur_streams import Fleet, RunContext, RunHandle
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import Stage, WorkerProcess, wait_until
from tests.fleet.working import working
from tests.servers import Space

BLOCKING = ["waits", "waits_blocking"]


async def stopped(worker: WorkerProcess) -> int:
    """Wait for the worker's own end; its exit code."""
    return await asyncio.to_thread(worker.exit_code)


async def waiting_run(stage: Stage, agent: str, gate: str) -> RunHandle[object]:
    """A run that is executed and waits for its gate."""
    handle = await stage.fleet.submit(agent, {"gate": gate})
    await stage.in_state(handle, RunState.RUNNING, attempt=1)
    return handle


async def reasons(stage: Stage, handle: RunHandle[object]) -> list[str]:
    """Why the run went back into its queue, each time."""
    journal = await stage.journal(handle.run_id)
    return [entry.fields["reason"] for entry in journal if "reason" in entry.fields]


async def begun(stage: Stage, handle: RunHandle[object]) -> None:
    """Wait until the run's handler has said that it began."""

    async def has_begun() -> bool:
        return any(
            entry.fields.get("name") == "began" for entry in await stage.journal(handle.run_id)
        )

    await wait_until(has_begun, f"the handler of {handle.run_id} begins")


async def test_an_idle_worker_stops_at_once(stage: Stage) -> None:
    """Its exit code is 0."""
    worker = await stage.ready(stage.start())
    worker.send(signal.SIGTERM)
    assert await stopped(worker) == 0


async def test_it_finishes_what_ends_in_time_and_claims_no_more(stage: Stage) -> None:
    """A run that is submitted during the drain stays pending."""
    gate = stage.gate()
    worker = await stage.ready(stage.start())
    begun = await waiting_run(stage, "waits", str(gate))
    worker.send(signal.SIGTERM)
    await stage.printed(worker, "stopping")
    later = await stage.fleet.submit("counts", {})
    gate.touch()
    assert await stopped(worker) == 0
    assert await stage.check([begun]) == [1]
    assert (await later.status()).state is RunState.PENDING
    await stage.ready(stage.start())
    await later.output(timeout=30)
    assert await stage.check([later]) == [1]


@pytest.mark.parametrize("agent", BLOCKING)
async def test_a_run_that_does_not_end_in_time_is_handed_back(stage: Stage, agent: str) -> None:
    """A run that outlasts the drain is handed back, and another worker executes it."""
    gate = stage.gate()
    worker = await stage.ready(stage.start(drain_seconds=0.5))
    handle = await waiting_run(stage, agent, str(gate))
    worker.send(signal.SIGTERM)
    assert await stopped(worker) == 0
    assert (await handle.status()).state is RunState.PENDING
    assert await reasons(stage, handle) == ["worker_stopped"]
    await stage.ready(stage.start())
    await stage.in_state(handle, RunState.RUNNING, attempt=2)
    gate.touch()
    await handle.output(timeout=30)
    assert await stage.check([handle]) == [2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_hands_everything_back_at_once(
    stage: Stage, number: signal.Signals
) -> None:
    """SIGTERM and SIGINT both end the wait of the drain."""
    worker = await stage.ready(stage.start(drain_seconds=3600))
    handles = [await waiting_run(stage, agent, str(stage.gate())) for agent in BLOCKING]
    worker.send(number)
    await stage.printed(worker, "stopping")
    worker.send(number)
    assert await stopped(worker) == 0
    for handle in handles:
        assert (await handle.status()).state is RunState.PENDING
        assert await reasons(stage, handle) == ["worker_stopped"]


async def test_what_is_handed_back_wakes_an_idle_worker(stage: Stage) -> None:
    """The run continues on another worker at once."""
    gate = stage.gate()
    first = await stage.ready(stage.start(drain_seconds=0))
    handle = await waiting_run(stage, "waits", str(gate))
    await stage.ready(stage.start())
    first.send(signal.SIGTERM)
    assert await stopped(first) == 0
    await stage.in_state(handle, RunState.RUNNING, attempt=2)
    gate.touch()
    await handle.output(timeout=30)
    assert await stage.check([handle]) == [2]


async def test_a_worker_that_has_stopped_leaves_nothing_behind(space: Space) -> None:
    """Its tasks, threads and connections are gone."""
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    connected = connections(space)
    fleet = Fleet(space.url, key_prefix=space.prefix)

    @fleet.agent
    async def reports(run: RunContext) -> None:
        await run.emit("reported")

    @fleet.agent
    def reports_from_a_thread(run: RunContext) -> None:
        run.emit("reported")

    async with fleet, working(fleet):
        for agent in (reports, reports_from_a_thread) * 5:
            await (await fleet.submit(agent)).output(timeout=30)

    async def is_as_before() -> bool:
        # Objects of an earlier test may be gone meanwhile.
        left = {each for each in threading.enumerate() if "asyncio" not in each.name} - threads
        return (asyncio.all_tasks(), left) == (tasks, set()) and connections(space) <= connected

    await wait_until(is_as_before, "tasks, threads and connections are gone")


def connections(space: Space) -> set[str]:
    """The ids of the connections that the server has."""
    return {each["id"] for each in space.admin.client_list()}


@pytest.mark.parametrize("agent", ["swallows_everything", "sleeps_on"])
async def test_a_handler_that_never_ends_keeps_no_process_from_ending(
    stage: Stage, agent: str
) -> None:
    """Its run was cancelled; the process exits all the same."""
    worker = await stage.ready(stage.start(concurrency=1))
    handle = await stage.fleet.submit(agent, {})
    await begun(stage, handle)
    cancellation = await handle.cancel(wait=True)
    assert (cancellation.state, cancellation.how) == (RunState.CANCELLED, "grace")
    other = await stage.fleet.submit("counts", {})
    await other.output(timeout=30)
    worker.send(signal.SIGTERM)
    assert await stopped(worker) == 0
    assert await stage.check([handle, other]) == [1, 1]


@pytest.mark.parametrize("agent", ["swallows_everything", "sleeps_on"])
async def test_a_handler_that_never_ends_is_handed_back_all_the_same(
    stage: Stage, agent: str
) -> None:
    """The run is pending again, with reason worker_stopped."""
    worker = await stage.ready(stage.start(drain_seconds=0))
    handle = await stage.fleet.submit(agent, {})
    await begun(stage, handle)
    worker.send(signal.SIGTERM)
    assert await stopped(worker) == 0
    assert (await handle.status()).state is RunState.PENDING
    assert await reasons(stage, handle) == ["worker_stopped"]
    await handle.cancel()


async def test_a_deleted_run_does_not_break_the_drain(stage: Stage) -> None:
    """A worker drains although a run that it executes was deleted in the meantime."""
    worker = await stage.ready(stage.start(drain_seconds=1))
    gone = await waiting_run(stage, "waits", str(stage.gate()))
    waiting = await waiting_run(stage, "waits", str(stage.gate()))
    worker.send(signal.SIGTERM)
    await stage.printed(worker, "stopping")
    await (await stage.fleet.store()).delete(gone.run_id, force=True)
    assert await stopped(worker) == 0
    assert (await waiting.status()).state is RunState.PENDING
    assert await reasons(stage, waiting) == ["worker_stopped"]
