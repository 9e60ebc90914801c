"""Opens a folder: looks before it touches, refuses what is not a store of ours."""

from __future__ import annotations

from pathlib import Path

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.rocksdb import schema, shutdown_marker
from murmur_streams.stores.local.rocksdb.database import RocksDatabase
from murmur_streams.stores.local.rocksdb.handle import Handle
from murmur_streams.stores.local.rocksdb.inspect_folder import check_folder


def open_rocksdb(path: Path, *, sync: bool, feed_max_entries: int) -> Database:
    """Open the store in a folder, or make one where there is nothing.

    Args:
        path: the folder; it may be missing or empty, its parent may not be missing.
        sync: wait for the disk at each commit: not even a power loss takes what was written.
        feed_max_entries: about how many entries the feed keeps.

    Raises:
        StoreConfigurationError: it is in use, not a store of this package, of a newer version, or
            not permitted. Nothing in it was changed.
        StoreDamagedError: it cannot be read. Likewise.
        StoreFullError: the disk is full.
    """
    path = _absolute(path)
    check_folder(path)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreConfigurationError(
            f"{path} cannot be made ({error.strerror}); name a folder in one that is writable"
        ) from error
    handle = _taken(path)
    try:
        schema.check(handle)
        return RocksDatabase(handle, sync=sync, feed_max_entries=feed_max_entries)
    except BaseException:
        handle.close()
        raise


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except OSError as error:
        raise StoreConfigurationError(
            f"{path} cannot be opened: the process's own folder is gone ({error.strerror}); "
            "name an absolute path"
        ) from error


def _taken(path: Path) -> Handle:
    said = shutdown_marker.take(path)
    try:
        return Handle(path)
    except BaseException:
        shutdown_marker.put_back(path, said)
        raise
