"""SQLiteDatabase: writes groups of changes to a store in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, StoreError
from murmur_streams.core.model.feed import Position
from murmur_streams.stores.local.engine.database import (
    Changes,
    Database,
    Reader,
    RunChange,
    Stored,
)
from murmur_streams.stores.local.sqlite.reading import STORED, SQLiteReader
from murmur_streams.stores.local.sqlite.removal import (
    first_gone,
    free_seqs,
    move_start,
    purge_gone,
    remove_runs,
    trim_journals,
)
from murmur_streams.stores.local.sqlite.rows import (
    journal_row,
    read_stored,
    run_row,
    write_rows,
)
from murmur_streams.stores.local.sqlite.session import Row, Session

_MOST_NUMBERS = 50_000
_PURGED = 100
"""So many rows of gone runs a group removes at least, once the feed has passed them."""

_RUNS = """INSERT INTO runs (no, run_id, epoch, target, state, tenant, created_ms, expire_at_ms,
live_until_ms, overdue_ms, lease_until_ms, queue_ready, queue_score, fields) VALUES"""
_RUNS_AFTER = """ON CONFLICT (no) DO UPDATE SET epoch = excluded.epoch, target = excluded.target,
state = excluded.state, tenant = excluded.tenant, created_ms = excluded.created_ms,
expire_at_ms = excluded.expire_at_ms, live_until_ms = excluded.live_until_ms,
overdue_ms = excluded.overdue_ms, lease_until_ms = excluded.lease_until_ms,
queue_ready = excluded.queue_ready, queue_score = excluded.queue_score, fields = excluded.fields"""
_VERSIONS = "INSERT INTO versions (run_no, version, last_ms) VALUES"
_VERSIONS_AFTER = """ON CONFLICT (run_no) DO UPDATE SET version = excluded.version,
last_ms = excluded.last_ms"""
_JOURNAL = "INSERT INTO journal (n, run_no, seq, ms, feed_ms, fields) VALUES"
_GONE = "INSERT INTO gone (run_no, run_id, target, epoch, last_n) VALUES"
_PAYLOADS = "INSERT INTO payloads (run_no, kind, json) VALUES"
_PAYLOADS_AFTER = "ON CONFLICT (run_no, kind) DO UPDATE SET json = excluded.json"
_ITEMS = "INSERT INTO items (space, key, text) VALUES"
_ITEMS_AFTER = "ON CONFLICT (space, key) DO UPDATE SET text = excluded.text"
# Every number that a row may still have: of runs there are, of gone ones, and of what is left of
# those that somebody has removed by hand.
_NEXT_NO = """SELECT 1 + max((SELECT coalesce(max(no), 0) FROM runs),
(SELECT coalesce(max(run_no), 0) FROM gone), (SELECT coalesce(max(run_no), 0) FROM versions),
(SELECT coalesce(max(run_no), 0) FROM journal WHERE run_no < 1 << 62),
(SELECT coalesce(max(run_no), 0) FROM payloads WHERE run_no < 1 << 62))"""
_LAST_SEQ = """SELECT max(seq) FROM journal
WHERE run_no = (SELECT no FROM runs WHERE run_id = ?)"""
_EPOCH = "SELECT epoch FROM runs WHERE no = ?"


class _Head(NamedTuple):
    """The writer's knowledge of the file until another process writes."""

    next_no: int
    last: Position
    """Of the feed."""
    start_n: int
    """The feed is whole above it."""
    gone_n: int | None
    """When the feed's window has moved past it, there is something to purge."""


@dataclass(slots=True)
class _Rows:
    """The rows of one group, by table."""

    next_no: int
    removed: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    """By run id: number and epoch of the life that goes."""
    runs: list[Row] = field(default_factory=list[Row])
    versions: list[Row] = field(default_factory=list[Row])
    journal: list[Row] = field(default_factory=list[Row])
    untold: list[tuple[int, JournalEntry]] = field(default_factory=list[tuple[int, JournalEntry]])
    """Entries, by their run's number, that are not in the feed."""
    gone: dict[tuple[str, str, str], Row] = field(default_factory=dict[tuple[str, str, str], Row])
    """By run id, target and epoch: lives that began and ended within the group."""
    trimmed: list[Row] = field(default_factory=list[Row])
    payloads: list[Row] = field(default_factory=list[Row])

    def number(self) -> int:
        """The next free number of a run."""
        self.next_no += 1
        return self.next_no - 1


