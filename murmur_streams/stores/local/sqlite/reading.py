"""SQLiteReader: what is read of a store in SQLite."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, StoreDamagedError
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import PayloadKind, Run, RunFilter
from murmur_streams.stores.local.engine import database as engine
from murmur_streams.stores.local.sqlite import columns
from murmur_streams.stores.local.sqlite.session import Row, SQLiteSession
from murmur_streams.stores.local.sqlite.tables import no_feed_start

# ruff: noqa: S608  # the statements are put together from names of our own; values are bound
STORED = f"""
SELECT {columns.STORED} FROM runs LEFT JOIN versions ON run_no = no WHERE run_id = ?1"""
"""The run with an id, for ``read_stored``."""
_JOURNAL = """
SELECT seq, ms, fields FROM journal
WHERE run_no = (SELECT no FROM runs WHERE run_id = ?1) AND seq > ?2 ORDER BY seq LIMIT ?3"""
_STORED_ENTRIES = """
SELECT runs.epoch, journal.ms, journal.seq, journal.fields
FROM runs CROSS JOIN journal ON run_no = no
WHERE run_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3"""
_FIRST_FIELDS = """
SELECT fields FROM journal WHERE run_no = (SELECT no FROM runs WHERE run_id = ?1)
ORDER BY seq LIMIT 1"""
_PAYLOAD = """
SELECT json FROM payloads WHERE run_no = (SELECT no FROM runs WHERE run_id = ?1) AND kind = ?2"""
_LISTING = """
SELECT {columns} FROM runs INDEXED BY {index} LEFT JOIN versions ON run_no = no
WHERE {wanted} (expire_at_ms IS NULL OR expire_at_ms > ?)
ORDER BY created_ms DESC, run_id DESC LIMIT ?"""
_QUEUE = """
SELECT queue_score, run_id FROM runs INDEXED BY runs_by_queue
WHERE target = ?1 AND queue_ready = ?2 AND typeof(queue_score) = 'integer'
AND typeof(run_id) = 'text' ORDER BY queue_score, run_id LIMIT ?3"""
# The window moves by itself: nothing is written when an entry leaves it.
_FEED = """
SELECT coalesce(feed_ms, journal.ms), journal.n, coalesce(runs.target, gone.target),
    coalesce(runs.run_id, gone.run_id), coalesce(runs.epoch, gone.epoch),
    journal.ms, seq, journal.fields
FROM journal LEFT JOIN runs ON no = journal.run_no LEFT JOIN gone ON gone.run_no = journal.run_no
WHERE journal.n > max(?1, (SELECT n FROM feed_start), (SELECT max(n) FROM journal) - ?3)
ORDER BY journal.n LIMIT ?2"""
# A process with a shorter feed may have removed rows of this window: feed_start records it.
_FEED_ENDS = """
SELECT feed_start.ms, feed_start.n, coalesce(first.feed_ms, first.ms), first.n,
    coalesce(last.feed_ms, last.ms), last.n
FROM feed_start
LEFT JOIN journal AS last ON last.n = (SELECT max(n) FROM journal) AND last.n > feed_start.n
LEFT JOIN journal AS first ON first.n = last.n - ?1 AND first.n > feed_start.n"""
_FEED_START = "SELECT ms, n FROM feed_start"
_ITEM = "SELECT text FROM items WHERE space = ?1 AND key = ?2"
_ITEMS = """
SELECT key, text FROM items WHERE space = ? AND key >= ? {before}
ORDER BY key {direction} LIMIT ?"""


_UNKNOWN_EPOCH = "00000000"
_MOST = 2**62
"""SQLite's numbers end at 2**63."""


