"""Removes runs, trimmed entries, and rows that stayed in the journal for the feed alone.

The journal is the feed. A row may go only when the feed's window has moved past it; the rows of a
run that is gone wait for that under the number that it had, and ``gone`` names their run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from murmur_streams.stores.local.sqlite.columns import GONE, write_numbers, write_rows
from murmur_streams.stores.local.sqlite.session import Row

# ruff: noqa: S608  # the statements are put together from names of our own; values are bound
# The unary plus keeps SQLite from walking the journal by n. The last seq of a run has its
# highest n.
_UNSEEN = "DELETE FROM journal INDEXED BY journal_by_run WHERE +n <= ? AND run_no IN"
BIG_CHARACTERS = 2_048
"""As JSON; half of it, at least, are values."""
_REMOVALS = (
    """INSERT INTO gone (run_no, run_id, target, epoch, last_n)
    SELECT no, run_id, target, runs.epoch, n FROM runs CROSS JOIN journal ON run_no = no
    AND seq = (SELECT max(seq) FROM journal WHERE run_no = no) WHERE no IN""",
    "DELETE FROM payloads WHERE run_no IN",
    "DELETE FROM versions WHERE run_no IN",
    "DELETE FROM runs WHERE no IN",
)
# A run is deleted to free its room: of its big entries the feed keeps only the type.
_SHORTEN = f"""UPDATE journal INDEXED BY journal_by_run
SET fields = json_object(
    'type', CASE WHEN json_valid(fields) THEN json_extract(fields, '$.type') ELSE '' END
)
WHERE length(fields) > {BIG_CHARACTERS} AND run_no IN"""
_LAST_FROM = "SELECT max(n) FROM journal WHERE run_no = ? AND seq >= ?"
_MOVE = """UPDATE journal INDEXED BY journal_by_run SET run_no = ?
WHERE run_no = ? AND seq >= ?"""
_TRIM = """DELETE FROM journal INDEXED BY journal_by_run
WHERE run_no = ? AND seq < ? AND +n <= ?"""
_START = """UPDATE feed_start SET n = ?1,
ms = coalesce((SELECT coalesce(feed_ms, ms) FROM journal WHERE n = ?1), ms)"""
_PASSED = "SELECT run_no FROM gone WHERE last_n <= ?1 ORDER BY last_n LIMIT ?2"
_PURGE_ROWS = f"""DELETE FROM journal WHERE n IN (
    SELECT n FROM ({_PASSED}) AS passed CROSS JOIN journal ON journal.run_no = passed.run_no
    LIMIT ?2
)"""
_PURGE_RUNS = f"DELETE FROM gone WHERE run_no IN ({_PASSED})"


def move_start(connection: sqlite3.Connection, n: int) -> None:
    """Note, before rows go, that the feed is whole above ``n`` only, for every process."""
    connection.execute(_START, (n,))


def remove_runs(connection: sqlite3.Connection, numbers: Sequence[int], start_n: int) -> None:
    """Remove runs with all that is theirs; what the feed shows above ``start_n`` stays there."""
    write_numbers(connection, _UNSEEN, numbers, start_n)
    write_numbers(connection, _SHORTEN, numbers)
    for statement in _REMOVALS:
        write_numbers(connection, statement, numbers)


def free_seqs(
    connection: sqlite3.Connection, no: int, seq: int, life: tuple[str, str, str], new_no: int
) -> bool:
    """Take the entries from a seq on away from a run, where the feed still shows them.

    They could not be read when the run was made anew, so it ends before them, and what it writes
    next has their seqs.

    Args:
        connection: in the group.
        no: the run's number.
        seq: of the first.
        life: run id, target and epoch, for the feed.
        new_no: the number that they get.

    Returns:
        Whether there were any.
    """
    last_n = connection.execute(_LAST_FROM, (no, seq)).fetchone()[0]
    if last_n is None:
        return False
    write_rows(connection, GONE, [(new_no, *life, last_n)])
    connection.execute(_MOVE, (new_no, no, seq))
    return True


def trim_journals(connection: sqlite3.Connection, trimmed: Sequence[Row], start_n: int) -> None:
    """Remove the entries of runs below a seq, but none that the feed shows.

    Those are the newest of their run, as the stored ones are: the journal stays contiguous and only
    has up to ``feed_max_entries`` more, which the next trimming finds.
    """
    connection.executemany(_TRIM, [(*row, start_n) for row in trimmed])


def purge_gone(connection: sqlite3.Connection, start_n: int, most: int) -> None:
    """Remove up to ``most`` rows of gone runs that the feed has passed; the rest comes later."""
    cursor = connection.execute(_PURGE_ROWS, (start_n, most))
    if cursor.rowcount < most:
        connection.execute(_PURGE_RUNS, (start_n, most))


def first_gone(connection: sqlite3.Connection) -> int | None:
    """The n of the feed at which the first gone run has its last row; None: there is none."""
    row = connection.execute("SELECT min(last_n) FROM gone").fetchone()
    return row[0] if type(row[0]) is int else None
