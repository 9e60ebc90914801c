"""RunContext: what an agent can tell of its run while it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any

from pydantic import JsonValue

from murmur_streams.core.errors import (
    LeaseLostError,
    RunDamagedError,
    StoreError,
)
from murmur_streams.core.events import RunEvent, RunEventType
from murmur_streams.core.states import RunProgress
from murmur_streams.stores.redis.queue import Claim
from murmur_streams.stores.redis.store import RedisRunStore

LEVELS = ("debug", "info", "warning", "error")


class RunContext:
    """One execution of one run, in the hands of its agent.

    Every method writes with the execution's fencing token: once another worker has taken the run
    over, it raises LeaseLostError and nothing is written. In an ``async def`` agent, await the
    methods to know that the write is in the journal; un-awaited writes are done in order before
    the run ends, and fail it when one fails. In a ``def`` agent they block until it is.
    """

    def __init__(
        self, store: RedisRunStore, claim: Claim, worker: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.run_id = claim.run_id
        self.agent = claim.target
        self.attempt = claim.attempt
        """1 for the first execution, more after a take-over."""
        self.worker = worker
        self._store = store
        self._claim = claim
        self._loop = loop
        self._unfinished: set[asyncio.Task[None]] = set()
        self._awaited: set[asyncio.Task[None]] = set()
        self._unheard: dict[asyncio.Task[None], BaseException] = {}
        self._store_failed = False

    @property
    def store_failed(self) -> bool:
        """True when a write gave up on the server; what the agent makes of that is no verdict."""
        return self._store_failed

    def emit(self, name: str, data: JsonValue = None) -> Awaitable[None]:
        """Tell subscribers something of the application's own.

        Args:
            name: what it is.
            data: any JSON value, to 256 KiB with its event.
        """
        return self._write(RunEventType.CUSTOM, name, data)

    def output(self, delta: JsonValue) -> Awaitable[None]:
        """Stream a piece of the output; the whole is what the agent returns."""
        return self._write(RunEventType.AGENT_OUTPUT, None, delta)

    def log(self, message: str, level: str = "info", **fields: JsonValue) -> Awaitable[None]:
        """Write a line for people into the run's journal; ``level`` is one of LEVELS."""
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}, but must be one of {', '.join(LEVELS)}")
        return self._write(RunEventType.LOG, level, {"message": message, **fields})

    def progress(
        self, *, total: int = 0, completed: int = 0, failed: int = 0, running: int = 0
    ) -> Awaitable[None]:
        """Replace the run's counters; a poll sees them at once."""
        progress = RunProgress(total=total, completed=completed, failed=failed, running=running)
        token = self._claim.token
        return self._perform(
            partial(self._store.update_progress, self.run_id, progress, claim=token)
        )

    async def settle(self) -> None:
        """Wait for the writes that were not awaited, whatever becomes of them."""
        while self._unfinished:
            await asyncio.wait(self._unfinished)

    async def flush(self) -> None:
        """Wait for the writes that were not awaited; raise the first failure among them."""
        await self.settle()
        for error in self._unheard.values():
            raise error

    def _write(
        self, event_type: RunEventType, name: str | None, data: JsonValue
    ) -> Awaitable[None]:
        event = RunEvent(
            type=event_type, run_id=self.run_id, agent=self.agent, name=name, data=data
        )
        return self._perform(
            partial(self._store.append, self.run_id, event, claim=self._claim.token)
        )

    def _perform(self, write: Callable[[], Awaitable[object]]) -> Awaitable[None]:
        written = self._written(write)
        if _running_loop() is not self._loop:
            self._block_on(written)
            return _Done()
        task = self._loop.create_task(written)
        self._unfinished.add(task)
        task.add_done_callback(self._finished)
        return _UnderWay(task, self._hear)

    async def _written(self, write: Callable[[], Awaitable[object]]) -> None:
        try:
            await write()
        except Exception as error:
            self._store_failed = self._store_failed or is_the_stores(error)
            raise

    def _block_on(self, written: Coroutine[Any, Any, None]) -> None:
        try:
            future = asyncio.run_coroutine_threadsafe(written, self._loop)
        except RuntimeError:
            # The loop is closed: the worker has stopped and handed the run back.
            written.close()
            raise LeaseLostError(self.run_id) from None
        future.result()

    def _hear(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            self._awaited.add(task)
        self._unheard.pop(task, None)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._unfinished.discard(task)
        heard = task in self._awaited
        self._awaited.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not heard:
            self._unheard[task] = error


class _UnderWay:
    """What an ``async def`` agent gets: who awaits it hears of a failure, and may live with it."""

    def __init__(
        self, task: asyncio.Task[None], hear: Callable[[asyncio.Task[None]], None]
    ) -> None:
        self._task = task
        self._hear = hear

    def __await__(self) -> Generator[Any, None, None]:
        self._hear(self._task)
        return self._task.__await__()


class _Done:
    """What a ``def`` agent gets: the write is done, and awaiting it is harmless."""

    def __await__(self) -> Generator[None]:
        return
        yield


def is_the_stores(error: BaseException) -> bool:
    """Whether a write failed for a reason of the server's: it says nothing of the run."""
    return isinstance(error, StoreError) and not isinstance(error, RunDamagedError)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
