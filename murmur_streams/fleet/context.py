"""RunContext: how an agent reports events, progress and checkpoints of its run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any

from pydantic import JsonValue

from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model import errors
from murmur_streams.core.model.entries import new_event_fields
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import check_progress
from murmur_streams.core.model.run import moment_of
from murmur_streams.core.model.states import RunProgress
from murmur_streams.core.model.work import Claim
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.threads import running_loop

_REFUSAL_SECONDS = 0.05
LEVELS = ("debug", "info", "warning", "error")


class RunContext:
    """One execution of one run, as its agent sees it.

    Every method writes with the execution's fencing token: once the run was taken back from this
    worker, it raises LeaseLostError and nothing is written. In an ``async def`` agent, await a
    method to know that the write is in the journal. Writes that are not awaited are done in order
    before the run ends, and the run fails when one of them fails. In a ``def`` agent each call
    blocks until the write is in the journal.

    Each method copies its value at the call, also when it is not awaited: a later change of a list
    does not change what is written. A value that is not JSON, or too large, raises
    InvalidInputError at the call, and nothing is written.
    """

    def __init__(
        self, store: WorkStore, claim: Claim, worker: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.run_id = claim.run_id
        self.agent = claim.target
        self.attempt = claim.attempt
        """Which execution of the run this is, from 1. Retries, take-overs and executions that ended
        with a stopped worker all count."""
        self.worker = worker
        self.trace: Mapping[str, str] = MappingProxyType(dict(claim.trace))
        """``traceparent`` and ``tracestate`` of the run's submission; empty without."""
        self._store = store
        self._claim = claim
        self._loop = loop
        self.unfinished: set[asyncio.Task[None]] = set()
        """The writes under way."""
        self._awaited: set[asyncio.Task[None]] = set()
        self._unheard: dict[asyncio.Task[None], BaseException] = {}
        self.store_failed = False
        """True when a write failed because of the server: then no error of the agent counts."""
        self.claim_lost = False
        """True when a write was rejected because the claim is over or the run was deleted."""
        self._is_cancelled = False
        self._is_over = False
        self._checkpoint_json = claim.checkpoint_json

    @property
    def cancelled(self) -> bool:
        """True once this execution must end.

        Its run is cancelled, its time is over, its claim is lost, or its worker stops. A ``def``
        agent has to look here; an ``async def`` agent gets asyncio's cancellation. From then on
        the agent has its grace time.
        """
        return self._is_cancelled

    @property
    def deadline(self) -> datetime | None:
        """The time in UTC by which the whole run must have ended; None for no deadline."""
        return moment_of(self._claim.deadline_ms)

    @property
    def last_checkpoint(self) -> JsonValue:
        """The value of the run's last checkpoint, by this or an earlier attempt; None without one.

        Each access returns a new copy, which the agent may change.
        """
        text = self._checkpoint_json
        return None if text is None else decode_json(text)

    def emit(self, name: str, data: JsonValue = None) -> PendingWrite:
        """Write an event of the application's own.

        Args:
            name: the kind of event.
            data: any JSON value, up to 256 KiB with its event.
        """
        return self._write(RunEventType.CUSTOM, name, data)

    def output(self, delta: JsonValue) -> PendingWrite:
        """Stream a piece of the output; the agent returns the whole."""
        return self._write(RunEventType.AGENT_OUTPUT, None, delta)

    def log(self, message: str, level: str = "info", **fields: JsonValue) -> PendingWrite:
        """Write a line for people into the run's journal; ``level`` is one of LEVELS."""
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}, but must be one of {', '.join(LEVELS)}")
        return self._write(RunEventType.LOG, level, {"message": message, **fields})

    def progress(
        self, *, total: int = 0, completed: int = 0, failed: int = 0, running: int = 0
    ) -> PendingWrite:
        """Replace the run's counters; a poll sees them at once."""
        progress = check_progress(
            RunProgress(total=total, completed=completed, failed=failed, running=running)
        )
        token = self._claim.token
        return self._perform(
            partial(self._store.update_progress, self.run_id, progress, claim=token)
        )

    def checkpoint(self, value: JsonValue) -> PendingWrite:
        """Store a value for the next attempt; it replaces the one before.

        Args:
            value: any JSON value, up to the limit of a result.
        """
        payload = self._store.limits.checkpoint(encode_json(value, "the checkpoint"))

        async def keep() -> None:
            await self._store.checkpoint_encoded(self.run_id, payload, self._claim.token)
            self._checkpoint_json = payload.text

        return self._perform(keep)

    def cancel(self) -> None:
        """Set ``cancelled``; called by the worker."""
        self._is_cancelled = True

    def end(self) -> None:
        """Reject every further write: the execution is over, although its code may go on."""
        self._is_cancelled = self._is_over = True

    async def settle(self) -> None:
        """Wait for the writes that were not awaited, and ignore their errors."""
        # Only those under way now: a task that the agent left behind may write for ever.
        if self.unfinished:
            await asyncio.wait(set(self.unfinished))

    async def flush(self) -> None:
        """Wait for the writes that were not awaited; raise the first failure among them."""
        await self.settle()
        for error in self._unheard.values():
            raise error

    def _write(self, event_type: RunEventType, name: str | None, data: JsonValue) -> PendingWrite:
        if name is not None and type(name) is not str:
            # What else is text, and the error for what is not, are those of every event's name.
            name = RunEvent(type=event_type, run_id=self.run_id, name=name).name
        # Encoded now: the write begins later, in a task, and the agent may change its value.
        limit = self._store.limits.max_event_bytes
        fields = new_event_fields(event_type, self.agent, name, data, limit)
        return self._perform(
            partial(self._store.append_encoded, self.run_id, fields, self._claim.token)
        )

    def _perform(self, write: Callable[[], Awaitable[object]]) -> PendingWrite:
        written = self._written(write)
        if running_loop() is not self._loop:
            self._block_on(written)
            return _Done()
        task = self._loop.create_task(written)
        self.unfinished.add(task)
        task.add_done_callback(self._finished)
        return _UnderWay(task, self._hear)

    async def _written(self, write: Callable[[], Awaitable[object]]) -> None:
        if self._is_over:
            # A pause, because a task left behind may write in an endless loop: without a server to
            # wait for, it would never yield, and the worker's event loop would hang.
            await asyncio.sleep(_REFUSAL_SECONDS)
            raise errors.LeaseLostError(self.run_id)
        try:
            await write()
        except (errors.LeaseLostError, errors.RunTerminatedError, errors.RunNotFoundError):
            self.claim_lost = True
            raise
        except errors.StoreError as error:
            # The server failed and not the agent: the run is not failed because of it.
            self.store_failed |= not isinstance(error, errors.RunDamagedError)
            raise

    def _block_on(self, written: Coroutine[Any, Any, None]) -> None:
        try:
            future = asyncio.run_coroutine_threadsafe(written, self._loop)
        except RuntimeError:
            # The loop is closed: the worker has stopped and handed the run back.
            written.close()
            raise errors.LeaseLostError(self.run_id) from None
        future.result()

    def _hear(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            self._awaited.add(task)
        self._unheard.pop(task, None)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self.unfinished.discard(task)
        heard = task in self._awaited
        self._awaited.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not heard:
            self._unheard[task] = error


class PendingWrite(Coroutine[Any, Any, None]):
    """The return value of RunContext's methods: await it, pass it to a task, or ignore it.

    It is a coroutine and not only awaitable, so that ``asyncio.create_task`` and
    ``TaskGroup.create_task`` take it. It is a class of its own because type checkers report
    a plain coroutine that is not awaited, which is allowed here.
    """


@dataclass(eq=False)
class _UnderWay(PendingWrite):
    """A write of an ``async def`` agent; awaiting it raises the write's error."""

    _task: asyncio.Task[None]
    _hear: Callable[[asyncio.Task[None]], None]
    _waiting: Generator[Any, None, None] | None = None

    def __await__(self) -> Generator[Any, None, None]:
        self._hear(self._task)
        return self._task.__await__()

    def send(self, value: Any, /) -> Any:
        return self._steps().send(value)

    def throw(self, *error: Any) -> Any:
        return self._steps().throw(*error)

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.close()

    def _steps(self) -> Generator[Any, None, None]:
        if self._waiting is None:
            self._waiting = self.__await__()
        return self._waiting


class _Done(PendingWrite):
    """A write of a ``def`` agent: it is done, and awaiting it is harmless."""

    def __await__(self) -> Generator[None]:
        return
        yield

    def send(self, _value: Any, /) -> Any:
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        raise error[0]

    def close(self) -> None:
        pass
