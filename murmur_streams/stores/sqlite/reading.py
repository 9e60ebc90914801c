"""SQLiteReader: what is read of a store in SQLite."""

from __future__ import annotations

from murmur_streams.core.entries import JournalEntry
from murmur_streams.core.feed import Place
from murmur_streams.core.pages import RunFilter
from murmur_streams.core.run import Run
from murmur_streams.stores.disk.database import Due, FeedRow, Kind, Space, Stored
from murmur_streams.stores.sqlite.rows import (
    STORED_COLUMNS,
    STORED_WIDTH,
    read_entry,
    read_run,
    read_stored,
)
from murmur_streams.stores.sqlite.session import Session

# ruff: noqa: S608  # the statements are put together from names of our own; values are bound
STORED = f"SELECT {STORED_COLUMNS} FROM runs LEFT JOIN versions ON run_no = no WHERE run_id = ?1"
"""The run with an id, for ``read_stored``."""
# One statement sees one moment: no transaction is needed for the run and its entries. The run is
# the first row, by the number in front.
_JOURNAL = f"""
SELECT 0, {STORED_COLUMNS} FROM runs LEFT JOIN versions ON run_no = no WHERE run_id = ?1
UNION ALL SELECT * FROM (
    SELECT 1, seq, ms, fields{", NULL" * (STORED_WIDTH - 3)} FROM journal
    WHERE run_no = (SELECT no FROM runs WHERE run_id = ?1) AND seq > ?2
    ORDER BY seq LIMIT ?3
)"""
_LAST_ENTRIES = """
SELECT runs.epoch, journal.ms, journal.seq, journal.fields
FROM runs CROSS JOIN journal ON run_no = no
WHERE run_id = ?1 ORDER BY seq DESC LIMIT ?2"""
_PAYLOAD = """
SELECT json FROM payloads WHERE run_no = (SELECT no FROM runs WHERE run_id = ?1) AND kind = ?2"""
_LISTING = """
SELECT {columns} FROM runs INDEXED BY {index} LEFT JOIN versions ON run_no = no
WHERE {wanted} (expire_at_ms IS NULL OR expire_at_ms > ?)
ORDER BY created_ms DESC, run_id DESC LIMIT ?"""
_DUE_INDEXES = {
    Due.EXPIRE: "runs_by_expire",
    Due.OVERDUE: "runs_by_overdue",
    Due.LEASE: "runs_by_lease",
}
_QUEUE = """
SELECT queue_score, run_id FROM runs INDEXED BY runs_by_queue
WHERE target = ?1 AND queue_ready = ?2 ORDER BY queue_score, run_id LIMIT ?3"""
# The window moves by itself: nothing is written when an entry leaves it.
_FEED = """
SELECT coalesce(feed_ms, journal.ms), journal.n, coalesce(runs.target, gone.target),
    coalesce(runs.run_id, gone.run_id), coalesce(runs.epoch, gone.epoch),
    journal.ms, seq, journal.fields
FROM journal LEFT JOIN runs ON no = journal.run_no LEFT JOIN gone ON gone.run_no = journal.run_no
WHERE journal.n > max(?1, (SELECT n FROM feed_start), (SELECT max(n) FROM journal) - ?3)
ORDER BY journal.n LIMIT ?2"""
# Whoever keeps a shorter feed may have removed what this window would show: feed_start knows.
_FEED_ENDS = """
SELECT feed_start.ms, feed_start.n, coalesce(first.feed_ms, first.ms), first.n,
    coalesce(last.feed_ms, last.ms), last.n
FROM feed_start
LEFT JOIN journal AS last ON last.n = (SELECT max(n) FROM journal) AND last.n > feed_start.n
LEFT JOIN journal AS first ON first.n = last.n - ?1 AND first.n > feed_start.n"""
_ITEM = "SELECT text FROM items WHERE space = ?1 AND key = ?2"
_ITEMS = """
SELECT key, text FROM items WHERE space = ? AND key >= ? {before}
ORDER BY key {direction} LIMIT ?"""


