"""Many runs at once: a process that follows them all loses nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from murmur_streams.stores.redis.live import Live
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

RUNS = 5_000
EVENTS_A_RUN = 2
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

url, prefix, *numbers = sys.argv[1:]
asyncio.run(main(url, prefix, *map(int, numbers)))
"""


@pytest.mark.slow
async def test_five_thousand_followed_runs_at_two_thousand_events_a_second_lose_nothing(
    space: Space,
) -> None:
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
        numbers = [str(number) for number in (RUNS, EVENTS_A_RUN, 2_000)]
        writer = await asyncio.to_thread(subprocess.Popen[bytes], [*command, *numbers])
        assert await asyncio.to_thread(writer.wait) == 0
        wanted = RUNS * EVENTS_A_RUN
        await wait_until(lambda: sum(map(len, seen.values())) >= wanted, "all is seen", 60)
        live: Live = store._tails._live[0]
        assert type(live._source).__name__ == "FeedSource"
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    assert all(each == list(range(EVENTS_A_RUN)) for each in seen.values())
