"""Rows and values: runs and entries as columns, and statements that write many rows at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from types import NoneType
from typing import Any, NamedTuple, TypeVar

from pydantic_core import to_json

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import Run, run_from_fields, run_to_fields
from murmur_streams.stores.local.engine.database import EntryRow, QueuePosition, Stored
from murmur_streams.stores.local.engine.fields_json import FIELDS
from murmur_streams.stores.local.sqlite.session import Row

T = TypeVar("T")

# Few sizes, so that every statement is prepared once; falling by three, so that any number of
# rows needs few statements.
_SIZES = (100, 30, 10, 3, 1)

_NAMES = ("run_id", "epoch", "target", "tenant", "created_ms")
_MOMENTS = ("expire_at_ms", "live_until_ms", "overdue_ms", "lease_until_ms")
_names_of, _moments_of = attrgetter(*_NAMES), attrgetter(*_MOMENTS)
_RUN_COLUMNS = f"fields, state, {', '.join(_NAMES + _MOMENTS)}, queue_ready, queue_score, no"
STORED = f"version, last_ms, {_RUN_COLUMNS}"
"""What ``read_stored`` reads, of ``runs LEFT JOIN versions ON run_no = no``."""
_NUMBER_OR_NONE = frozenset({int, NoneType})
_OWN_COLUMNS = ("state", *_NAMES)


class Insert(NamedTuple):
    """A statement that inserts rows into a table, or replaces those that are there."""

    before: str
    """The text before the rows."""
    width: int
    after: str = ""


def _insert(table: str, columns: str, *, unique: str = "", constant: str = "") -> Insert:
    """An insert; with ``unique`` columns, a row of theirs is replaced but for what is constant."""
    names, same = columns.split(", "), {*unique.split(", "), constant}
    changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in same)
    after = f"ON CONFLICT ({unique}) DO UPDATE SET {changes}" if unique else ""
    return Insert(f"INSERT INTO {table} ({columns}) VALUES", len(names), after)


RUNS = _insert("runs", _RUN_COLUMNS, unique="no", constant="run_id")
VERSIONS = _insert("versions", "run_no, version, last_ms", unique="run_no")
JOURNAL = _insert("journal", "n, run_no, seq, ms, feed_ms, fields")
GONE = _insert("gone", "run_no, run_id, target, epoch, last_n")
PAYLOADS = _insert("payloads", "run_no, kind, json", unique="run_no, kind")
ITEMS = _insert("items", "space, key, text", unique="space, key")


def journal_row(no: int, entry: JournalEntry, position: Position) -> Row:
    """The row of an entry of the run ``no`` in the table ``journal``."""
    ms, n = position
    feed_ms = None if ms == entry.ms else ms
    return n, no, entry.seq, entry.ms, feed_ms, to_json(entry.fields).decode()


def read_entry(run_id: str, epoch: str, ms: Any, seq: Any, fields: Any) -> JournalEntry:
    """An entry from its columns; RunDamagedError when one of them cannot be read."""
    return JournalEntry(run_id, epoch, ms, seq, read_entry_fields(run_id, ms, seq, fields))


def read_entry_rows(run_id: str, epoch: str, rows: Sequence[Row]) -> list[EntryRow]:
    """The entries of rows of seq, ms and fields; RunDamagedError when one cannot be read."""
    decode = FIELDS.validate_json
    with suppress(ValueError):
        # In one loop without calls of our own: a replay spends a fifth of its time here.
        found = [
            (epoch, ms, seq, decode(text))
            for seq, ms, text in rows
            if type(ms) is type(seq) is int and type(text) is str
        ]
        if len(found) == len(rows):
            return found
    return [(epoch, ms, seq, read_entry_fields(run_id, ms, seq, text)) for seq, ms, text in rows]


def read_entry_fields(run_id: str, ms: Any, seq: Any, fields: Any) -> dict[str, str]:
    """The fields of an entry; RunDamagedError when one of its columns cannot be read."""
    if type(ms) is not int or type(seq) is not int:
        raise RunDamagedError(
            run_id, f"entry {_shown(seq)} has the ms {_shown(ms)}", can_rebuild=False
        )
    return read_texts(run_id, fields, seq)


def run_row(no: int, stored: Stored, *, is_new: bool = False) -> Row:
    """The row of a run in the table ``runs``; a new run has no row in ``versions`` yet."""
    run = stored.run
    fields = run_to_fields(run)
    for name in _OWN_COLUMNS:
        fields.pop(name, None)
    if not is_new:
        del fields["version"], fields["last_ms"]
    queue = stored.queue
    position = (None, None) if queue is None else (int(queue.is_ready), queue.score)
    return (
        to_json(fields).decode(),
        str(run.state),
        *_names_of(run),
        *_moments_of(stored),
        *position,
        no,
    )


def read_stored(row: Row) -> Stored:
    """A run and its moments from ``STORED``.

    Raises:
        RunDamagedError: what is stored of it cannot be read.
    """
    run = _read_run(row)
    if not _NUMBER_OR_NONE.issuperset(map(type, row[9:14])):
        moments = zip((*_MOMENTS, "queue_ready"), row[9:14], strict=True)
        bad = [
            f"{name} is {_shown(value)}"
            for name, value in moments
            if type(value) not in _NUMBER_OR_NONE
        ]
        raise RunDamagedError(run.run_id, ", ".join(bad))
    expire_at_ms, live_until_ms, overdue_ms, lease_until_ms, ready, score = row[9:15]
    queue = None
    if ready is not None:
        if type(score) is not int:
            raise RunDamagedError(run.run_id, f"queue_score is {_shown(score)}")
        queue = QueuePosition(bool(ready), score)
    return Stored(run, expire_at_ms, live_until_ms, overdue_ms, lease_until_ms, queue)


def _read_run(row: Row) -> Run:
    version, last_ms, text, state, run_id, epoch, target, tenant, created_ms = row[:9]
    for value in (run_id, epoch, target, "" if tenant is None else tenant):
        if type(value) is not str:
            raise RunDamagedError(str(run_id), f"a name of it is {_shown(value)}")
    fields = read_texts(run_id, text)
    fields |= {"epoch": epoch, "target": target, "state": str(state), "created_ms": str(created_ms)}
    if tenant is not None:
        fields["tenant"] = tenant
    if version is not None:
        fields |= {"version": str(version), "last_ms": str(last_ms)}
    return run_from_fields(run_id, fields)


def read_texts(run_id: str, text: Any, seq: int | None = None) -> dict[str, str]:
    """The fields of a run or of its entry ``seq``; RunDamagedError when they cannot be read."""
    if type(text) is str:
        try:
            return FIELDS.validate_json(text)
        except ValueError:
            pass
    what = "fields" if seq is None else f"entry {seq}"
    raise RunDamagedError(run_id, f"{what} is {_shown(text)}", can_rebuild=seq is None)


def write_rows(connection: sqlite3.Connection, insert: Insert, rows: Sequence[Row]) -> None:
    """Insert rows in as few statements as may be.

    Every call into SQLite lets go of the interpreter's lock and takes it back, which costs much
    when the event loop is busy: a statement per row would be dear.
    """
    if not rows:
        return
    if len(rows) == 1:
        connection.execute(_many_rows(*insert, 1), rows[0])
        return
    for part in _parts(rows):
        connection.execute(_many_rows(*insert, len(part)), [*chain.from_iterable(part)])


def write_numbers(
    connection: sqlite3.Connection, before: str, numbers: Sequence[int], *first: int
) -> None:
    """Run ``<before> (?, …)`` for all numbers, as the list of an ``IN``.

    ``first``: values of ``before`` itself.
    """
    for part in _parts(numbers):
        connection.execute(_many_rows(before, len(part), "", 1), (*first, *part))


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


@lru_cache(maxsize=256)
def _many_rows(before: str, width: int, after: str, count: int) -> str:
    row = f"({','.join('?' * width)})"
    return f"{before} {','.join([row] * count)} {after}"


def _shown(value: Any) -> str:
    return ascii(value[:40] if isinstance(value, (str, bytes)) else value)[:40]