class SQLiteDatabase(SQLiteReader, Database):
    """The one connection that writes, of this process; a ``Database``."""

    def __init__(
        self, session: Session, feed_max_entries: int, open_session: Callable[[], Session]
    ) -> None:
        super().__init__(session, feed_max_entries)
        self._open_session = open_session
        self._written_version: int | None = None
        self._head: _Head | None = None
        self._numbers: dict[str, int] = {}

    def begin(self) -> bool:
        self._session.check_there()
        self._session.fetch("BEGIN IMMEDIATE")
        # Inside the group: no other process can write between this answer and the commit.
        try:
            version = self._session.data_version()
        except BaseException:
            self.rollback()
            raise
        is_foreign = version != self._written_version
        self._written_version = version
        if is_foreign:
            self._forget()
        return is_foreign

    def commit(self, changes: Changes) -> Position:
        connection = self._session.connection
        try:
            position = self._write(connection, changes)
            connection.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            self._abandon()
            raise self._conflict(changes) or self._session.failure(error) from error
        except sqlite3.Error as error:
            self._abandon()
            raise self._session.failure(error) from error
        except BaseException:
            self._abandon()
            raise
        return position

    def rollback(self) -> None:
        self._session.rollback()

    def reader(self) -> Reader:
        return SQLiteReader(self._open_session(), self._feed_max)

    def stored(self, run_id: str) -> Stored | None:
        row = self._session.first(STORED, (run_id,))
        if row is None:
            return None
        # A run that a group reads is mostly written by it, too.
        self._keep_number(run_id, row[-1])
        return read_stored(row)

    def close(self) -> None:
        self._forget()
        super().close()

    def _forget(self) -> None:
        self._head = None
        self._numbers.clear()

    def _abandon(self) -> None:
        self._forget()
        self._session.rollback()

    def _conflict(self, changes: Changes) -> StoreError | None:
        """The error for the run that has entries already where a group writes more."""
        for run_id, change in changes.runs.items():
            row = self._session.first(_LAST_SEQ, (run_id,))
            if row is None or row[0] is None or not change.entries or change.is_new_life:
                continue
            seq = change.entries[0].seq
            if type(row[0]) is not int or row[0] >= seq:
                return RunDamagedError(
                    run_id, f"its version is {seq - 1}, but its journal has entry {row[0]!a}"
                )
        return None

    def _write(self, connection: sqlite3.Connection, changes: Changes) -> Position:
        head = self._head or self._read_head()
        rows = _Rows(head.next_no)
        positions, last = _feed_positions(changes, head.last)
        for run_id, change in changes.runs.items():
            self._add_change(rows, run_id, change, positions)
        if positions:
            _add_gone(rows, changes, positions)
        if rows.untold:
            self._add_untold(rows)
        # In order, or pages would be split in the middle.
        rows.journal.sort()
        write_rows(connection, _JOURNAL, 6, "", rows.journal)
        write_rows(connection, _GONE, 5, "", list(rows.gone.values()))
        start_n, gone_n = self._let_go(connection, head, rows, last[1])
        write_rows(connection, _RUNS, 14, _RUNS_AFTER, rows.runs)
        write_rows(connection, _VERSIONS, 3, _VERSIONS_AFTER, rows.versions)
        write_rows(connection, _PAYLOADS, 3, _PAYLOADS_AFTER, rows.payloads)
        _write_items(connection, changes)
        self._head = _Head(rows.next_no, last, start_n, gone_n)
        return last

    def _read_head(self) -> _Head:
        next_no = self._session.first(_NEXT_NO)
        return _Head(
            1 if next_no is None else int(next_no[0]),
            self.feed_ends()[1],
            self._feed_start()[1],
            first_gone(self._session.connection),
        )

    def _let_go(
        self, connection: sqlite3.Connection, head: _Head, rows: _Rows, last_n: int
    ) -> tuple[int, int | None]:
        """Remove what goes; where the feed starts to be whole, and when to purge."""
        start_n, gone_n = max(head.start_n, last_n - self._feed_max), head.gone_n
        is_passed = gone_n is not None and gone_n <= start_n
        if not (rows.removed or rows.trimmed or rows.gone or is_passed):
            return head.start_n, gone_n
        if start_n > head.start_n:
            move_start(connection, start_n)
        if rows.removed:
            remove_runs(connection, [no for no, _ in rows.removed.values()], start_n)
        if rows.trimmed:
            trim_journals(connection, rows.trimmed, start_n)
        if is_passed:
            # More than comes in: the rows that wait become fewer.
            purge_gone(connection, start_n, _PURGED + 2 * len(rows.journal))
        return start_n, first_gone(connection)

    def _add_change(
        self, rows: _Rows, run_id: str, change: RunChange, positions: dict[int, Position]
    ) -> None:
        is_there = change.before is not None or change.is_repair
        no = self._number(run_id) if is_there else None
        if no is not None and (change.after is None or change.is_new_life):
            rows.removed[run_id] = no, self._epoch(no, change)
            del self._numbers[run_id]
            no = None
        if change.after is None:
            return
        is_new = no is None
        if no is None:
            no = rows.number()
            self._keep_number(run_id, no)
        elif change.is_repair:
            self._make_room(rows, no, change)
        run = change.after.run
        if is_new or change.is_repair or not change.is_plain:
            rows.runs.append(run_row(no, change.after))
        rows.versions.append((no, run.version, run.last_ms))
        for entry in change.entries:
            position = positions.pop(id(entry), None)
            if position is None:
                rows.untold.append((no, entry))
            else:
                rows.journal.append(journal_row(no, entry, position))
        if change.keep_from_seq is not None:
            rows.trimmed.append((no, change.keep_from_seq))
        rows.payloads.extend((no, str(kind), text) for kind, text in change.payloads.items())

    def _epoch(self, no: int, change: RunChange) -> str:
        if change.before is not None:
            return change.before.run.epoch
        row = self._session.first(_EPOCH, (no,))
        return "" if row is None else str(row[0])

    def _make_room(self, rows: _Rows, no: int, change: RunChange) -> None:
        """Let a rebuilt run go on after the last entry that could be read."""
        assert change.after is not None  # noqa: S101  # it is made anew
        run = change.after.run
        seq = change.entries[0].seq if change.entries else run.version + 1
        life = run.run_id, run.target, run.epoch
        if free_seqs(self._session.connection, no, seq, life, rows.next_no):
            rows.number()

    def _add_untold(self, rows: _Rows) -> None:
        row = self._session.first("SELECT min(n) FROM journal WHERE n < 0")
        first_n = (0 if row is None else row[0] or 0) - len(rows.untold)
        for n, (no, entry) in enumerate(rows.untold, first_n):
            rows.journal.append(journal_row(no, entry, (entry.ms, n)))

    def _number(self, run_id: str) -> int | None:
        no = self._numbers.get(run_id)
        if no is None:
            row = self._session.first("SELECT no FROM runs WHERE run_id = ?", (run_id,))
            if row is None:
                return None
            no = int(row[0])
            self._keep_number(run_id, no)
        return no

    def _keep_number(self, run_id: str, no: int) -> None:
        if len(self._numbers) >= _MOST_NUMBERS:
            self._numbers.clear()
        self._numbers[run_id] = no


