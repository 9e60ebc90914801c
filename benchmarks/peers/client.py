"""The caller of an engine: ``python -m benchmarks.peers.client MODULE`` takes orders.

The address of an order is the server's URL.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import sys
import time
from importlib import import_module
from itertools import count as counted
from itertools import islice
from typing import Any

from benchmarks.harness.meter import Meter
from benchmarks.harness.program import Order, serve
from benchmarks.harness.results import Reading
from benchmarks.peers.engine import DONE, TOGETHER, Engine
from benchmarks.programs.reading import latencies

SUBMITTERS = 100
WARM_UP = 3
START_SECONDS = 60.0
JOBS_SECONDS = 120.0
LOOK_SECONDS = 0.01
SETTLING_SECONDS = 0.5
ASK_SECONDS = 10.0
FEWEST_ASKS = 20
_hundreds = counted(1)
"""Each hundred jobs of the worker since it began."""


async def jobs(meter: Meter, engine: Engine, count: int) -> list[Reading]:
    """No-op jobs, submitted by many tasks, until so many have been executed."""
    await _warm(engine)
    # The connections of all submitters exist before the clock starts.
    await _executed(meter, engine, 2 * SUBMITTERS)
    await asyncio.sleep(SETTLING_SECONDS)
    gc.collect()
    began = meter.mark()
    await _executed(meter, engine, count)
    value = (count - TOGETHER) / (time.perf_counter() - began.wall)
    # Results and acknowledgements of the last jobs belong to the cost.
    await asyncio.sleep(SETTLING_SECONDS)
    return [dataclasses.replace(meter.since(began, "noops", count), value=value)]


async def ask(engine: Engine, count: int) -> list[Reading]:
    """Jobs one at a time: until the job begins, and until the caller has its result.

    An engine that looks for jobs twice a second is asked less often, not for minutes.
    """
    await _warm(engine)
    starts, results = list[float](), list[float]()
    over = time.time() + ASK_SECONDS
    for number in range(count):
        if number >= FEWEST_ASKS and time.time() > over:
            break
        began = time.time()
        started = await engine.ask()
        results.append((time.time() - began) * 1000)
        starts.append((started - began) * 1000)
    found = [*latencies("start", starts)[:2], *latencies("result", results)[:2]]
    if engine.cancel is not None:
        cancels = [await engine.cancel() for _ in range(count)]
        found += latencies("cancel", cancels)[:1]
    return found


async def _executed(meter: Meter, engine: Engine, count: int) -> None:
    """Submit jobs, and wait until the worker has executed all but a hundred of those so far.

    An engine may hold the last job back: pydocket sometimes leaves one to its redelivery.
    """

    async def submitter() -> None:
        for _ in range(count // SUBMITTERS):
            await engine.submit()

    last = next(islice(_hundreds, count // TOGETHER - 1, None)) - 1
    async with asyncio.timeout(JOBS_SECONDS):
        await asyncio.gather(*(submitter() for _ in range(SUBMITTERS)))
        while not meter.clear(DONE, last):  # noqa: ASYNC110  # the worker is another process
            await asyncio.sleep(LOOK_SECONDS)


async def _warm(engine: Engine) -> None:
    async with asyncio.timeout(START_SECONDS):
        for _ in range(WARM_UP):
            await engine.ask()


async def _do(module: Any, order: Order) -> list[Reading]:
    meter = Meter(order.address)
    try:
        async with module.client(order.address) as engine:
            if order.work == "jobs":
                return await jobs(meter, engine, **order.arguments)
            return await ask(engine, **order.arguments)
    finally:
        meter.close()


if __name__ == "__main__":
    app = import_module(sys.argv[1])
    serve(lambda order: _do(app, order))
