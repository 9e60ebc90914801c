"""A worker that was frozen past its lease: what it still writes is refused."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from murmur_streams import RunHandle
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import Stage, wait_until
from tests.servers import Space

LEASE_SECONDS = 3
"""Long enough for a worker that works on a slow machine to keep its runs."""


def notes(journal: Path) -> list[str]:
    """The lines that the agents wrote into their file."""
    return journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []


async def until_noted(journal: Path, line: str) -> None:
    """Wait until an agent has written the line into its file."""

    async def is_noted() -> bool:
        return line in notes(journal)

    await wait_until(is_noted, f"{line!r} is in {journal.name}")


async def taken_over(stage: Stage, agent: str, job: dict[str, str]) -> RunHandle[object]:
    """Submit a run, freeze its worker until another has it, and let the first go on."""
    frozen = await stage.ready(stage.start(lease_seconds=LEASE_SECONDS))
    handle = await stage.fleet.submit(agent, job)
    await stage.in_state(handle, RunState.RUNNING, attempt=1)
    await until_events(stage, handle, 2)
    frozen.send(signal.SIGSTOP)
    await stage.ready(stage.start(lease_seconds=LEASE_SECONDS))
    await stage.in_state(handle, RunState.RUNNING, attempt=2)
    frozen.send(signal.SIGCONT)
    return handle


async def until_events(stage: Stage, handle: RunHandle[object], count: int) -> None:
    """Wait until the run has written so many events."""

    async def has_written() -> bool:
        journal = await stage.journal(handle.run_id)
        return sum(entry.attempt is not None for entry in journal) > count

    await wait_until(has_written, f"{count} events of {handle.run_id}")


@pytest.mark.fault("F26")
async def test_a_worker_that_comes_back_is_fenced(stage: Stage) -> None:
    """The writes of a worker that was frozen are rejected, and its handler is cancelled."""
    gate, journal = stage.gate(), stage.folder / "notes"
    job = {"gate": str(gate), "journal": str(journal)}
    handle = await taken_over(stage, "will_not_go", job)
    await until_noted(journal, "1 cancelled")
    await until_noted(journal, "1 fenced")
    gate.touch()
    report = await handle.result(timeout=30)
    assert report.output is not None
    assert await stage.check([handle]) == [2]


@pytest.mark.slow
async def test_a_waiting_agent_is_cancelled_by_the_loss(
    stage: Stage,
) -> None:
    """An agent that only waits is cancelled when its claim is lost."""
    gate, journal = stage.gate(), stage.folder / "notes"
    handle = await taken_over(stage, "waits", {"gate": str(gate), "journal": str(journal)})
    await until_noted(journal, "1 cancelled")
    gate.touch()
    await handle.output(timeout=30)
    assert await stage.check([handle]) == [2]
    assert sorted(notes(journal)) == ["1 began", "1 cancelled", "2 began"]


@pytest.mark.slow
@pytest.mark.fault("F26")
async def test_a_blocking_agent_that_lost_its_run_writes_nothing_more(stage: Stage) -> None:
    """Its write is refused, and the next worker's execution ends the run."""
    gate, journal = stage.gate(), stage.folder / "notes"
    handle = await taken_over(stage, "waits_blocking", {"gate": str(gate), "journal": str(journal)})
    await until_noted(journal, "2 began")
    gate.touch()
    await until_noted(journal, "1 fenced")
    await handle.output(timeout=30)
    assert await stage.check([handle]) == [2]
    entries = await stage.journal(handle.run_id)
    assert [entry.attempt for entry in entries if entry.fields.get("name") == "went on"] == [2]


@pytest.mark.slow
async def test_a_lonely_worker_that_was_frozen_ends_its_runs_once(
    stage: Stage, space: Space
) -> None:
    """It may take its own runs over, and must not mistake the new claim for the old one."""
    gate = stage.gate()
    worker = await stage.ready(stage.start(lease_seconds=1, idle_seconds=1))
    agents = ["waits", "waits_blocking", "will_not_go"] * 3
    handles = [await stage.fleet.submit(agent, {"gate": str(gate)}) for agent in agents]
    for handle in handles:
        await stage.in_state(handle, RunState.RUNNING, attempt=1)
    for _ in range(3):
        worker.send(signal.SIGSTOP)

        async def leases_are_over() -> bool:
            seconds, _ = space.admin.time()
            return not space.admin.zcount(space.keys.leases(0), seconds * 1000, "+inf")

        await wait_until(leases_are_over, "the leases run out")
        worker.send(signal.SIGCONT)
        for handle in handles:

            async def is_held(run_id: str = handle.run_id) -> bool:
                score = space.admin.zscore(space.keys.leases(0), run_id)
                return score is not None and score > space.admin.time()[0] * 1000

            await wait_until(is_held, "the worker holds the run again")
    gate.touch()
    for handle in handles:
        await handle.output(timeout=30)
    await stage.check(handles)
