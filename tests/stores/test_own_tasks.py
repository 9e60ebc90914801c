"""Tasks that callers share do not report errors that no caller waits for any more."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from murmur_streams.stores.own_tasks import start_shared_task


async def test_an_error_without_a_caller_is_not_logged() -> None:
    """The only caller was cancelled; the task fails after that."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    may_fail = asyncio.Event()

    async def fail() -> None:
        await may_fail.wait()
        raise ConnectionError("the server is gone")

    task = start_shared_task(fail(), "shared")
    caller = asyncio.ensure_future(asyncio.shield(task))
    await asyncio.sleep(0)
    caller.cancel()
    may_fail.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.wait([task])
    del task, caller
    gc.collect()
    await asyncio.sleep(0)
    assert heard == []


async def test_a_caller_gets_the_error() -> None:
    """A caller that still waits has it raised."""

    async def fail() -> None:
        raise ConnectionError("the server is gone")

    with pytest.raises(ConnectionError, match="gone"):
        await asyncio.shield(start_shared_task(fail(), "shared"))