class SQLiteReader(engine.Reader):
    """Reads by a connection of its own; a ``Reader``."""

    def __init__(self, session: SQLiteSession, feed_max_entries: int) -> None:
        self._session = session
        self._feed_max = _count(feed_max_entries)
        self._seen_version: int | None = None

    def stored(self, run_id: str) -> engine.Stored | None:
        row = self._session.first(STORED, (run_id,))
        return None if row is None else columns.read_stored(row)

    def journal_rows(self, run_id: str, after_seq: int, limit: int) -> engine.RowPage | None:
        entries = _JOURNAL, (run_id, _number(after_seq), _count(limit))
        found, rows = self._session.fetch_both((STORED, (run_id,)), entries)
        if not found:
            return None
        stored = columns.read_stored(found[0])
        return stored, columns.read_entry_rows(run_id, stored.run.epoch, rows)

    def stored_entries(self, run_id: str, after_seq: int, limit: int) -> list[JournalEntry]:
        after_seq, limit = _number(after_seq), _count(limit)
        while True:
            rows = self._session.fetch(_STORED_ENTRIES, (run_id, after_seq, limit))
            entries = self._readable(run_id, rows)
            # A seq that is not a number sorts after all numbers.
            if entries or len(rows) < max(1, limit) or type(rows[-1][2]) is not int:
                return entries
            after_seq = rows[-1][2]

    def payload(self, run_id: str, kind: PayloadKind) -> str | None:
        text = self._session.value(_PAYLOAD, (run_id, str(kind)))
        if text is not None and type(text) is not str:
            raise RunDamagedError(run_id, f"its {kind} is not text", can_rebuild=False)
        return text

    def listing(self, wanted: RunFilter, now_ms: int, limit: int, before: str | None) -> list[Run]:
        limit = look = _count(limit)
        while True:
            sql, values = listing_statement(wanted, _number(now_ms), look, before)
            rows = self._session.fetch(sql, values)
            runs: list[Run] = []
            for row in rows:
                with suppress(RunDamagedError):
                    runs.append(columns.read_stored(row).run)
            if len(runs) >= limit or len(rows) < look:
                return runs[:limit]
            look *= 2  # some cannot be read: a page must not end before the store does

    def due(self, what: engine.Due, until_ms: int, limit: int) -> list[str]:
        sql, values = due_statement(what, _number(until_ms), _count(limit))
        return [row[0] for row in self._session.fetch(sql, values)]

    def queue(self, target: str, *, is_ready: bool, limit: int) -> list[tuple[int, str]]:
        rows = self._session.fetch(_QUEUE, (target, int(is_ready), _count(limit)))
        return [(score, run_id) for score, run_id in rows]

    def feed(self, after_n: int, limit: int) -> list[engine.FeedRow]:
        values = (_number(after_n), _count(limit), self._feed_max)
        rows = self._session.fetch(_FEED, values)
        if not rows:
            self._feed_start()
        return [_feed_row(row) for row in rows]

    def feed_ends(self) -> tuple[Position, Position]:
        start, row = self._start_in(_FEED_ENDS, self._feed_max)
        first_ms, first_n, last_ms, last_n = row
        start = start if first_n is None else (_whole(first_ms), first_n)
        return start, start if last_n is None else (_whole(last_ms), last_n)

    def item(self, space: engine.Space, key: str) -> str | None:
        text = self._session.value(_ITEM, (str(space), key))
        return None if text is None else self._text(space, key, text)

    def items(self, wanted: engine.ItemRange) -> list[tuple[str, str]]:
        before = [] if wanted.before is None else [wanted.before]
        sql = _ITEMS.format(
            before="AND key < ?" if before else "",
            direction="DESC" if wanted.newest_first else "ASC",
        )
        values = [str(wanted.space), wanted.first, *before, _count(wanted.limit)]
        return [
            (self._text(wanted.space, key, key), self._text(wanted.space, key, text))
            for key, text in self._session.fetch(sql, values)
        ]

    def has_foreign_writes(self) -> bool:
        version = self._session.value("PRAGMA data_version")
        has_changed = version != self._seen_version
        self._seen_version = version
        return has_changed

    def close(self) -> None:
        self._session.close()

    def _feed_start(self) -> Position:
        return self._start_in(_FEED_START)[0]

    def _start_in(self, sql: str, *values: int) -> tuple[Position, Row]:
        """The position before the feed, which a row begins with, and the rest of the row."""
        row = self._session.first(sql, values)
        if row is None or type(row[0]) is not int or type(row[1]) is not int:
            raise no_feed_start(self._session.path)
        return (row[0], row[1]), row[2:]

    def _readable(self, run_id: str, rows: list[Row]) -> list[JournalEntry]:
        entries: list[JournalEntry] = []
        epoch = rows[0][0] if rows else ""
        if rows and (type(epoch) is not str or not epoch):
            epoch = self._first_epoch(run_id)
        for _, ms, seq, fields in rows:
            with suppress(RunDamagedError):
                entries.append(columns.read_entry(run_id, epoch, ms, seq, fields))
        return entries

    def _first_epoch(self, run_id: str) -> str:
        """The epoch by the journal's first entry, when the run's row has none."""
        text = self._session.value(_FIRST_FIELDS, (run_id,))
        with suppress(RunDamagedError):
            return columns.read_texts(run_id, text).get("epoch") or _UNKNOWN_EPOCH
        return _UNKNOWN_EPOCH

    def _text(self, space: engine.Space, key: Any, text: Any) -> str:
        if type(text) is str:
            return text
        raise StoreDamagedError(
            f"{self._session.path} is damaged (in the table items, {space} {ascii(key)[:60]} is "
            "not text) and was left as it is; put a backup in its place, or delete that row"
        )


