"""LocalRunStore: the interface over a database of this process or machine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection
from typing import Self, TypedDict, TypeVar

from murmur_streams.core.archive.run_archive import RunArchive, restorable
from murmur_streams.core.model.commands import Append, Command, Seal
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.limits import (
    Limits,
    check_max_events,
    check_run_id,
    check_target,
    duration_ms,
)
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import PayloadKind, Run, RunFilter, RunPage, listing_key
from murmur_streams.core.model.states import RunStatus
from murmur_streams.core.model.work import MAX_SILENT_BEATS
from murmur_streams.core.rules.audit import AuditReport
from murmur_streams.core.rules.decide import Answer, Now
from murmur_streams.core.rules.executions import check_answer
from murmur_streams.settings import DAY_SECONDS
from murmur_streams.stores.local.engine import database as engine
from murmur_streams.stores.local.engine.access import Access, Begin, Committed
from murmur_streams.stores.local.engine.archives import gather, gather_audit
from murmur_streams.stores.local.engine.bookkeeping import RunDurations, is_due
from murmur_streams.stores.local.engine.claiming import Signals
from murmur_streams.stores.local.engine.dead import LocalDeadLetters
from murmur_streams.stores.local.engine.feed import LocalFeed
from murmur_streams.stores.local.engine.run_writes import KnownRows
from murmur_streams.stores.local.engine.tails import LocalTails
from murmur_streams.stores.local.engine.transaction import Transaction, Written
from murmur_streams.stores.local.engine.work import LocalQueue, LocalWorkers
from murmur_streams.stores.timing import pause_before_retry, wall_clock_ms
from murmur_streams.stores.work_store import WorkStore

T = TypeVar("T")

HOUSEKEEPING_PAGE = 100
MOST_PAUSED = 10_000
_PAUSED = "1"


class LocalOptions(TypedDict, total=False):
    """The keywords of every local store; see LocalRunStore."""

    ttl_seconds: float
    max_events: int
    live_ttl_seconds: float
    late_event_seconds: float
    feed_max_entries: int
    limits: Limits | None
    clock: Callable[[], int]


class LocalRunStore(WorkStore):
    """Runs in a database of this process or machine: memory, SQLite or RocksDB.

    Guarantees: a write that returned is in the journal exactly once. Subscribers of this process
    are woken by memory, without polling.

    Args:
        ttl_seconds: how long an ended run is stored; 0 or less means for ever.
        max_events: the journal's cap, at least 1,000; 0 for none.
        live_ttl_seconds: how long a run that has not ended may go without a write before
            housekeeping fails it; 0 for ever.
        late_event_seconds: how long after the end a closing event may still come.
        feed_max_entries: how many entries the feed holds.
        limits: sizes of events, inputs and results.
        clock: milliseconds of Unix time.
    """

    def __init__(
        self,
        *,
        ttl_seconds: float = 3600,
        max_events: int = 100_000,
        live_ttl_seconds: float = 30 * DAY_SECONDS,
        late_event_seconds: float = 2.0,
        feed_max_entries: int = 10_000,
        limits: Limits | None = None,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._durations = RunDurations(
            ttl_ms=duration_ms("ttl_seconds", ttl_seconds),
            live_ttl_ms=duration_ms("live_ttl_seconds", live_ttl_seconds),
            late_event_ms=duration_ms("late_event_seconds", late_event_seconds),
        )
        self._clock = clock
        self._max_events = check_max_events(max_events)
        self._feed_max_entries = feed_max_entries
        self._limits = limits or Limits()
        self._access = self._make_access(self._begin, self._committed)
        self._tails = LocalTails(self._read_page, self._seal, self._watch)
        self._feed = LocalFeed(self._access, self._watch)
        self._signals = Signals(self._watch)

    @abstractmethod
    def _make_access(self, begin: Begin, committed: Committed) -> Access:
        """Make the way to the store's database, which is opened at first use."""

    @property
    def live_ttl_ms(self) -> int:
        return self._durations.live_ttl_ms

    @property
    @abstractmethod
    def where(self) -> str:
        """Where the runs are, for people."""

    async def __aenter__(self) -> Self:
        await self._access.open()
        return self

    async def close(self) -> None:
        self._tails.close()
        self._feed.close()
        self._signals.close()
        await self._access.close()

    async def get_status(self, run_id: str) -> RunStatus:
        return (await self._stored(run_id)).run.status

    async def snapshot(self, run_id: str) -> Run:
        return (await self._stored(run_id)).run

    async def _list(self, wanted: RunFilter, limit: int, cursor: str | None) -> RunPage:
        now_ms = self._clock()
        found = await self._access.read(
            lambda reader: reader.listing(wanted, now_ms, limit + 1, cursor)
        )
        runs = found[:limit]
        last = listing_key(runs[-1].created_ms, runs[-1].run_id) if len(found) > limit else None
        return RunPage(tuple(runs), last)

    def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        return self._tails.events(run_id, after)

    def journal(
        self, run_id: str, *, after: str | None = None, follow: bool = False
    ) -> AsyncGenerator[JournalEntry]:
        return self._tails.journal(run_id, after, follow=follow)

    async def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        check_run_id(run_id)
        return await self._access.read(lambda reader: reader.last_entries(run_id, count))

    def feed(
        self,
        *,
        after: str | None = None,
        targets: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[FeedEntry]:
        return self._feed.read(after, targets, types)

    async def check_feed_cursor(self, after: str) -> None:
        await self._feed.checked(after)

    async def audit(self, run_id: str) -> AuditReport:
        return await gather_audit(self._access, check_run_id(run_id), self._clock)

    async def rebuild(self, run_id: str) -> None:
        check_run_id(run_id)
        await self._access.write_alone(lambda group: group.rebuild(run_id))

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        try:
            return await super().delete(run_id, force=force)
        except RunDamagedError:
            if not force:
                raise
        await self._access.write_alone(lambda group: group.replace_damaged(run_id, None))
        return True

    async def archive(self, run_id: str) -> RunArchive:
        return (await gather(self._access, check_run_id(run_id), self._clock))[1]

    async def restore(self, archive: RunArchive) -> bool:
        run = restorable(archive)
        return await self._access.write_alone(lambda group: group.restore(archive, run))

    async def sweep(self) -> int:
        count = 0
        while done := await self._access.write_alone(
            lambda group: group.do_housekeeping(HOUSEKEEPING_PAGE)
        ):
            count += done
        return count

    async def ping(self) -> None:
        await self._access.read(lambda reader: reader.feed_ends())

    def queue(self, lease_seconds: float) -> LocalQueue:
        return LocalQueue(self._access, self._signals, self._clock, round(lease_seconds * 1000))

    def workers(self, interval_seconds: float = 5.0) -> LocalWorkers:
        listed_ms = round(MAX_SILENT_BEATS * interval_seconds * 1000)
        return LocalWorkers(self._access, self._signals, self._clock, listed_ms)

    def dead_letters(self) -> LocalDeadLetters:
        return LocalDeadLetters(self._access, self._limits, self._clock)

    async def recover(self, attempt: int) -> None:
        await pause_before_retry(attempt)

    async def pause(self, target: str) -> None:
        check_target(target)
        await self._access.write(lambda group: group.put(engine.Space.PAUSED, target, _PAUSED))

    async def resume(self, target: str) -> None:
        check_target(target)
        await self._access.write(lambda group: group.put(engine.Space.PAUSED, target, None))
        self._signals.look()

    async def paused(self) -> set[str]:
        every = engine.ItemRange(engine.Space.PAUSED, MOST_PAUSED)
        rows = await self._access.read(lambda reader: reader.items(every))
        return {target for target, _ in rows}

    async def lease_left_ms(self, run_id: str) -> int | None:
        stored = await self._access.stored(check_run_id(run_id))
        if stored is None or stored.lease_until_ms is None:
            return None
        return stored.lease_until_ms - self._clock()

    async def _execute(
        self, run_id: str, command: Command, result: RunResult | None = None
    ) -> Answer:
        check_run_id(run_id)
        answer = await self._access.write(lambda group: group.perform(run_id, command).answer)
        expected = command.expected_version if isinstance(command, Append) else None
        check_answer(answer, run_id, expected)
        if result is not None:
            self._keep_result(run_id, command, result)
        return answer

    def _keep_result(self, run_id: str, command: Command, result: RunResult) -> None:
        """Keep the value behind a command's result, where a database has more than its JSON."""

    async def _seal(self, run_id: str) -> Answer:
        try:
            return await self._execute(run_id, Seal())
        except RunNotFoundError:
            return ("NOT_FOUND",)

    async def _stored(self, run_id: str) -> engine.Stored:
        return self._found(run_id, await self._access.stored(check_run_id(run_id)))

    def _found(self, run_id: str, stored: engine.Stored | None) -> engine.Stored:
        if stored is None or is_due(stored, self._clock()):
            raise RunNotFoundError(run_id)
        return stored

    async def _payload(self, run_id: str, kind: PayloadKind) -> str | None:
        check_run_id(run_id)
        stored, text = await self._access.read(
            lambda reader: (reader.stored(run_id), reader.payload(run_id, kind))
        )
        self._found(run_id, stored)
        return text

    async def _read_page(self, run_id: str, after_seq: int, limit: int) -> engine.RowPage | None:
        page = await self._access.read(lambda reader: reader.journal_rows(run_id, after_seq, limit))
        return None if page is None or is_due(page[0], self._clock()) else page

    def _begin(self, database: engine.Database, known: KnownRows) -> Transaction:
        ms, durations = self._clock(), self._durations
        now = Now(ms, ms, durations.late_event_ms, self._max_events)
        return Transaction(database, known, durations, now)

    def _committed(self, written: list[Written]) -> None:
        self._tails.publish(written)
        self._feed.wake()
        self._signals.notify(written)

    def _looked(self, run_ids: Collection[str] | None) -> None:
        self._tails.look(run_ids)
        self._feed.wake()
        self._signals.look()

    def _watch(self) -> None:
        waiting = self._tails.following or self._feed.readers or self._signals.waiting
        self._access.watch(bool(waiting))
