"""A worker's process, as an application would write one: ``python -m tests.fleet.worker_process``.

Its argument is JSON: ``worker`` for Worker, ``die_at`` for a moment at which the process ends as by
SIGKILL, once, and ``idle_seconds``. It prints when it works, and when it gets the signal to stop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any

from murmur_streams.fleet.execution import end_writes, endings, execution
from murmur_streams.fleet.worker import Worker
from murmur_streams.fleet.worker import worker as worker_module
from murmur_streams.stores.local.engine.work import LocalQueue
from murmur_streams.stores.redis.queue import Queue
from tests.fleet.app import fleet

KILLED = 9


def die_at(moment: str) -> None:
    """Make the process end at a certain call of the worker's own code."""

    async def dies(*_: Any, **__: Any) -> end_writes.ExecutionOutcome:
        os._exit(KILLED)

    def dies_at_once(self: execution.Execution) -> Any:
        del self
        os._exit(KILLED)

    if moment == "claimed":
        execution.Execution.start = dies_at_once
    elif moment == "finishing":
        endings.Endings._end = dies
    elif moment == "finished":
        end = endings.Endings._end

        async def dies_after(*given: Any, **named: Any) -> end_writes.ExecutionOutcome:
            await end(*given, **named)
            os._exit(KILLED)

        endings.Endings._end = dies_after


def print_when_ready() -> None:
    """Print a line when the worker looks for its first run."""
    for queue in (Queue, LocalQueue):
        print_when_prepared(queue)


def print_when_prepared(queue: Any) -> None:
    """The same of one kind of queue."""
    prepare = queue.prepare

    async def prepared(self: Any, targets: Any) -> None:
        await prepare(self, targets)
        print("ready", flush=True)  # noqa: T201  # the test reads it

    queue.prepare = prepared


async def main() -> None:
    """Work until a signal comes."""
    options = json.loads(sys.argv[1])
    die_at(options["die_at"])
    print_when_ready()
    worker_module.IDLE_SECONDS = options["idle_seconds"]
    worker = Worker(fleet, **options["worker"])

    def stop() -> None:
        worker.stop()
        print("stopping", flush=True)  # noqa: T201  # the test reads it

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with fleet:
        await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main())
