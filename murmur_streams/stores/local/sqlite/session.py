"""One connection: patient with locks, and its errors are this package's."""

from __future__ import annotations

import sqlite3
import time
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from murmur_streams.core.model.errors import StoreError, StoreUnavailableError
from murmur_streams.stores.local.sqlite.failures import is_locked, is_undecodable, store_error
from murmur_streams.stores.local.sqlite.open_files import FileId, close_file, file_id

_FIRST_WAIT_SECONDS = 0.0002
_LONGEST_WAIT_SECONDS = 0.005

Row = tuple[Any, ...]


class SQLiteSession:
    """A connection to one file.

    SQLite's own patience sleeps up to 100 ms at a time: beside a busy process the turn never
    comes. This one asks again within 5 ms.
    """

    def __init__(
        self, connection: sqlite3.Connection, file: FileId, path: Path, busy_seconds: float
    ) -> None:
        self.connection = connection
        self.file = file
        self.path = path
        self._name = str(path)
        self._busy_seconds = busy_seconds
        # One that is forgotten is closed as well, so that its file is known to be no longer open.
        self._close = weakref.finalize(self, close_file, connection, file)
        self._close.atexit = False

    def fetch(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement and read all its rows, so that no read stays open.

        A text that is not UTF-8 is returned as bytes.
        """
        until, wait = time.monotonic() + self._busy_seconds, _FIRST_WAIT_SECONDS
        while True:
            try:
                return self.connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                if is_undecodable(error):
                    return self._fetch_leniently(sql, values)
                if (
                    not is_locked(error)
                    or self.connection.in_transaction
                    or time.monotonic() >= until
                ):
                    raise self.failure(error) from error
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def first(self, sql: str, values: Sequence[object] = ()) -> Row | None:
        """The first row; None when there is none."""
        rows = self.fetch(sql, values)
        return rows[0] if rows else None

    def value(self, sql: str, values: Sequence[object] = ()) -> Any:
        """The first value of the first row; None when there is none."""
        row = self.first(sql, values)
        return row[0] if row else None

    def check_there(self) -> None:
        """Refuse to write to a file that no path leads to any more.

        Raises:
            StoreUnavailableError: the path names another file now, or none.
        """
        try:
            is_there = file_id(self._name) == self.file
        except OSError:
            return  # the file system does not say
        if not is_there:
            raise StoreUnavailableError(
                f"{self.path} is not there any more (deleted, moved or replaced while it was "
                "open); nothing was written. Put it back, or open a new store"
            )

    def failure(self, error: sqlite3.Error) -> StoreError:
        """Make the error to raise instead of SQLite's."""
        return store_error(error, self.path, self._busy_seconds)

    @contextmanager
    def translated(self) -> Generator[None]:
        """Raise SQLite's errors as errors of this package."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.failure(error) from error

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Write all of what is done inside, or nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        """End a transaction, if there is one; what it wrote is gone, even if this fails."""
        with self.translated():
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close it; a second call does nothing."""
        with self.translated():
            self._close()

    def _fetch_leniently(self, sql: str, values: Sequence[object]) -> list[Row]:
        self.connection.text_factory = _text_or_bytes
        try:
            with self.translated():
                return self.connection.execute(sql, values).fetchall()
        finally:
            self.connection.text_factory = str


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
