"""Rows and values: runs and entries as columns, and statements that write many rows at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from types import NoneType
from typing import Any

from pydantic_core import SchemaValidator, core_schema, to_json

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import Run, run_from_fields, run_to_fields
from murmur_streams.stores.local.engine.database import QueuePosition, Stored
from murmur_streams.stores.local.sqlite.session import Row

# Few sizes, so that every statement is prepared once; falling by three, so that any number of
# rows needs few statements.
_SIZES = (100, 30, 10, 3, 1)

STORED_COLUMNS = (
    "version, last_ms, fields, run_id, epoch, target, state, tenant, created_ms,"
    " expire_at_ms, live_until_ms, overdue_ms, lease_until_ms, queue_ready, queue_score, no"
)
"""What ``read_stored`` reads, of ``runs LEFT JOIN versions ON run_no = no``."""
STORED_WIDTH = STORED_COLUMNS.count(",") + 1
_MOMENTS = ("expire_at_ms", "live_until_ms", "overdue_ms", "lease_until_ms", "queue_ready")
_NUMBER_OR_NONE = frozenset({int, NoneType})
# Reads and checks in one step, which costs no more than reading alone.
_TEXTS = SchemaValidator(
    core_schema.dict_schema(core_schema.str_schema(), core_schema.str_schema(), strict=True)
)
_OWN_COLUMNS = ("version", "last_ms", "epoch", "target", "state", "tenant", "created_ms")


def _encode(fields: Mapping[str, str]) -> str:
    return to_json(fields).decode()


def journal_row(no: int, entry: JournalEntry, position: Position) -> Row:
    """The row of an entry of the run ``no`` in the table ``journal``."""
    ms, n = position
    feed_ms = None if ms == entry.ms else ms
    return n, no, entry.seq, entry.ms, feed_ms, _encode(entry.fields)


def read_entry(run_id: str, epoch: str, ms: Any, seq: Any, fields: Any) -> JournalEntry:
    """An entry from its columns; RunDamagedError when one of them cannot be read."""
    if type(ms) is not int or type(seq) is not int:
        raise RunDamagedError(
            run_id, f"entry {_shown(seq)} has the ms {_shown(ms)}", can_rebuild=False
        )
    texts = read_texts(run_id, f"entry {seq}", fields, can_rebuild=False)
    return JournalEntry(run_id, epoch, ms, seq, texts)


def run_row(no: int, stored: Stored) -> Row:
    """The row of a run in the table ``runs``."""
    run = stored.run
    fields = run_to_fields(run)
    for name in _OWN_COLUMNS:
        fields.pop(name, None)
    queue = stored.queue
    return (
        no,
        run.run_id,
        run.epoch,
        run.target,
        str(run.state),
        run.tenant,
        run.created_ms,
        stored.expire_at_ms,
        stored.live_until_ms,
        stored.overdue_ms,
        stored.lease_until_ms,
        None if queue is None else int(queue.is_ready),
        None if queue is None else queue.score,
        _encode(fields),
    )


def read_stored(row: Row) -> Stored:
    """A run and its moments from ``STORED_COLUMNS``.

    Raises:
        RunDamagedError: what is stored of it cannot be read.
    """
    run = _read_run(row)
    if not _NUMBER_OR_NONE.issuperset(map(type, row[9:14])):
        moments = zip(_MOMENTS, row[9:14], strict=True)
        bad = [f"{name} is {_shown(value)}" for name, value in moments if _is_no_number(value)]
        raise RunDamagedError(run.run_id, ", ".join(bad))
    expire_at_ms, live_until_ms, overdue_ms, lease_until_ms, ready, score = row[9:15]
    queue = None
    if ready is not None:
        if type(score) is not int:
            raise RunDamagedError(run.run_id, f"queue_score is {_shown(score)}")
        queue = QueuePosition(bool(ready), score)
    return Stored(run, expire_at_ms, live_until_ms, overdue_ms, lease_until_ms, queue)


def _read_run(row: Row) -> Run:
    version, last_ms, text, run_id, epoch, target, state, tenant, created_ms = row[:9]
    for value in (run_id, epoch, target, "" if tenant is None else tenant):
        if type(value) is not str:
            raise RunDamagedError(str(run_id), f"a name of it is {_shown(value)}")
    fields = read_texts(run_id, "fields", text)
    fields["epoch"] = epoch
    fields["target"] = target
    fields["state"] = str(state)
    fields["created_ms"] = str(created_ms)
    if tenant is not None:
        fields["tenant"] = tenant
    if version is not None:
        fields["version"] = str(version)
        fields["last_ms"] = str(last_ms)
    return run_from_fields(run_id, fields)


def read_texts(run_id: str, what: str, text: Any, *, can_rebuild: bool = True) -> dict[str, str]:
    """A JSON object of texts, from a column; RunDamagedError when it is anything else."""
    if type(text) is str:
        try:
            return _TEXTS.validate_json(text)
        except ValueError:
            pass
    raise RunDamagedError(run_id, f"{what} is {_shown(text)}", can_rebuild=can_rebuild)


def write_rows(
    connection: sqlite3.Connection, before: str, width: int, after: str, rows: Sequence[Row]
) -> None:
    """Run ``<before> (?, …), (?, …) <after>`` for all rows, in as few statements as may be.

    Every call into SQLite lets go of the interpreter's lock and takes it back, which costs much
    when the event loop is busy: a statement per row would be dear.
    """
    at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            values = list(chain.from_iterable(rows[at : at + size])) if size > 1 else rows[at]
            connection.execute(_many_rows(before, width, after, size), values)
            at += size


def write_numbers(
    connection: sqlite3.Connection, before: str, numbers: Sequence[int], *first: int
) -> None:
    """Run ``<before> (?, …)`` for all numbers, as the list of an ``IN``.

    ``first``: values of ``before`` itself.
    """
    at = 0
    for size in _SIZES:
        while len(numbers) - at >= size:
            values = (*first, *numbers[at : at + size])
            connection.execute(_many_rows(before, size, "", 1), values)
            at += size


@lru_cache(maxsize=256)
def _many_rows(before: str, width: int, after: str, count: int) -> str:
    row = f"({','.join('?' * width)})"
    return f"{before} {','.join([row] * count)} {after}"


def _is_no_number(value: Any) -> bool:
    return type(value) not in _NUMBER_OR_NONE


def _shown(value: Any) -> str:
    return ascii(value[:40] if isinstance(value, (str, bytes)) else value)[:40]
