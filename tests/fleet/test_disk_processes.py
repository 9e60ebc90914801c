"""Worker processes over a file or folder: what a dead one held is finished by the next one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import Stage, wait_until


class DiskStage(Stage):
    """Workers of a file or folder; a RocksDB folder is for one process at a time."""

    def __init__(self, scheme: str, folder: Path) -> None:
        super().__init__(f"{scheme}://{folder}/runs", "unused", folder)

    def made_fleet(self) -> Fleet:
        """The test's own view of the runs: close it, and a worker can have the folder."""
        return Fleet(self.url)


@pytest.fixture(params=["sqlite", "rocksdb"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DiskStage]:
    stage = DiskStage(request.param, tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[DiskStage]:
    """A folder that one process has open."""
    stage = DiskStage("rocksdb", tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[DiskStage]:
    """A file that several processes have open."""
    stage = DiskStage("sqlite", tmp_path)
    yield stage
    stage.close()


def lines(file: Path) -> list[str]:
    """The text of a file; "" if the file does not exist."""
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


async def written(journal: Path, line: str) -> None:
    """Wait until the handler has written a line."""

    async def is_written() -> bool:
        return line in lines(journal)

    await wait_until(is_written, f"the handler writes {line!r}")


async def test_the_next_process_finishes_a_killed_workers_run(stage: DiskStage) -> None:
    """The run of a killed worker is executed to its end by the next process."""
    gate, journal = stage.gate(), stage.folder / "written"
    job = {"gate": str(gate), "journal": str(journal)}
    async with stage.fleet as fleet:
        run_id = (await fleet.submit("waits", job)).run_id
    first = stage.start(lease_seconds=1, idle_seconds=1)
    await written(journal, "1 began")
    first.kill()
    second = stage.start(lease_seconds=1, idle_seconds=1)
    await written(journal, "2 began")
    gate.touch()
    second.send(signal.SIGTERM)
    assert second.exit_code() == 0
    async with stage.fleet as fleet:
        handle = fleet.handle(run_id)
        run = await handle.snapshot()
        assert (run.state, run.attempt, run.failures) == (RunState.COMPLETED, 2, 0)
        assert await stage.check([handle]) == [2]


async def test_a_rocksdb_folder_is_refused_to_a_second_process(alone: DiskStage) -> None:
    """The worker has it; once the worker has stopped, others can open it."""
    worker = await alone.ready(alone.start())
    with pytest.raises(StoreConfigurationError, match="open"):
        await alone.fleet.store()
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == 0
    async with alone.fleet as fleet:
        assert await fleet.workers() == [], "it took itself off the list"


async def test_a_worker_of_another_process_is_woken_by_a_submission(shared: DiskStage) -> None:
    """It does not wait for its next regular look."""
    await shared.ready(shared.start(idle_seconds=3600))
    async with shared.fleet as fleet:
        handle = await fleet.submit("counts", {"steps": 3})
        names = [event.name async for event in handle.stream() if event.name]
        assert names == ["step"] * 3
        assert await shared.check([handle]) == [1]


async def test_a_cancel_from_another_process_comes_with_the_heartbeat(shared: DiskStage) -> None:
    """The handler is cancelled within a heartbeat, and the run ends cancelled."""
    journal = shared.folder / "written"
    await shared.ready(shared.start(lease_seconds=1))
    async with shared.fleet as fleet:
        job = {"gate": str(shared.gate()), "journal": str(journal)}
        handle = await fleet.submit("waits", job)
        await written(journal, "1 began")
        cancelled = await handle.cancel(wait=30)
        assert (cancelled.state, cancelled.delivered is not None) == (RunState.CANCELLED, True)
    await written(journal, "1 cancelled")


async def test_two_worker_processes_share_a_files_work(shared: DiskStage) -> None:
    """Each of four runs is executed, by two processes."""
    for _ in range(2):
        await shared.ready(shared.start(concurrency=2))
    async with shared.fleet as fleet:
        gate = shared.gate()
        waiting = [await fleet.submit("waits", {"gate": str(gate)}) for _ in range(4)]
        for handle in waiting:
            await shared.in_state(handle, RunState.RUNNING, attempt=1)
        workers = {(await handle.snapshot()).worker for handle in waiting}
        assert len(workers) == 2
        gate.touch()
        for handle in waiting:
            await handle.result(timeout=30)
        assert await shared.check(waiting) == [1] * 4
