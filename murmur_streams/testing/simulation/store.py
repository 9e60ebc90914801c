"""A store for simulations: the engine of the local stores, over rows in memory that all share.

Each store is like a process that has the same SQLite file open: it commits groups of writes, and
looks for what others wrote. Faults happen where a real database has them: a call takes its time,
cannot be made, or is made and not confirmed.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, Unpack, cast

from murmur_streams.core.model import errors
from murmur_streams.core.model.commands import Append, Command, Create
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.rules.executions import Answer
from murmur_streams.stores.local.engine.access import Access, Begin, Committed
from murmur_streams.stores.local.engine.database import Changes, Database, Reader, Stored
from murmur_streams.stores.local.engine.database_thread import DatabaseThread
from murmur_streams.stores.local.engine.file_store import FileAccess, FileRunStore, OpenFile
from murmur_streams.stores.local.engine.store import LocalOptions
from murmur_streams.stores.local.memory.store import MemoryDatabase
from murmur_streams.testing.history import Call, History, Outcome
from murmur_streams.testing.recorder import answer_of_error

T = TypeVar("T")

FEED_ENTRIES = 10_000
LOST_TOO = 0.3
"""The part of the writes without an answer that are not done."""


@dataclass(eq=False)
class Faults:
    """What may go wrong between a program and its store; a test changes it as time goes by."""

    choice: random.Random
    """Decides when a fault happens."""
    slowest_seconds: float = 0.01
    """The most that a call takes."""
    unavailable: float = 0.0
    """The part of the calls that fail before anything was done, from 0 to 1."""
    unconfirmed: float = 0.0
    """The part of the writes whose outcome the caller does not learn; each may be done or not."""
    refused: float = 0.0
    """The part of the writes that a full database refuses."""
    is_away: bool = False
    """Whether the store cannot be reached at all."""
    note: Callable[[str], None] | None = None
    """Called with each fault, for a trace."""
    happened: dict[str, int] = field(default_factory=dict[str, int])
    """How often each kind has happened."""

    def seconds(self) -> float:
        """How long the next call takes."""
        return self.slowest_seconds * self.choice.random()

    def before_call(self) -> None:
        """Let a call fail that has done nothing yet."""
        if self.is_away or self._happens("unavailable", self.unavailable):
            raise errors.StoreUnavailableError("the simulated store cannot be reached")

    def before_write(self) -> None:
        """Let a write be refused."""
        self.before_call()
        if self._happens("refused", self.refused):
            raise errors.StoreFullError("the simulated store is full")

    def loses_answer(self) -> bool:
        """Whether the answer of the next write is lost."""
        return self._happens("unconfirmed", self.unconfirmed)

    def loses_write(self) -> bool:
        """Whether a write whose answer is lost is not done either."""
        return self.choice.random() < LOST_TOO

    def end(self) -> None:
        """From now on, everything works."""
        self.unavailable = self.unconfirmed = self.refused = 0.0
        self.is_away = False

    def _happens(self, what: str, rate: float) -> bool:
        if not rate or self.choice.random() >= rate:
            return False
        self.happened[what] = self.happened.get(what, 0) + 1
        if self.note is not None:
            self.note(f"a fault: {what}")
        return True


@dataclass(eq=False)
class SharedRows:
    """The rows of one database, and what all stores that have it open share."""

    faults: Faults
    clock: Callable[[], int]
    """Milliseconds of Unix time."""
    time: Callable[[], float]
    """Of the event loop, for the history."""
    history: History = field(default_factory=History)
    """Every command that a store was asked for."""
    database: MemoryDatabase = field(default_factory=lambda: MemoryDatabase(FEED_ENTRIES))
    note: Callable[[str], None] | None = None
    """Called with each commit and each answer, for a trace."""
    commits: int = 0
    """How many groups were committed."""
    problems: list[str] = field(default_factory=list[str])
    """Two valid leases of one run at once."""

    def check_leases(self, changes: Changes) -> None:
        """Note when a claim ends that is still valid and that its own worker has not ended."""
        now_ms = self.clock()
        for run_id, change in changes.runs.items():
            before, after = change.before, change.after
            claim = None if before is None else before.run.claim
            if before is None or claim is None or (after is not None and after.run.claim == claim):
                continue
            is_held = before.lease_until_ms is not None and before.lease_until_ms > now_ms
            lapsed = any(entry.fields.get("reason") == "lease_expired" for entry in change.entries)
            started = any(entry.fields.get("claim") for entry in change.entries)
            if is_held and (lapsed or started):
                self.problems.append(f"run {run_id}: its lease was valid, and another began")


class SimulatedThread(DatabaseThread):
    """The thread of a database: its calls run on the event loop, each after some time.

    Args:
        loop: the simulated loop.
        seconds: how long the next call takes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: Callable[[], float]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._queue: deque[Callable[[], object]] = deque()
        self._is_working = False
        self._looking: asyncio.TimerHandle | None = None
        self._context = contextvars.copy_context()

    def submit(self, call: Callable[[], object]) -> None:
        self._queue.append(call)
        if not self._is_working:
            self._is_working = True
            self._work_later()

    def call_on_loop(self, call: Callable[..., object], *given: object) -> None:
        self._loop.call_soon(call, *given, context=self._context)

    async def run(self, call: Callable[[], T]) -> T:
        outcome: asyncio.Future[T] = self._loop.create_future()

        def work() -> None:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  # the caller's, whatever it is
                self.call_on_loop(_settle, outcome, None, error)
            else:
                self.call_on_loop(_settle, outcome, result, None)

        self.submit(work)
        return await outcome

    def watch(self, look: Callable[[], object] | None, seconds: float = 0.0) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if look is not None:
            self._look_later(look, seconds)

    async def stop(self) -> None:
        await self.run(lambda: None)

    def leave(self) -> None:
        self.watch(None)

    def _work_later(self) -> None:
        self._loop.call_later(self._seconds(), self._work, context=self._context)

    def _work(self) -> None:
        self._queue.popleft()()
        self._is_working = bool(self._queue)
        if self._is_working:
            self._work_later()

    def _look_later(self, look: Callable[[], object], seconds: float) -> None:
        def look_now() -> None:
            self._look_later(look, seconds)
            look()

        self._looking = self._loop.call_later(seconds, look_now, context=self._context)


