"""InMemoryRunStore: the pure core in one process, for tests and programs of one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import replace
from heapq import heappop, heappush
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from murmur_streams.core.archive.run_archive import RunArchive, check_same_life, restorable
from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model.commands import (
    Append,
    Command,
    Create,
    Delete,
    Finish,
    Seal,
    SetResult,
)
from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.errors import (
    CursorGapError,
    CursorResetError,
    RunNotFoundError,
    StoreClosedError,
)
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry, FeedFilter
from murmur_streams.core.model.identifiers import check_run_id, new_run_id
from murmur_streams.core.model.limits import (
    Limits,
    check_max_events,
    duration_ms,
)
from murmur_streams.core.model.pages import RunFilter, RunPage, check_listing, listing_key
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import Run, run_to_fields
from murmur_streams.core.model.states import RunState, RunStatus
from murmur_streams.core.rules.answers import check_answer
from murmur_streams.core.rules.audit import AuditReport, audit_run
from murmur_streams.core.rules.decide import Answer, Now, decide
from murmur_streams.core.rules.evolve import evolve, fold
from murmur_streams.core.rules.requests import create_command
from murmur_streams.settings import DAY_SECONDS
from murmur_streams.stores.clock import wall_clock_ms
from murmur_streams.stores.commands import RunWrites
from murmur_streams.stores.local.memory_feed import MemoryFeed
from murmur_streams.stores.local.memory_record import MemoryRecord, copied, copied_entry


class InMemoryRunStore(RunWrites):
    """Runs in this process's memory; every store's behaviour, nobody else's runs.

    Args:
        ttl_seconds: how long an ended run is kept; 0 or less means for ever.
        max_events: the journal's cap, at least 1,000; 0 for none.
        live_ttl_seconds: how long nobody may write to a run that has not ended before a sweep
            fails it; 0 for ever.
        late_event_seconds: how long after the end a closing event may still come.
        feed_max_entries: how many entries the feed keeps.
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
        self._ttl_ms = duration_ms("ttl_seconds", ttl_seconds)
        self._max_events = check_max_events(max_events)
        self._live_ttl_ms = duration_ms("live_ttl_seconds", live_ttl_seconds)
        self._late_event_ms = duration_ms("late_event_seconds", late_event_seconds)
        self._limits = limits or Limits()
        self._clock = clock
        self._records: dict[str, MemoryRecord] = {}
        self._moments: list[tuple[int, str]] = []
        """A heap: when to look at which run."""
        self._feed = MemoryFeed(feed_max_entries)
        self._closed = False

    @staticmethod
    def new_run_id() -> str:
        """Draw a run id."""
        return new_run_id()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Wake every subscriber with StoreClosedError; a second call does nothing."""
        self._closed = True
        for record in self._records.values():
            record.wake()
        self._feed.close()

    async def create(
        self,
        run_id: str,
        target: str,
        *,
        input: JsonValue = None,  # noqa: A002  # the interface's name
        metadata: Mapping[str, JsonValue] | None = None,
        tenant: str | None = None,
    ) -> None:
        """Begin a run that waits; RunExistsError when the id is taken."""
        command = create_command(run_id, target, input, metadata, self._limits, tenant=tenant)
        await self.sweep()
        self._perform(run_id, command)

    async def get_status(self, run_id: str) -> RunStatus:
        """State and progress."""
        return self._record(run_id).run.status

    async def get_result(self, run_id: str) -> RunResult | None:
        """The result, as deep a copy as was stored; None until there is one."""
        result = self._record(run_id).result
        return None if result is None else copied(result)

    async def get_input(self, run_id: str) -> JsonValue:
        """The input; None when there is none."""
        given = self._record(run_id).input_json
        return None if given is None else decode_json(given)

    async def snapshot(self, run_id: str) -> Run:
        """Everything that is known of the run."""
        return self._record(run_id).run

    async def list_runs(
        self,
        *,
        state: RunState | None = None,
        target: str | None = None,
        tenant: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """List runs, newest first; every run that did not change comes exactly once."""
        check_listing(limit, cursor)
        wanted = RunFilter.of(state, target, tenant)
        await self.sweep()
        places = {
            listing_key(run.created_ms, run_id): run
            for run_id, run in ((each, record.run) for each, record in self._records.items())
            if wanted.wants(run)
        }
        after = [place for place in places if cursor is None or place < cursor]
        page = sorted(after, reverse=True)[:limit]
        more = page[-1] if len(after) > limit else None
        return RunPage(tuple(places[place] for place in page), more)

    async def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        """Replay the run's events, follow live, end when the run is sealed."""
        async with aclosing(self._entries(run_id, after, follow=True, late=False)) as entries:
            async for entry in entries:
                event = entry.event()
                if event is not None:
                    yield event

    async def journal(
        self, run_id: str, *, after: str | None = None, follow: bool = False
    ) -> AsyncGenerator[JournalEntry]:
        """Yield all entries of the journal, late ones included."""
        async with aclosing(self._entries(run_id, after, follow=follow, late=True)) as entries:
            async for entry in entries:
                yield copied_entry(entry)

    async def feed(
        self,
        *,
        after: str | None = None,
        targets: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[FeedEntry]:
        """Yield the entries of all runs as they come, from the oldest kept; it never ends."""
        async with aclosing(self._feed.read(after, FeedFilter.of(targets, types))) as entries:
            async for entry in entries:
                yield entry

    async def audit(self, run_id: str) -> AuditReport:
        """Compare the state with the fold of the journal."""
        record = self._record(run_id)
        result_json = record.result_json
        fields = run_to_fields(record.run)
        return audit_run(
            run_id,
            fields,
            record.entries,
            record.input_json,
            result_json,
            record.checkpoint_json,
        )

    async def rebuild(self, run_id: str) -> None:
        """Fold the journal again; here the state is never anything else."""
        record = self._record(run_id)
        record.run = fold(record.entries) or record.run

    async def archive(self, run_id: str) -> RunArchive:
        """Take all that makes the run; progress that the journal does not have yet is no part."""
        return self._record(run_id).archive()

    async def restore(self, archive: RunArchive) -> bool:
        """Write a run whole, as its journal says; False when this very run is here already.

        Raises:
            InvalidArchiveError: the archive is damaged; nothing was written.
            RunExistsError: the id has another run, or an older copy of this one.
        """
        run = restorable(archive)
        await self.sweep()
        try:
            record = self._record(archive.run_id)
        except RunNotFoundError:
            record = self._records[archive.run_id] = MemoryRecord.of(archive, run)
            self._set_expiry(record, ended_now=run.state.is_terminal)
            return True
        last = archive.entries[-1]
        at = record.after(last.seq - 1)
        has_last = at is not None and at.id == last.id
        oldest_seq = record.entries[0].seq
        check_same_life(archive, epoch=record.run.epoch, oldest_seq=oldest_seq, has_last=has_last)
        return False

    async def sweep(self) -> int:
        """Remove the ended runs whose time is over, fail the overdue; how many that were.

        It costs what is due, however many runs there are.
        """
        now, count = self._clock(), 0
        while self._moments and self._moments[0][0] <= now:
            _, run_id = heappop(self._moments)
            record = self._records.get(run_id)
            moment = None if record is None else record.moment
            if record is None or moment is None:
                continue
            if moment > now:
                # Writes do not move the row: it may be early, and never late.
                heappush(self._moments, (moment, run_id))
                continue
            count += 1
            if record.run.state.is_terminal:
                self._records.pop(run_id).wake()
                continue
            silent = max(0, now - record.run.last_ms) // 1000
            words = f"nobody wrote to it for {silent} seconds (live_ttl_seconds)"
            self._perform(run_id, Finish(RunState.FAILED, error=words))
        return count

    def _record(self, run_id: str) -> MemoryRecord:
        if self._closed:
            raise StoreClosedError("the store is closed; open a new one")
        record = self._records.get(check_run_id(run_id))
        if record is None or (
            record.expire_at_ms is not None and record.expire_at_ms <= self._clock()
        ):
            raise RunNotFoundError(run_id)
        return record

    async def _execute(
        self, run_id: str, command: Command, result: RunResult | None = None
    ) -> Answer:
        return self._perform(run_id, command, None if result is None else copied(result))

    def _perform(self, run_id: str, command: Command, result: RunResult | None = None) -> Answer:
        # No await between decide and store: tasks of one loop cannot interleave here.
        try:
            record = self._record(run_id)
        except RunNotFoundError:
            record = None
        now = Now(self._clock(), self._clock(), self._late_event_ms, self._max_events)
        run = None if record is None else record.run
        decision = decide(run, run_id, command, now)
        expected = command.expected_version if isinstance(command, Append) else None
        check_answer(decision.answer, run_id, expected)
        if decision.progress is not None and record is not None:
            record.run = replace(record.run, progress=decision.progress, progress_dirty=True)
        if decision.entries:
            record = self._apply(run_id, record, command, decision.entries)
            self._keep_payload(record, command, result)
            record.wake()
        return decision.answer

    def _apply(
        self,
        run_id: str,
        record: MemoryRecord | None,
        command: Command,
        entries: tuple[JournalEntry, ...],
    ) -> MemoryRecord:
        run = None if record is None else record.run
        for entry in entries:
            run = evolve(run, entry)
        assert run is not None  # noqa: S101  # entries is not empty
        if record is None:
            record = self._records[run_id] = MemoryRecord(run)
        ended_now = run.state.is_terminal and not record.run.state.is_terminal
        record.run = run
        record.entries.extend(entries)
        self._feed.add(run.target, entries)
        if entries[-1].type == EntryType.SNAPSHOT:
            del record.entries[: -self._max_events]
        self._set_expiry(record, ended_now=ended_now)
        if isinstance(command, Delete):
            self._records.pop(run_id, None)
        return record

    def _set_expiry(self, record: MemoryRecord, *, ended_now: bool) -> None:
        if ended_now and self._ttl_ms:
            record.expire_at_ms = self._clock() + self._ttl_ms
        live = self._live_ttl_ms and not record.run.state.is_terminal
        is_new = record.live_until_ms is None and live
        record.live_until_ms = self._clock() + self._live_ttl_ms if live else None
        moment = record.moment
        if moment is not None and (ended_now or is_new):
            heappush(self._moments, (moment, record.run.run_id))

    def _keep_payload(
        self, record: MemoryRecord, command: Command, result: RunResult | None
    ) -> None:
        if isinstance(command, Create) and command.input is not None:
            record.input_json = command.input.text
        if isinstance(command, (SetResult, Finish)) and command.result is not None:
            record.result_json = command.result.text
            record.result = result

    async def _entries(
        self, run_id: str, after: str | None, *, follow: bool, late: bool
    ) -> AsyncGenerator[JournalEntry]:
        cursor = None if after is None else Cursor.parse(after)
        record = self._record(run_id)
        seq = record.checked_seq(cursor)
        while True:
            while (entry := record.after(seq)) is not None:
                if not late and record.run.seal is not None and entry.seq > record.run.seal:
                    return
                if seq and entry.seq != seq + 1:
                    raise CursorGapError(
                        f"entries {seq + 1} to {entry.seq - 1} were trimmed away",
                        str(Cursor(entry.epoch, entry.ms, entry.seq - 1)),
                    )
                seq = entry.seq
                yield entry
            if not follow or record.run.seal is not None or self._is_deleted(record):
                return
            await self._wait(run_id, record)

    @staticmethod
    def _is_deleted(record: MemoryRecord) -> bool:
        return record.entries[-1].type == EntryType.DELETED

    async def _wait(self, run_id: str, record: MemoryRecord) -> None:
        changed = record.changed
        seconds: float | None = None
        if record.run.state.is_terminal:
            answer = self._perform(run_id, Seal())
            if answer[0] != "WAIT":
                return
            seconds = int(answer[1]) / 1000
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return
        if self._closed:
            raise StoreClosedError("the store was closed while a stream was open")
        if self._records.get(run_id) is not record and not self._is_deleted(record):
            raise CursorResetError(f"run {run_id!r} has expired", None)
