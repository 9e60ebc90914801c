"""Warns when no live worker serves the target of a submission, without delaying the submission."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from murmur_streams.stores.own_tasks import start_task
from murmur_streams.stores.work_store import WorkStore

logger = logging.getLogger("murmur_streams.fleet")

EVERY_SECONDS = 60.0
"""A process looks for workers of one target at most once in this time."""
LOOK_SECONDS = 5.0
"""The limit of one look."""
SECOND_LOOK_SECONDS = 0.1
"""A worker that this program has just started gets this time to register."""
MOST_TARGETS = 1_000
"""How many targets are remembered: a fleet without agents submits to any name."""


def unserved_warning(target: str) -> str:
    """The warning for the submitter of a run."""
    return (
        f"no live worker serves {target!r}: its runs wait until one does; start one with "
        "`murmur-streams worker`, or compare the name with those in `murmur-streams workers`"
    )


class UnservedTargets:
    """Looks for workers of the targets that a fleet submits to, and logs when it finds none."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._looked: dict[str, float] = {}
        self._looks: set[asyncio.Task[str | None]] = set()

    def look(self, store: WorkStore, target: str) -> asyncio.Task[str | None] | None:
        """Begin to look for a worker; None when that was done within the last minute.

        The task returns a warning, or None when a worker exists or the store did not reply. It
        raises nothing.
        """
        now = self._now()
        last = self._looked.get(target)
        if last is not None and now - last < EVERY_SECONDS:
            return None
        if len(self._looked) >= MOST_TARGETS:
            self._looked.clear()
        self._looked[target] = now
        task = start_task(_warn(store, target), "look for a worker")
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        return task

    async def settle(self) -> None:
        """Wait for the looks of the running loop, so that a short program gets its warning."""
        here = asyncio.get_running_loop()
        looks = [task for task in self._looks if task.get_loop() is here]
        if looks:
            await asyncio.wait(looks)


async def _warn(store: WorkStore, target: str) -> str | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            if await _is_served(store, target):
                return None
            await asyncio.sleep(SECOND_LOOK_SECONDS)
            if await _is_served(store, target):
                return None
    except Exception as error:  # noqa: BLE001  # the run is submitted, and the look must not fail that
        logger.debug("no look for workers of %s: %r", target, error)
        return None
    warning = unserved_warning(target)
    logger.warning("%s", warning)
    return warning


async def _is_served(store: WorkStore, target: str) -> bool:
    workers = await store.workers().list()
    return any(target in each.targets and each.state != "draining" for each in workers)
