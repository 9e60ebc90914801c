"""A process that is killed while it writes loses no write that had returned."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from pathlib import Path

import pytest

from murmur_streams import RunState
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.testing.workbench import events_of, journal_of, numbers
from tests.stores.local.acknowledging import EVENTS
from tests.stores.local.stores import Open
from tests.warm import ROOT, WarmProcess

KILLS = 200
Reported = dict[str, set[tuple[str, int]]]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.fault("F42")
async def test_kills_lose_no_acknowledged_write_and_repeat_none(
    kind: str, open_again: Open, tmp_path: Path
) -> None:
    """A writing process is killed again and again; every write that returned is there once."""
    chance = random.Random(6)
    acknowledged = 0
    for life in range(KILLS):
        reported = _killed_writer(kind, tmp_path, life, chance)
        async with open_again() as store:
            for run_id, writes in reported.items():
                await _check(store, run_id, writes)
        acknowledged += sum(map(len, reported.values()))
    assert acknowledged > KILLS * EVENTS


def _killed_writer(kind: str, folder: Path, life: int, chance: random.Random) -> Reported:
    """Let a process write, and kill it at a random moment; the writes that had returned."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as lines:
        with os.fdopen(writing, "wb") as output, Path(os.devnull).open("rb") as nothing:
            process = WarmProcess(
                "tests.stores.local.acknowledging",
                *(kind, str(folder), str(life)),
                cwd=ROOT,
                env=dict(os.environ),
                stdin=nothing,
                stdout=output,
                stderr=output,
            )
        assert lines.readline() == b"- open 0\n"
        reported = [lines.readline() for _ in range(chance.randrange(1, 150))]
        # Anywhere between two writes, or in the middle of one.
        time.sleep(chance.random() * 0.003)
        process.kill()
        assert process.wait(20) == -signal.SIGKILL, b"".join(reported)
        reported += [line for line in lines if line.endswith(b"\n")]
    writes: Reported = defaultdict(set)
    for run_id, what, number in (line.decode().split() for line in reported):
        writes[run_id].add((what, int(number)))
    return writes


async def _check(store: FileRunStore, run_id: str, writes: set[tuple[str, int]]) -> None:
    report = await store.audit(run_id)
    assert report.ok, (run_id, report.problems)
    stored = numbers(
        [event for entry in await journal_of(store, run_id) if (event := entry.event())]
    )
    acknowledged = sorted(number for what, number in writes if what == "event")
    assert stored[: len(acknowledged)] == acknowledged, run_id
    # The one that was under way may be there, too.
    assert stored == list(range(len(stored))), run_id
    assert len(stored) <= len(acknowledged) + 1, run_id
    if ("finished", 0) in writes:
        assert (await store.get_status(run_id)).state is RunState.COMPLETED
        assert len(await events_of(store, run_id)) == EVENTS
    assert await store.get_input(run_id) == {"life": int(run_id.rsplit("-", 1)[1])}
