"""Many runs in one worker process: does it grow, and does the server retain anything of them?"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.fleet import PREFIX, run_noops, worker_process
from murmur_streams import Fleet

BATCH = 5_000
WARM_UP = 5_000
TTL_SECONDS = 5
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Soak:
    """The memory of a worker process of concurrency 100 after many no-op runs."""

    runs: int
    seconds: float
    before_mib: float
    """Resident memory after a warm-up."""
    after_mib: float
    keys: dict[str, int]
    """The size of each key that is left on the server after the runs' expiry and a sweep."""


async def soak(url: str, admin: Any, runs: int) -> Soak:
    """Run a warm-up, then ``runs`` no-op runs that expire soon after; then sweep."""
    async with (
        Fleet(url, key_prefix=PREFIX, ttl_seconds=TTL_SECONDS) as fleet,
        worker_process(url, ttl_seconds=TTL_SECONDS) as process,
    ):
        worker = psutil.Process(process.pid)
        await run_noops(fleet, WARM_UP)
        before, began = worker.memory_info().rss, time.perf_counter()
        for done in range(0, runs, BATCH):
            await run_noops(fleet, min(BATCH, runs - done))
            print(
                f"  {done + BATCH:,} runs, {(worker.memory_info().rss - before) / MIB:+.1f} MiB",
                flush=True,
            )
        seconds, after = time.perf_counter() - began, worker.memory_info().rss
        await asyncio.sleep(TTL_SECONDS + 1)
        store = await fleet.store()
        while await store.sweep():
            pass
    return Soak(runs, seconds, before / MIB, after / MIB, await _left(admin))


async def _left(admin: Any) -> dict[str, int]:
    left: dict[str, int] = {}
    async for key in admin.scan_iter(match=f"{PREFIX}:*", count=1000):
        left[key.decode()] = int(await admin.memory_usage(key) or 0)
    return left


def show(found: Soak) -> None:
    """Print what was found."""
    rate = found.runs / found.seconds
    print(
        f"{found.runs:,} no-op runs in {found.seconds:.0f} s, {rate:,.0f} /s; "
        f"the worker's memory {found.before_mib:.1f} -> {found.after_mib:.1f} MiB "
        f"({found.after_mib - found.before_mib:+.1f})"
    )
    print("left on the server after expiry and a sweep:")
    for key, size in sorted(found.keys.items()):
        print(f"  {key}: {size:,} bytes")
