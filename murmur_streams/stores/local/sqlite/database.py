"""SQLiteDatabase: writes groups of changes to a store in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, StoreError
from murmur_streams.core.model.feed import Position
from murmur_streams.stores.local.engine.database import Changes, Database, RunChange, Stored
from murmur_streams.stores.local.sqlite import columns, removal
from murmur_streams.stores.local.sqlite.columns import PAYLOADS, RUNS, VERSIONS
from murmur_streams.stores.local.sqlite.reading import STORED, SQLiteReader
from murmur_streams.stores.local.sqlite.session import Row, SQLiteSession

_MOST_NUMBERS = 50_000
_PURGED = 100
"""So many rows of gone runs a group removes at least, once the feed has passed them."""

# Every number that a row may still have: of runs there are, of gone ones, and of what is left of
# those that were removed by hand.
_NEXT_NO = """SELECT 1 + max((SELECT coalesce(max(no), 0) FROM runs),
(SELECT coalesce(max(run_no), 0) FROM gone), (SELECT coalesce(max(run_no), 0) FROM versions),
(SELECT coalesce(max(run_no), 0) FROM journal WHERE run_no < 1 << 62),
(SELECT coalesce(max(run_no), 0) FROM payloads WHERE run_no < 1 << 62))"""
_LAST_SEQ = """SELECT max(seq) FROM journal
WHERE run_no = (SELECT no FROM runs WHERE run_id = ?)"""
_NO = "SELECT no FROM runs WHERE run_id = ?"
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


class _Rows:
    """The rows of one group, by table.

    Each group makes one: a dataclass would call a function for each of its lists.
    """

    __slots__ = (
        "gone",
        "journal",
        "next_no",
        "outside_feed",
        "payloads",
        "removed",
        "runs",
        "trimmed",
        "versions",
    )

    def __init__(self, next_no: int) -> None:
        self.next_no = next_no
        self.removed: dict[str, tuple[int, str]] = {}
        """By run id: number and epoch of the life that goes."""
        self.runs: list[Row] = []
        self.versions: list[Row] = []
        self.journal: list[Row] = []
        self.outside_feed: list[tuple[int, JournalEntry]] = []
        """Entries, by their run's number, that are not in the feed."""
        self.gone: dict[tuple[str, str, str], Row] = {}
        """By run id, target and epoch: lives that began and ended within the group."""
        self.trimmed: list[Row] = []
        self.payloads: list[Row] = []

    def number(self) -> int:
        """The next free number of a run."""
        self.next_no += 1
        return self.next_no - 1


