"""InMemoryRunStore: runs in this process's memory, for tests and programs of one process."""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from murmur_streams.core.model.commands import Command, Finish, SetResult
from murmur_streams.core.model.entries import JournalEntry, copied_entry
from murmur_streams.core.model.errors import StoreClosedError
from murmur_streams.core.model.feed import START, Position
from murmur_streams.core.model.results import AgentResult, GroupResult, RunResult
from murmur_streams.core.model.run import PayloadKind, Run, RunFilter, listing_key
from murmur_streams.stores.local.engine import database as engine
from murmur_streams.stores.local.engine.access import Access, Begin, Committed
from murmur_streams.stores.local.engine.run_writes import KnownRows
from murmur_streams.stores.local.engine.store import LocalRunStore
from murmur_streams.stores.local.engine.transaction import Transaction

_Row = TypeVar("_Row", str, tuple[int, str])
_Index = tuple[str, ...]
"""The name of an index: a ``Due``, or the range of a target's queue."""
_Position = tuple[int, str]
"""Where a run stands in an index: a moment or a score, then its id."""


@dataclass(slots=True)
class _RunRows:
    """All rows of one run."""

    stored: engine.Stored
    entries: list[JournalEntry] = field(default_factory=list[JournalEntry])
    """The stored part of the journal: seqs without a hole."""
    payloads: dict[PayloadKind, str] = field(default_factory=dict[PayloadKind, str])
    result: RunResult | None = None
    """The value whose JSON is the result's payload, when this process made it."""

    def after(self, seq: int, limit: int) -> list[JournalEntry]:
        """The first entries whose seq is above ``seq``."""
        first = max(0, seq - self.entries[0].seq + 1) if self.entries else 0
        return self.entries[first : first + max(0, limit)]


