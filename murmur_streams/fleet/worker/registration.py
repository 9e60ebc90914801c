"""Tells the fleet that this worker lives, and what it executes."""

from __future__ import annotations

import asyncio
import logging
import platform
import random
from collections.abc import Callable

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.core.model.work import WorkerInfo
from murmur_streams.stores.work_store import WorkerList

logger = logging.getLogger("murmur_streams.worker")

PYTHON = platform.python_version()


async def keep_registered(
    workers: WorkerList,
    tell: Callable[[], WorkerInfo],
    seconds: float,
    changed: asyncio.Event,
    told: Callable[[], None],
) -> None:
    """Say so every few seconds until cancelled, and at once when something has changed.

    Args:
        workers: where.
        tell: what to say.
        seconds: how often; four times as long without a word, and it counts as gone.
        changed: set when it should not wait.
        told: called each time that the server has taken it.
    """
    while True:
        changed.clear()
        try:
            await workers.beat(tell())
            told()
        except MurmurError as error:
            # Nothing but the list of workers depends on it.
            logger.debug("the worker is not registered: %s", error)
        try:
            async with asyncio.timeout(seconds * random.uniform(0.8, 1.0)):  # noqa: S311  # jitter
                await changed.wait()
        except TimeoutError:
            continue


async def unregister(workers: WorkerList, worker: str, seconds: float) -> None:
    """Leave the list, if the server answers in that time; else the entry expires."""
    try:
        async with asyncio.timeout(seconds):
            await workers.remove(worker)
    except (MurmurError, TimeoutError) as error:
        logger.debug("the worker stays listed for a while: %r", error)
