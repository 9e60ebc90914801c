"""Many runs in one worker process: does it grow, and does the server retain anything of them?

Only on demand: ``--only soak``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import psutil

from benchmarks.harness.program import Order, Program, process_of
from benchmarks.harness.results import Reading
from benchmarks.harness.servers import driver
from benchmarks.harness.session import Session, Step, Subject
from benchmarks.peers.engine import URL
from benchmarks.peers.ours_app import PREFIX
from benchmarks.suites.jobs import CLIENT, OWN_APP, WORKER
from murmur_streams import RedisRunStore

TTL_SECONDS = 5
MIB = 1024 * 1024
BATCHES = 25


async def soak(session: Session) -> None:
    """A warm-up and then many batches of no-op runs, which expire soon after; then a sweep."""
    steps = [Step(each.name, _SoakRound(session, each).measure) for each in session.ours]
    await session.interleave("soak", steps, is_once=True)


class _SoakRound:
    """One worker and one caller."""

    def __init__(self, session: Session, subject: Subject) -> None:
        self._session = session
        self._subject = subject

    async def measure(self, _is_warm_up: bool) -> list[Reading]:
        """Execute the batches, and look at what is left."""
        url, count = self._session.url, self._session.sizes.jobs
        folder, path = self._subject.folder, self._subject.path
        environment = {URL: url, "MURMUR_TTL_SECONDS": str(TTL_SECONDS)}
        worker = (sys.executable, "-m", WORKER, OWN_APP, url)
        client = (sys.executable, "-m", CLIENT, OWN_APP)
        order = Order("jobs", "redis", url, {"count": count})
        async with (
            process_of(
                *worker, folder=folder, path=path, is_silent=True, environment=environment
            ) as process,
            process_of(*client, folder=folder, path=path, environment=environment) as caller,
        ):
            program, watched = Program("soak", caller), psutil.Process(process.pid)
            await program.do(order)
            before, began = watched.memory_info().rss, time.perf_counter()
            for number in range(BATCHES):
                await program.do(order)
                grown = (watched.memory_info().rss - before) / MIB
                self._session.show(f"soak: batch {number + 1} of {BATCHES}: {grown:+.1f} MiB")
            seconds, after = time.perf_counter() - began, watched.memory_info().rss
            await asyncio.sleep(TTL_SECONDS + 1)
            async with RedisRunStore(url, key_prefix=PREFIX) as store:
                while await store.sweep():
                    pass
            async with driver(url) as admin:
                left = await _left(admin)
        return [
            Reading("soak_rate", BATCHES * count / seconds),
            Reading("soak_mib", (after - before) / MIB),
            Reading("soak_keys", len(left)),
            Reading("soak_bytes", sum(left.values())),
        ]


async def _left(admin: Any) -> dict[str, int]:
    left: dict[str, int] = {}
    async for key in admin.scan_iter(match=f"{PREFIX}:*", count=1000):
        left[key.decode()] = int(await admin.memory_usage(key) or 0)
    return left
