"""The clock of the stores where no other is given, and the wait before a further try."""

from __future__ import annotations

import asyncio
import random
import time

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 2.0
_MOST_DOUBLINGS = 10


def wall_clock_ms() -> int:
    """Milliseconds of Unix time."""
    return time.time_ns() // 1_000_000


def retry_pause_seconds(attempt: int) -> float:
    """How long to wait after so many failures, counted from 0; two seconds at the longest.

    The pause is longer each time, and random, so that not all callers try again at once.
    """
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(attempt, _MOST_DOUBLINGS))
    return pause * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, no secret


async def pause_before_retry(attempt: int) -> None:
    """Wait for ``retry_pause_seconds``."""
    await asyncio.sleep(retry_pause_seconds(attempt))