class MemoryDatabase(engine.Database):
    """Keeps the entries that the engine made; every reader gets copies, which it may change.

    Args:
        feed_max_entries: how many entries the feed keeps.
    """

    def __init__(self, feed_max_entries: int) -> None:
        self._runs: dict[str, _RunRows] = {}
        self._listing: list[str] = []
        """The listing keys of all runs, sorted."""
        self._indexes: dict[_Index, list[_Position]] = {}
        self._items: dict[engine.Space, dict[str, str]] = {space: {} for space in engine.Space}
        self._item_keys: dict[engine.Space, list[str]] = {space: [] for space in engine.Space}
        self._feed: deque[engine.FeedRow] = deque(maxlen=max(0, feed_max_entries))
        self._start = self._last = START
        """The positions just before the oldest stored entry of the feed, and of its last one."""

    def commit(self, changes: engine.Changes) -> Position:
        for run_id, change in changes.runs.items():
            self._change_run(run_id, change)
        for (space, key), text in changes.items.items():
            self._set_item(space, key, text)
        for target, entry in changes.feed:
            self._last = max(self._last[0], entry.ms), self._last[1] + 1
            if len(self._feed) == self._feed.maxlen:
                self._start = self._feed[0].position if self._feed else self._last
            self._feed.append(engine.FeedRow(self._last, target, entry))
        return self._last

    def reader(self) -> MemoryDatabase:
        return self

    def stored(self, run_id: str) -> engine.Stored | None:
        rows = self._runs.get(run_id)
        return None if rows is None else rows.stored

    def journal_rows(self, run_id: str, after_seq: int, limit: int) -> engine.RowPage | None:
        rows = self._runs.get(run_id)
        if rows is None:
            return None
        found = rows.after(after_seq, limit)
        return rows.stored, [(each.epoch, each.ms, each.seq, each.fields) for each in found]

    def stored_entries(self, run_id: str, after_seq: int, limit: int) -> list[JournalEntry]:
        rows = self._runs.get(run_id)
        return [] if rows is None else [*map(copied_entry, rows.after(after_seq, limit))]

    def payload(self, run_id: str, kind: PayloadKind) -> str | None:
        rows = self._runs.get(run_id)
        return None if rows is None else rows.payloads.get(kind)

    def listing(self, wanted: RunFilter, now_ms: int, limit: int, before: str | None) -> list[Run]:
        keys = self._listing
        end = len(keys) if before is None else bisect_left(keys, before)
        newest_first = (self._runs[keys[at][14:]].stored for at in range(end - 1, -1, -1))
        found = (
            stored.run
            for stored in newest_first
            if wanted.wants(stored.run)
            and (stored.expire_at_ms is None or stored.expire_at_ms > now_ms)
        )
        return list(islice(found, max(0, limit)))

    def due(self, what: engine.Due, until_ms: int, limit: int) -> list[str]:
        positions = self._indexes.get((what,), [])
        end = bisect_right(positions, until_ms, key=lambda position: position[0])
        return [run_id for _, run_id in positions[: max(0, min(end, limit))]]

    def queue(self, target: str, *, is_ready: bool, limit: int) -> list[tuple[int, str]]:
        return self._indexes.get(_queue_index(target, is_ready=is_ready), [])[: max(0, limit)]

    def feed(self, after_n: int, limit: int) -> list[engine.FeedRow]:
        first_n = self._last[1] - len(self._feed) + 1
        start = max(0, after_n + 1 - first_n)
        rows = islice(self._feed, start, start + max(0, limit))
        return [replace(row, entry=copied_entry(row.entry)) for row in rows]

    def feed_ends(self) -> tuple[Position, Position]:
        return self._start, self._last

    def item(self, space: engine.Space, key: str) -> str | None:
        return self._items[space].get(key)

    def items(self, wanted: engine.ItemRange) -> list[tuple[str, str]]:
        items, keys = self._items[wanted.space], self._item_keys[wanted.space]
        start, before = bisect_left(keys, wanted.first), wanted.before
        end = max(start, len(keys) if before is None else bisect_left(keys, before))
        limit = min(max(0, wanted.limit), end - start)
        newest_first = wanted.newest_first
        page = keys[end - limit : end][::-1] if newest_first else keys[start : start + limit]
        return [(key, items[key]) for key in page]

    def keep_result(self, run_id: str, text: str, result: RunResult) -> None:
        """Keep the value of a result beside its JSON, if that is the text that is stored."""
        rows = self._runs.get(run_id)
        if rows is not None and rows.payloads.get(PayloadKind.RESULT) is text:
            rows.result = result

    def result(self, run_id: str) -> RunResult | None:
        """The stored value; None when only JSON is stored, or no result."""
        rows = self._runs.get(run_id)
        return None if rows is None else rows.result

    def _change_run(self, run_id: str, change: engine.RunChange) -> None:
        rows, after = self._runs.get(run_id), change.after
        if rows is not None and not change.is_plain:
            self._remove_positions(rows.stored)
        if after is None:
            self._runs.pop(run_id, None)
            return
        if rows is None or change.is_new_life:
            rows = self._runs[run_id] = _RunRows(after)
        rows.stored = after
        if not change.is_plain:
            self._add_positions(after)
        rows.entries += change.entries
        if change.keep_from_seq is not None:
            del rows.entries[: max(0, change.keep_from_seq - rows.entries[0].seq)]
        if change.payloads:
            rows.payloads |= change.payloads
            if PayloadKind.RESULT in change.payloads:
                rows.result = None

    def _add_positions(self, stored: engine.Stored) -> None:
        insort(self._listing, listing_key(stored.run.created_ms, stored.run.run_id))
        for index, position in _positions(stored):
            insort(self._indexes.setdefault(index, []), position)

    def _remove_positions(self, stored: engine.Stored) -> None:
        _remove(self._listing, listing_key(stored.run.created_ms, stored.run.run_id))
        for index, position in _positions(stored):
            positions = self._indexes[index]
            _remove(positions, position)
            if not positions:
                del self._indexes[index]

    def _set_item(self, space: engine.Space, key: str, text: str | None) -> None:
        items, keys = self._items[space], self._item_keys[space]
        if text is None:
            if items.pop(key, None) is not None:
                _remove(keys, key)
            return
        if key not in items:
            insort(keys, key)
        items[key] = text