class SQLiteDatabase(SQLiteReader, Database):
    """The one connection that writes, of this process; a ``Database``."""

    def __init__(
        self,
        session: SQLiteSession,
        feed_max_entries: int,
        open_session: Callable[[], SQLiteSession],
    ) -> None:
        super().__init__(session, feed_max_entries)
        self._open_session = open_session
        self._written_version: int | None = None
        self._head: _Head | None = None
        self._numbers: dict[str, int] = {}

    def begin(self) -> bool:
        self._session.check_there()
        # Inside the group: no other process can write between this answer and the commit.
        try:
            version = self._session.begin()
        except BaseException:
            self.rollback()
            raise
        if is_foreign := version != self._written_version:
            self._written_version = version
            self._forget()
        return is_foreign

    def commit(self, changes: Changes) -> Position:
        connection = self._session.connection
        try:
            position = self._write(connection, changes)
            connection.execute("COMMIT")
        except BaseException as error:
            self._forget()
            self._session.rollback()
            if isinstance(error, sqlite3.IntegrityError) and (conflict := self._conflict(changes)):
                raise conflict from error
            if isinstance(error, sqlite3.Error):
                raise self._session.failure(error) from error
            raise
        return position

    def rollback(self) -> None:
        self._session.rollback()

    def reader(self) -> SQLiteReader:
        return SQLiteReader(self._open_session(), self._feed_max)

    def stored(self, run_id: str) -> Stored | None:
        row = self._session.first(STORED, (run_id,))
        if row is None:
            return None
        # A run that a group reads is mostly written by it, too.
        self._keep_number(run_id, row[-1])
        return columns.read_stored(row)

    def _forget(self) -> None:
        self._head = None
        self._numbers.clear()

    def _conflict(self, changes: Changes) -> StoreError | None:
        """The error for the run that has entries already where a group writes more."""
        for run_id, change in changes.runs.items():
            last_seq = self._session.value(_LAST_SEQ, (run_id,))
            if last_seq is None or not change.entries or change.is_new_life:
                continue
            seq = change.entries[0].seq
            if type(last_seq) is not int or last_seq >= seq:
                return RunDamagedError(
                    run_id, f"its version is {seq - 1}, but its journal has entry {last_seq!a}"
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
        if rows.outside_feed:
            self._add_outside_feed(rows)
        # In order, or pages would be split in the middle.
        rows.journal.sort()
        columns.write_rows(connection, columns.JOURNAL, rows.journal)
        columns.write_rows(connection, columns.GONE, [*rows.gone.values()])
        start_n, gone_n = self._let_go(connection, head, rows, last[1])
        tables = (RUNS, rows.runs), (VERSIONS, rows.versions), (PAYLOADS, rows.payloads)
        for insert, of_table in tables:
            columns.write_rows(connection, insert, of_table)
        if changes.items:
            _write_items(connection, changes)
        self._head = _Head(rows.next_no, last, start_n, gone_n)
        return last

    def _read_head(self) -> _Head:
        return _Head(
            self._session.value(_NEXT_NO),
            self.feed_ends()[1],
            self._feed_start()[1],
            removal.first_gone(self._session.connection),
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
            removal.move_start(connection, start_n)
        if rows.removed:
            removal.remove_runs(connection, [no for no, _ in rows.removed.values()], start_n)
        if rows.trimmed:
            removal.trim_journals(connection, rows.trimmed, start_n)
        if is_passed:
            # More than comes in: the rows that wait become fewer.
            removal.purge_gone(connection, start_n, _PURGED + 2 * len(rows.journal))
        return start_n, removal.first_gone(connection)

    def _add_change(
        self, rows: _Rows, run_id: str, change: RunChange, positions: dict[int, Position]
    ) -> None:
        is_there = change.before is not None or change.is_repair
        no = self._number(run_id) if is_there else None
        if no is not None and (change.after is None or change.is_new_life):
            before = change.before
            epoch = before.run.epoch if before else self._session.value(_EPOCH, (no,))
            rows.removed[run_id] = no, epoch
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
            rows.runs.append(columns.run_row(no, change.after, is_new=is_new))
        if not is_new:
            rows.versions.append((no, run.version, run.last_ms))
        for entry in change.entries:
            position = positions.pop(id(entry), None)
            if position is None:
                rows.outside_feed.append((no, entry))
            else:
                rows.journal.append(columns.journal_row(no, entry, position))
        if change.keep_from_seq is not None:
            rows.trimmed.append((no, change.keep_from_seq))
        rows.payloads.extend((no, str(kind), text) for kind, text in change.payloads.items())

    def _make_room(self, rows: _Rows, no: int, change: RunChange) -> None:
        """Let a rebuilt run go on after the last entry that could be read."""
        assert change.after is not None  # noqa: S101  # it is made anew
        run = change.after.run
        seq = change.entries[0].seq if change.entries else run.version + 1
        life = run.run_id, run.target, run.epoch
        if removal.free_seqs(self._session.connection, no, seq, life, rows.next_no):
            rows.number()

    def _add_outside_feed(self, rows: _Rows) -> None:
        lowest_n: int = self._session.value("SELECT min(n) FROM journal WHERE n < 0") or 0
        first_n = lowest_n - len(rows.outside_feed)
        for n, (no, entry) in enumerate(rows.outside_feed, first_n):
            rows.journal.append(columns.journal_row(no, entry, (entry.ms, n)))

    def _number(self, run_id: str) -> int | None:
        no = self._numbers.get(run_id)
        if no is None and (no := self._session.value(_NO, (run_id,))) is not None:
            self._keep_number(run_id, no)
        return no

    def _keep_number(self, run_id: str, no: int) -> None:
        if len(self._numbers) >= _MOST_NUMBERS:
            self._numbers.clear()
        self._numbers[run_id] = no


def _feed_positions(changes: Changes, last: Position) -> tuple[dict[int, Position], Position]:
    """The positions in the feed by the entries' ids, and the last of them."""
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
        rows.journal.append(columns.journal_row(no, entry, position))


def _write_items(connection: sqlite3.Connection, changes: Changes) -> None:
    texts: list[Row] = []
    for (space, key), text in changes.items.items():
        if text is None:
            connection.execute("DELETE FROM items WHERE space = ? AND key = ?", (str(space), key))
        else:
            texts.append((str(space), key, text))
    columns.write_rows(connection, columns.ITEMS, texts)
