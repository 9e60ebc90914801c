"""SQLiteRunStore: runs in one file, which several processes of a machine may share."""

from __future__ import annotations

from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.stores.local.sqlite.opening import open_sqlite

LOOK_SECONDS = 0.02


class SQLiteRunStore(FileRunStore):
    """Runs in an SQLite file, shared by every process of this machine that opens it.

    A write of another process reaches a subscriber here at most ``LOOK_SECONDS`` and one read
    later: only while a reader waits, a thread asks SQLite fifty times a second whether the file
    has changed (``PRAGMA data_version``, some microseconds).

    Args and guarantees: as FileRunStore's.
    """

    look_seconds = LOOK_SECONDS

    def _open_database(self) -> Database:
        return open_sqlite(self.path, sync=self._sync, feed_max_entries=self._feed_max_entries)