def _feed_positions(changes: Changes, last: Position) -> tuple[dict[int, Position], Position]:
    """The places in the feed by the entries' ids, and the last of them."""
    ms, n = last
    positions: dict[int, Position] = {}
    for _, entry in changes.feed:
        ms, n = max(ms, entry.ms), n + 1
        positions[id(entry)] = ms, n
    return positions, (ms, n)


def _add_gone(rows: _Rows, changes: Changes, positions: dict[int, Position]) -> None:
    """Add the entries that are left: of lives that this group ends, some of which it began."""
    for target, entry in changes.feed:
        position = positions.get(id(entry))
        if position is None:
            continue
        no, epoch = rows.removed.get(entry.run_id, (0, None))
        if epoch != entry.epoch:
            life = (entry.run_id, target, entry.epoch)
            no = rows.gone[life][0] if life in rows.gone else rows.number()
            rows.gone[life] = (no, *life, position[1])
        rows.journal.append(journal_row(no, entry, position))


def _write_items(connection: sqlite3.Connection, changes: Changes) -> None:
    if not changes.items:
        return
    texts: list[Row] = []
    for (space, key), text in changes.items.items():
        if text is None:
            connection.execute("DELETE FROM items WHERE space = ? AND key = ?", (str(space), key))
        else:
            texts.append((str(space), key, text))
    write_rows(connection, _ITEMS, 3, _ITEMS_AFTER, texts)