class SQLiteReader:
    """Reads by a connection of its own; a ``Reader``."""

    def __init__(self, session: Session, feed_max_entries: int) -> None:
        self._session = session
        self._feed_max = max(0, feed_max_entries)
        self._seen_version: int | None = None

    def stored(self, run_id: str) -> Stored | None:
        row = self._session.first(STORED, (run_id,))
        return None if row is None else read_stored(row)

    def journal(
        self, run_id: str, after_seq: int, limit: int
    ) -> tuple[Stored, list[JournalEntry]] | None:
        rows = self._session.fetch(_JOURNAL, (run_id, after_seq, limit))
        if not rows:
            return None
        stored = read_stored(rows[0][1:])
        epoch = stored.run.epoch
        return stored, [read_entry(run_id, epoch, row[2], row[1], row[3]) for row in rows[1:]]

    def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        rows = self._session.fetch(_LAST_ENTRIES, (run_id, count))
        return [read_entry(run_id, *row) for row in reversed(rows)]

    def payload(self, run_id: str, kind: Kind) -> str | None:
        row = self._session.first(_PAYLOAD, (run_id, str(kind)))
        return None if row is None else row[0]

    def listing(self, wanted: RunFilter, now_ms: int, limit: int, before: str | None) -> list[Run]:
        sql, values = listing_statement(wanted, now_ms, limit, before)
        return [read_run(row) for row in self._session.fetch(sql, values)]

    def due(self, what: Due, until_ms: int, limit: int) -> list[str]:
        sql, values = due_statement(what, until_ms, limit)
        return [row[0] for row in self._session.fetch(sql, values)]

    def queue(self, target: str, *, is_ready: bool, limit: int) -> list[tuple[int, str]]:
        rows = self._session.fetch(_QUEUE, (target, int(is_ready), limit))
        return [(score, run_id) for score, run_id in rows]

    def feed(self, after_n: int, limit: int) -> list[FeedRow]:
        return [
            FeedRow((ms, n), target, read_entry(run_id, *entry))
            for ms, n, target, run_id, *entry in self._session.fetch(
                _FEED, (after_n, limit, self._feed_max)
            )
        ]

    def feed_ends(self) -> tuple[Place, Place]:
        row = self._session.first(_FEED_ENDS, (self._feed_max,))
        if row is None:  # somebody emptied the table by hand
            return (0, 0), (0, 0)
        kept_ms, kept_n, first_ms, first_n, last_ms, last_n = row
        start = (kept_ms, kept_n) if first_n is None else (first_ms, first_n)
        return start, start if last_n is None else (last_ms, last_n)

    def item(self, space: Space, key: str) -> str | None:
        row = self._session.first(_ITEM, (str(space), key))
        return None if row is None else row[0]

    def items(
        self,
        space: Space,
        *,
        first: str = "",
        before: str | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> list[tuple[str, str]]:
        sql = _ITEMS.format(
            before="" if before is None else "AND key < ?",
            direction="DESC" if newest_first else "ASC",
        )
        values = [str(space), first, *([] if before is None else [before]), limit]
        return [(key, text) for key, text in self._session.fetch(sql, values)]

    def has_foreign_writes(self) -> bool:
        version = self._session.data_version()
        has_changed = version != self._seen_version
        self._seen_version = version
        return has_changed

    def close(self) -> None:
        self._session.close()


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
        values += [int(created_ms), run_id]
    index = f"runs_by_{next(iter(given), 'creation')}"
    sql = _LISTING.format(columns=STORED_COLUMNS, index=index, wanted=text)
    return sql, [*values, now_ms, limit]


def due_statement(what: Due, until_ms: int, limit: int) -> tuple[str, list[object]]:
    """The statement of what is due and its values."""
    sql = (
        f"SELECT run_id FROM runs INDEXED BY {_DUE_INDEXES[what]} WHERE {what} <= ?"
        f" ORDER BY {what}, run_id LIMIT ?"
    )
    return sql, [until_ms, limit]
