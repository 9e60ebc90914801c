"""A second process on a file: ``python -m tests.stores.sqlite.sharing_process PATH WHAT ...``."""

from __future__ import annotations

import asyncio
import sys

from murmur_streams import RunState, SQLiteRunStore, WrongExpectedVersionError
from murmur_streams.testing.workbench import note


async def count_up(store: SQLiteRunStore, run_id: str, times: int, first: int) -> None:
    """Append numbers, each only on the version that was read before it."""
    for number in range(first, first + times):
        while True:
            version = (await store.snapshot(run_id)).version
            try:
                await store.append(run_id, note(run_id, number), expected_version=version)
                break
            except WrongExpectedVersionError:
                continue


async def append(store: SQLiteRunStore, run_id: str, times: int, first: int) -> None:
    await asyncio.gather(
        *(store.append(run_id, note(run_id, each)) for each in range(first, first + times))
    )


async def main(path: str, what: str, run_id: str, times: str = "0", first: str = "0") -> None:
    async with SQLiteRunStore(path) as store:
        if what == "count":
            await count_up(store, run_id, int(times), int(first))
        elif what == "append":
            await append(store, run_id, int(times), int(first))
        elif what == "finish":
            await append(store, run_id, int(times), int(first))
            await store.finish(run_id, RunState.COMPLETED)
        elif what == "delete":
            await store.delete(run_id, force=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
