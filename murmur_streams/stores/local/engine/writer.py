"""The writer that commits the calls that wait as one group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from murmur_streams.core.model.errors import OutcomeUnknownError, StoreClosedError, StoreError
from murmur_streams.stores.local.engine.access import Begin
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.engine.database_thread import DatabaseThread
from murmur_streams.stores.local.engine.run_writes import KnownRows
from murmur_streams.stores.local.engine.transaction import Transaction, Written

T = TypeVar("T")

MOST_TOGETHER = 500
"""A larger group would make its first caller wait, and save little."""
MOST_WAITING = 10_000
"""So many calls may wait; further callers wait for room (back-pressure)."""
MOST_KNOWN = 10_000
"""So many runs stay in memory, as they were written last."""

Operation = Callable[[Transaction], T]


@dataclass(slots=True)
class _GroupedCall:
    operation: Operation[Any]
    outcome: asyncio.Future[Any]
    is_alone: bool
    value: Any = None
    """The return value of the operation, in the group that was committed."""
    error: BaseException | None = None


_Outcome = tuple[list[_GroupedCall], list[Written], range]
"""The calls of a group, what it wrote, and the n of its entries in the feed."""
_NOTHING: _Outcome = ([], [], range(0))


@dataclass(eq=False)
class GroupWriter:
    """Gives each call its own answer, and all of a group one commit.

    Guarantee: a call that returned is in the file, whatever kills the process afterwards. A call
    whose caller was cancelled was written or not: read to find out.
    """

    database: Database
    """Opened; only this writer's thread touches it."""
    thread: DatabaseThread
    begin: Begin
    committed: Callable[[list[Written], range], None]
    """Called on the event loop with what a group wrote and the n of its entries in the feed,
    before its callers get their answers."""
    unsure: Callable[[], None]
    """Called on the event loop when a group may have been written, before its callers learn it."""
    known: KnownRows = field(default_factory=KnownRows)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _waiting: deque[_GroupedCall] = field(default_factory=deque[_GroupedCall])
    _is_busy: bool = False
    _is_closed: bool = False
    _has_company: bool = False
    """Whether the last group was of several callers."""
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self) -> None:
        """Write the waiting calls; later ones are refused."""
        self._is_closed = True
        self._room.set()
        if self._is_busy:
            await self._idle.wait()

    async def write(self, operation: Operation[T], *, is_alone: bool = False) -> T:
        """Call an operation in a group, or in one of its own; what it returned or raised."""
        while len(self._waiting) >= MOST_WAITING and not self._is_closed:
            self._room.clear()
            await self._room.wait()
        if self._is_closed:
            raise StoreClosedError("the store is closed; open a new one")
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(_GroupedCall(operation, outcome, is_alone))
        if not self._is_busy:
            self._is_busy = True
            if self._has_company:
                # After the other tasks of this turn of the loop, whose writes join the group.
                self._loop.call_soon(self._start)
            else:
                self._start()
        return await outcome

    def _start(self) -> None:
        group = [self._waiting.popleft()]
        if not group[0].is_alone:
            while self._waiting and not self._waiting[0].is_alone and len(group) < MOST_TOGETHER:
                group.append(self._waiting.popleft())
        self._has_company = len(group) > 1 or bool(self._waiting)
        self._room.set()
        self.thread.submit(partial(self._work, group))

    def _work(self, group: list[_GroupedCall]) -> None:
        """In the thread: write a group; when that fails, write each of its calls by itself."""
        try:
            self._begin_group()
        except BaseException as error:  # noqa: BLE001  # goes to every caller
            # Trying each by itself would wait for the lock of the file once more for each.
            self.thread.call_on_loop(self._finish, *_failed(group, error))
            return
        try:
            outcome = self._write(group)
        except BaseException as error:  # noqa: BLE001  # each caller gets its own
            # A group that may be in the database is not repeated: its calls would be there twice.
            if len(group) == 1 or isinstance(error, OutcomeUnknownError):
                outcome = _failed(group, error)
            else:
                for call in group:
                    self.thread.call_on_loop(self._answer, *self._outcome_of(call))
                outcome = _NOTHING
        self.thread.call_on_loop(self._finish, *outcome)

    def _outcome_of(self, call: _GroupedCall) -> _Outcome:
        try:
            self._begin_group()
            return self._write([call])
        except BaseException as error:  # noqa: BLE001  # goes to the caller
            return _failed([call], error)

    def _begin_group(self) -> None:
        if self.database.begin():
            self.known.forget()

    def _write(self, group: list[_GroupedCall]) -> _Outcome:
        """Call the operations of a group that has begun, and commit it."""
        try:
            transaction = self.begin(self.database, self.known)
            for call in group:
                call.value = call.operation(transaction)
            transaction.finish()
            changes = transaction.changes
            if changes.is_empty:
                self.database.rollback()
                return group, [], range(0)
        except BaseException:
            self.database.rollback()
            raise
        try:
            _, last_n = self.database.commit(changes)
        except BaseException as error:
            for run_id in changes.runs:
                self.known.runs.pop(run_id, None)
            if isinstance(error, OutcomeUnknownError):
                # What may be there now was not handed on to readers and workers: they have to look.
                # A reader would otherwise wait for ever if that was the last entry of its run.
                self.thread.call_on_loop(self.unsure)
            raise
        self._remember(transaction)
        feed = range(last_n - len(changes.feed) + 1, last_n + 1)
        return group, transaction.written, feed

    def _remember(self, transaction: Transaction) -> None:
        runs = self.known.runs
        for run_id, change in transaction.changes.runs.items():
            runs.pop(run_id, None)
            if change.after is not None:
                runs[run_id] = change.after
        while len(runs) > MOST_KNOWN:
            # A tenth at once: to find its oldest key, a dict passes all that were removed before.
            for run_id in [*islice(runs, 1 + MOST_KNOWN // 10)]:
                del runs[run_id]

    def _finish(self, done: list[_GroupedCall], written: list[Written], feed: range) -> None:
        self._answer(done, written, feed)
        if self._waiting:
            self._has_company = True
            # After the callers that just got their answers: their next writes join the group.
            self._loop.call_soon(self._start)
        else:
            self._is_busy = False
            if self._is_closed:
                self._idle.set()

    def _answer(self, done: list[_GroupedCall], written: list[Written], feed: range) -> None:
        if written:
            self.committed(written, feed)
        for each in done:
            outcome = each.outcome
            if outcome.done():
                continue
            if each.error is None:
                outcome.set_result(each.value)
            else:
                outcome.set_exception(each.error)


def _failed(calls: list[_GroupedCall], error: BaseException) -> _Outcome:
    for call in calls:
        # A future takes every exception but this one, which means the end of an iterator.
        call.error = StoreError(repr(error)) if isinstance(error, StopIteration) else error
    return calls, [], range(0)
