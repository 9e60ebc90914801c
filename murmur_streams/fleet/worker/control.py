"""Listens for what concerns the runs that this worker holds: a cancel takes milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from murmur_streams.core.model.errors import StoreClosedError, StoreError
from murmur_streams.core.model.work import ControlMessage
from murmur_streams.fleet.log_throttle import Trouble
from murmur_streams.stores.work_store import WorkQueue

BLOCK_SECONDS = 20.0
"""How long one read waits: nothing depends on it, an idle worker sends that many fewer commands."""
FROM_THE_START = ""


async def listen(
    queue: WorkQueue, worker: str, told: Callable[[ControlMessage], None], trouble: Trouble
) -> None:
    """Pass messages on, until cancelled.

    After an error it goes on from where it was. What is lost meanwhile is told by the heartbeat:
    late, but never lost.

    Args:
        queue: the queue.
        worker: whose messages.
        told: called with each.
        trouble: logs reads that fail.
    """
    clock = asyncio.get_running_loop().time
    after, failures = FROM_THE_START, 0
    while True:
        began, messages = clock(), list[ControlMessage]()
        try:
            messages, after = await queue.control(worker, after, BLOCK_SECONDS)
            trouble.over()
        except StoreClosedError:
            return
        except StoreError as error:
            trouble.tell(error)
        for message in messages:
            told(message)
        if messages or clock() - began >= BLOCK_SECONDS / 2:
            failures = 0
        else:
            # An early answer without a message is a broken connection's.
            await queue.recover(failures)
            failures += 1