def _settle(outcome: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if outcome.done():
        return
    if error is None:
        outcome.set_result(result)
    else:
        outcome.set_exception(error)


class SimulatedDatabase:
    """One connection to the shared rows: reads are theirs, and writes may fail."""

    def __init__(self, shared: SharedRows) -> None:
        self._shared = shared
        self._seen = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared.database, name)

    def begin(self) -> bool:
        self._shared.faults.before_write()
        return self._has_news()

    def commit(self, changes: Changes) -> Position:
        shared = self._shared
        is_lost = shared.faults.loses_answer()
        if is_lost and shared.faults.loses_write():
            raise errors.OutcomeUnknownError("the simulated store lost a write")
        shared.check_leases(changes)
        last = shared.database.commit(changes)
        shared.commits += 1
        if shared.note is not None:
            for _, entry in changes.feed:
                # Without the moment, which is the real clock's.
                shown = {name: text for name, text in entry.fields.items() if name != "ts"}
                shared.note(f"entry {entry.run_id} {entry.seq} {shown}")
        self._seen = shared.commits
        if is_lost:
            raise errors.OutcomeUnknownError("the simulated store did not confirm a write")
        return last

    def rollback(self) -> None:
        """Nothing was written."""

    def reader(self) -> Reader:
        return cast("Reader", SimulatedDatabase(self._shared))

    def has_foreign_writes(self) -> bool:
        self._shared.faults.before_call()
        return self._has_news()

    def close(self) -> None:
        """The rows stay for the others."""

    def _has_news(self) -> bool:
        before, self._seen = self._seen, self._shared.commits
        return before != self._seen


class SimulatedAccess(FileAccess):
    """Reaches the shared rows by simulated threads."""

    shared: SharedRows

    async def stored(self, run_id: str) -> Stored | None:
        self.shared.faults.before_call()
        return await super().stored(run_id)

    async def read(self, call: Callable[[Reader], T]) -> T:
        self.shared.faults.before_call()
        return await super().read(call)

    async def _open(self) -> OpenFile:
        loop, seconds = asyncio.get_running_loop(), self.shared.faults.seconds
        writing, reading = SimulatedThread(loop, seconds), SimulatedThread(loop, seconds)
        database = await writing.run(self.open_database)
        self._file = OpenFile(
            database,
            database.reader(),
            writing,
            reading,
            self.begin,
            self.committed,
            self.looked,
        )
        self._set_watch()
        return self._file


class SimulatedRunStore(FileRunStore):
    """A store of a simulation; every command goes into the history of its rows.

    Args:
        shared: the rows.
        look_seconds: how often it looks for writes of other stores; None: there are none.
        options: as LocalRunStore's.
    """

    def __init__(
        self,
        shared: SharedRows,
        look_seconds: float | None,
        **options: Unpack[LocalOptions],
    ) -> None:
        self._shared = shared
        self.look_seconds = look_seconds
        super().__init__("simulated", **{"clock": shared.clock, **options})

    @property
    def where(self) -> str:
        return "simulated"

    def _open_database(self) -> Database:
        return cast("Database", SimulatedDatabase(self._shared))

    def _make_access(self, begin: Begin, committed: Committed) -> Access:
        access = SimulatedAccess(
            "simulated", self._open_database, begin, committed, self._looked, self.look_seconds
        )
        access.shared = self._shared
        return access

    async def _execute(
        self, run_id: str, command: Command, result: RunResult | None = None
    ) -> Answer:
        shared = self._shared
        call = Call(run_id, command, shared.time())
        shared.history.calls.append(call)
        try:
            answer = await super()._execute(run_id, command, result)
        except errors.OutcomeUnknownError:
            self._note(call, "unknown")
            raise
        except errors.MurmurError as error:
            call.ended, call.outcome = shared.time(), Outcome.REFUSED
            call.answer = answer_of_error(error)
            self._note(call, repr(error))
            raise
        self._note(call, " ".join(answer))
        call.ended = shared.time()
        call.outcome = Outcome.ACKNOWLEDGED if answer[0] == "OK" else Outcome.REFUSED
        # Neither what depends on the moment, nor the version of an end, which has several entries.
        is_judged = answer[0] != "WAIT" and isinstance(command, (Append, Create))
        call.answer = answer if is_judged else None
        return answer

    def _note(self, call: Call, answer: str) -> None:
        if self._shared.note is not None:
            self._shared.note(f"{type(call.command).__name__} {call.run_id}: {answer}")
