"""RocksDBRunStore: runs in a folder that one process has for itself."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Unpack

from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.stores.local.engine.store import LocalOptions


class RocksDBRunStore(FileRunStore):
    """Runs in a RocksDB folder, which only one process and one store may have open.

    Args and guarantees: as FileRunStore's. A second opener gets StoreConfigurationError.

    Raises:
        ImportError: the extra ``rocksdb`` is not installed.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, sync: bool = False, **options: Unpack[LocalOptions]
    ) -> None:
        if find_spec("rocksdict") is None:
            raise ImportError(
                "RocksDBRunStore needs rocksdict: pip install 'murmur-streams[rocksdb]'"
            )
        super().__init__(path, sync=sync, **options)

    def _open_database(self) -> Database:
        from murmur_streams.stores.local.rocksdb.opening import open_rocksdb

        return open_rocksdb(self.path, sync=self._sync, feed_max_entries=self._feed_max_entries)
