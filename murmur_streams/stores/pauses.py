"""Waiting before a further try: longer each time, and never all at once."""

from __future__ import annotations

import asyncio
import random

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 2.0
_MOST_DOUBLINGS = 10


async def pause_before_retry(attempt: int) -> None:
    """Wait after so many failures, counted from 0; two seconds at the longest."""
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(attempt, _MOST_DOUBLINGS))
    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, no secret
