"""Many runs at once: a process that follows them all loses nothing.

The rate that the machine reached is printed (``pytest -s``, and a property of the junit report),
and never decides: a slow machine writes slower, and must lose nothing either.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from murmur_streams.stores.redis.live.hub import Live
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

RUNS = 5_000
EVENTS_A_RUN = 2
EVENTS_A_SECOND = 2_000
"""The most that the writer appends."""
WRITER = """
import asyncio, sys, time
from murmur_streams import RedisRunStore, RunEvent, RunEventType

async def main(url, prefix, runs, events, rate):
    async with RedisRunStore(url, key_prefix=prefix) as store:
        began, written = time.monotonic(), 0
        for number in range(events):
            for first in range(0, runs, 100):
                await asyncio.gather(*(
                    store.append(f"run-{n}", RunEvent(
                        type=RunEventType.CUSTOM, run_id=f"run-{n}", data=number))
                    for n in range(first, first + 100)))
                written += 100
                await asyncio.sleep(max(0, began + written / rate - time.monotonic()))
        print(written, time.monotonic() - began)

url, prefix, *numbers = sys.argv[1:]
asyncio.run(main(url, prefix, *map(int, numbers)))
"""


@pytest.mark.slow
async def test_5000_followed_runs_lose_no_event(
    space: Space, record_property: Callable[[str, object], None]
) -> None:
    """The writers append two thousand events a second."""
    ids = [f"run-{number}" for number in range(RUNS)]
    seen: dict[str, list[object]] = {run_id: [] for run_id in ids}
    async with space.store() as store:
        for first in range(0, RUNS, 500):
            await asyncio.gather(
                *(store.create(run_id, "t") for run_id in ids[first : first + 500])
            )

        async def follow(run_id: str) -> None:
            async for event in store.stream(run_id):
                seen[run_id].append(event.data)

        readers = [asyncio.create_task(follow(run_id)) for run_id in ids]
        await wait_until(lambda: store._tails.followers == RUNS, "all runs are followed", 60)
        command = [sys.executable, "-c", WRITER, space.url, space.prefix]
        numbers = [str(number) for number in (RUNS, EVENTS_A_RUN, EVENTS_A_SECOND)]
        began = time.monotonic()
        writer = await asyncio.to_thread(
            subprocess.run, [*command, *numbers], check=True, capture_output=True, text=True
        )
        written, writing_seconds = (float(part) for part in writer.stdout.split())
        wanted = RUNS * EVENTS_A_RUN
        assert written == wanted
        await wait_until(lambda: sum(map(len, seen.values())) >= wanted, "all is seen", 60)
        report = {
            "followed runs": store._tails.followers,
            "events": sum(map(len, seen.values())),
            "written a second": round(written / writing_seconds),
            "delivered a second, the writer's start included": round(
                wanted / (time.monotonic() - began)
            ),
        }
        live: Live = store._tails._live[0]
        assert type(live._source).__name__ == "FeedSource"
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    line = ", ".join(f"{name} {value}" for name, value in report.items())
    print("load:", line)  # noqa: T201  # the rate, for a run with -s
    for name, value in report.items():
        record_property(name, value)
    # Every run's events, each once and in order: a repeat or a hole would show here.
    assert seen == {run_id: list(range(EVENTS_A_RUN)) for run_id in ids}