def listing_statement(
    wanted: RunFilter, now_ms: int, limit: int, before: str | None
) -> tuple[str, list[object]]:
    """The statement of a listing and its values; INDEXED BY makes its cost sure."""
    conditions = {"tenant": wanted.tenant, "target": wanted.target, "state": wanted.state}
    given = {name: str(value) for name, value in conditions.items() if value is not None}
    text = "".join(f"{name} = ? AND " for name in given)
    values: list[object] = list(given.values())
    if before is not None:
        created_ms, _, run_id = before.partition(":")
        text += "(created_ms, run_id) < (?, ?) AND "
        values += [_number(int(created_ms)), run_id]
    index = f"runs_by_{next(iter(given), 'creation')}"
    sql = _LISTING.format(columns=columns.STORED, index=index, wanted=text)
    return sql, [*values, now_ms, limit]


def due_statement(what: engine.Due, until_ms: int, limit: int) -> tuple[str, list[object]]:
    """The statement of what is due and its values."""
    sql = (
        f"SELECT run_id FROM runs INDEXED BY runs_by_{what.name.lower()} WHERE {what} <= ?"
        f" AND typeof(run_id) = 'text' ORDER BY {what}, run_id LIMIT ?"
    )
    return sql, [until_ms, limit]


def _feed_row(row: Row) -> engine.FeedRow:
    """A row of the feed; one that cannot be read stays, with an entry without a type.

    The feed serves readers of all runs: it must not end at rows of one run that were changed by
    hand, and a missing position would look like lost entries.
    """
    feed_ms, n, target, run_id, epoch, ms, seq, fields = row
    position = _whole(feed_ms), n
    if type(target) is str and type(run_id) is str and type(epoch) is str:
        with suppress(RunDamagedError):
            return engine.FeedRow(
                position, target, columns.read_entry(run_id, epoch, ms, seq, fields)
            )
    run_id, epoch, target = (each if type(each) is str else "" for each in (run_id, epoch, target))
    nothing = JournalEntry(run_id, epoch or _UNKNOWN_EPOCH, position[0], _whole(seq), {"type": ""})
    return engine.FeedRow(position, target, nothing)


def _whole(ms: Any) -> int:
    return ms if type(ms) is int else 0


def _count(limit: int) -> int:
    return min(max(0, limit), _MOST)


def _number(value: int) -> int:
    return min(max(-_MOST, value), _MOST)
