"""Waits for one of two coroutines, and ends tasks."""

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
    """Wait until one of two coroutines has ended, or for ``seconds``; then cancel the rest."""
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
    """Cancel tasks and wait for their ends, ``seconds`` at most."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
