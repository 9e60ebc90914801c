"""A process that writes to a store until it is killed, and prints each write once it returned.

``python -m tests.stores.local.acknowledging KIND FOLDER LIFE``: a line for each write, ``<run id>
<what> <number>``, in the order in which they returned.
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

from murmur_streams import RunEvent, RunEventType, RunProgress, RunState, RunStore
from tests.stores.local.stores import opener

TASKS = 8
EVENTS = 12
"""So many events a run has before it ends."""


def acknowledge(run_id: str, what: str, number: int) -> None:
    os.write(1, f"{run_id} {what} {number}\n".encode())


async def write(store: RunStore, name: str) -> None:
    """Live one run after the other."""
    for life in count():
        run_id = f"{name}-{life}"
        await store.create(run_id, "writer", input={"life": life})
        acknowledge(run_id, "created", 0)
        for number in range(EVENTS):
            event = RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name="n", data=number)
            await store.append(run_id, event)
            acknowledge(run_id, "event", number)
            await store.update_progress(run_id, RunProgress(total=EVENTS, completed=number))
        await store.finish(run_id, RunState.COMPLETED)
        acknowledge(run_id, "finished", 0)


async def main(kind: str, folder: str, name: str) -> None:
    async with opener(kind, Path(folder))() as store:
        acknowledge("-", "open", 0)
        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                group.create_task(write(store, f"{name}-{task}"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
