"""Programs that write to runs and read them, until something has happened."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from murmur_streams.core.model.errors import CursorError, MurmurError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import new_run_id
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.testing.recorder import Recorder


async def write(
    recorder: Recorder, run_id: str, name: str, counts: Counter[str], is_over: asyncio.Event
) -> None:
    """Append until it is over; every third write expects the version of the one before.

    Args:
        recorder: of the program.
        run_id: the run.
        name: in every event, with a number.
        counts: gets the acknowledged writes of each run.
        is_over: when it stops.
    """
    version, number = 1, 0
    while not is_over.is_set():
        event = RunEvent(type=RunEventType.LOG, run_id=run_id, data=f"{name}-{number}")
        expected = version if number % 3 == 0 else None
        with contextlib.suppress(MurmurError):
            version = await recorder.append(run_id, event, expected_version=expected)
            counts[run_id] += 1
        number += 1
        await asyncio.sleep(0.003)


async def read(recorder: Recorder, run_id: str) -> int:
    """Read to the end, after a reset from where the error says; returns how many resets it met."""
    after, resets = None, 0
    while True:
        try:
            await recorder.read(run_id, after)
        except CursorError as error:
            after = error.resume_cursor
            resets += 1
        else:
            return resets


def one_run_in_each(keys: Keys) -> list[str]:
    """Ids of new runs, one in each partition, by the partition's number."""
    found: dict[int, str] = {}
    while len(found) < keys.partitions:
        run_id = new_run_id()
        found.setdefault(keys.partition(run_id), run_id)
    return [found[partition] for partition in keys.all_partitions]
