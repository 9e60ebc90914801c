"""Waiting for one of two things, and ending tasks: what the worker's loops are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any


async def first_of(
    one: Coroutine[Any, Any, object],
    other: Coroutine[Any, Any, object],
    *,
    seconds: float | None = None,
) -> None:
    """Wait until one of two has ended, or for so long; the other is cancelled."""
    tasks = [asyncio.create_task(each) for each in (one, other)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def end_tasks(tasks: Sequence[asyncio.Task[Any]], seconds: float) -> None:
    """Cancel tasks and wait for their ends, so long at most."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
