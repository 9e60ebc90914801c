"""How a worker process ends, even when its agents left tasks or threads running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time

logger = logging.getLogger("murmur_streams.worker")

CANCEL_SECONDS = 1.0
"""How long cancelled tasks may take to end."""
END_SECONDS = 5.0
"""How long the interpreter may take to end: it waits for ever for threads that are not daemons."""


async def cancel_leftovers() -> int:
    """Cancel every other task of this loop; returns how many did not end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if not others:
        return 0
    _, left = await asyncio.wait(others, timeout=CANCEL_SECONDS)
    return len(left)


def end_soon(code: int) -> None:
    """End the process by force if it has not ended by itself within END_SECONDS."""

    def last_resort() -> None:
        time.sleep(END_SECONDS)
        logger.warning("threads of agents hold the process up; it ends without them")
        end_now(code)

    threading.Thread(target=last_resort, name="last resort", daemon=True).start()


def end_now(code: int) -> None:
    """Flush logs and output, and end without waiting for tasks or threads."""
    logging.shutdown()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
