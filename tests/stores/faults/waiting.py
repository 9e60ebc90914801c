"""Waiting for a condition, never for a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

LONGEST_SECONDS = 30.0


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]], why: str, seconds: float = LONGEST_SECONDS
) -> None:
    """Return as soon as the condition holds; fail with ``why`` when it never does."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        assert loop.time() < deadline, f"waited {seconds:g} s in vain: {why}"
        await asyncio.sleep(0.005)
