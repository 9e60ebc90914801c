"""A worker logs that its event loop was blocked for longer than its lease."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import cast

import pytest

from murmur_streams.core.model.work import Beat
from murmur_streams.fleet.logs import LogThrottle
from murmur_streams.fleet.worker.loops import WorkerLoops
from murmur_streams.stores.redis.queue import Queue

WARNING = (
    r"the event loop was blocked for (\d+\.\d) s, longer than the lease of {} s: "
    "put blocking work into a def agent"
)


async def beaten(lease_seconds: float, blocked_seconds: float) -> None:
    """Wait for one heartbeat, with the loop blocked meanwhile."""
    came = asyncio.Event()

    def held() -> list[Beat]:
        came.set()
        return []

    queue = cast("Queue", None)
    logger = logging.getLogger("heartbeats")
    loops = WorkerLoops(queue, "worker", (), lease_seconds, lambda what: LogThrottle(logger, what))
    task = asyncio.create_task(loops.heartbeats(0.001, held, print))
    await asyncio.sleep(0)
    time.sleep(blocked_seconds)  # noqa: ASYNC251  # the mistake that is reported
    await came.wait()
    task.cancel()


@pytest.mark.fault("F27")
async def test_a_heartbeat_later_than_the_lease_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The line has the time for which the loop was blocked."""
    await beaten(0.1, blocked_seconds=0.5)
    [line] = [each.getMessage() for each in caplog.records if "blocked" in each.getMessage()]
    seconds = re.fullmatch(WARNING.format(0.1), line)
    assert seconds is not None, line
    assert float(seconds[1]) >= 0.4


async def test_a_heartbeat_that_is_a_little_late_is_not(caplog: pytest.LogCaptureFixture) -> None:
    """A short delay is normal."""
    await beaten(3600, blocked_seconds=0.05)
    assert "blocked" not in caplog.text