def _positions(stored: engine.Stored) -> Collection[tuple[_Index, _Position]]:
    """Where a run stands in each index that it is in."""
    run_id = stored.run.run_id
    found: list[tuple[_Index, _Position]] = [
        ((due,), (ms, run_id))
        for due in engine.Due
        if (ms := getattr(stored, due.value)) is not None
    ]
    if stored.queue is not None:
        index = _queue_index(stored.run.target, is_ready=stored.queue.is_ready)
        found.append((index, (stored.queue.score, run_id)))
    return found


def _queue_index(target: str, *, is_ready: bool) -> _Index:
    return "ready" if is_ready else "delayed", target


def _remove(rows: list[_Row], row: _Row) -> None:
    """Remove a row that is in a sorted list."""
    del rows[bisect_left(rows, row)]


T = TypeVar("T")


@dataclass(eq=False)
class MemoryAccess(Access):
    """Reads and writes at once, in the caller's thread: nothing here blocks."""

    database: MemoryDatabase
    begin: Begin
    committed: Committed
    is_closed: bool = False
    _known: KnownRows = field(default_factory=KnownRows)
    """The runs stay out of it: the database has them at hand."""

    async def open(self) -> None:
        self._check_open()

    async def stored(self, run_id: str) -> engine.Stored | None:
        self._check_open()
        return self.database.stored(run_id)

    async def read(self, call: Callable[[engine.Reader], T]) -> T:
        self._check_open()
        return call(self.database)

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        # No await between the decision and the rows: tasks of one loop cannot interleave here.
        self._check_open()
        group = self.begin(self.database, self._known)
        value = operation(group)
        group.finish()
        if not group.changes.is_empty:
            self.database.commit(group.changes)
            self.committed(group.written)
        return value

    async def close(self) -> None:
        self.is_closed = True

    def _check_open(self) -> None:
        if self.is_closed:
            raise StoreClosedError("the store is closed; open a new one")


class InMemoryRunStore(LocalRunStore):
    """Runs in this process's memory: every store's behaviour, for one store alone.

    Two of them share nothing. A call never waits, except for what it asks to wait for; the store
    belongs to no event loop, but to one thread at a time.

    Args: as LocalRunStore's.
    """

    def _make_access(self, begin: Begin, committed: Committed) -> MemoryAccess:
        self._database = MemoryDatabase(self._feed_max_entries)
        return MemoryAccess(self._database, begin, committed)

    @property
    def where(self) -> str:
        return "memory:"

    async def get_result(self, run_id: str) -> RunResult | None:
        """Read the result, as deep a copy as was stored; None until there is one."""
        await self._stored(run_id)
        value = self._database.result(run_id)
        return await super().get_result(run_id) if value is None else _copied(value)

    def _keep_result(self, run_id: str, command: Command, result: RunResult) -> None:
        payload = command.result if isinstance(command, (SetResult, Finish)) else None
        if isinstance(command, Finish) and command.claim is not None:
            # A worker's outputs are in the JSON form of their agent's declared type already.
            return
        if payload is not None:
            self._database.keep_result(run_id, payload.text, _copied(result))


def _copied(result: RunResult) -> RunResult:
    """A result that shares nothing that its owner could change."""
    # Its errors are shared: not every exception can be copied.
    if isinstance(result, GroupResult):
        outputs = {name: _copied_outcome(outcome) for name, outcome in result.outputs.items()}
        return result.model_copy(update={"outputs": outputs})
    return _copied_outcome(result)


def _copied_outcome(outcome: AgentResult[Any]) -> AgentResult[Any]:
    return outcome.model_copy(update={"output": copy.deepcopy(outcome.output)})
