"""Opens a folder: looks before it touches, refuses what is not a store of ours, migrates rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.rocksdb import keys
from murmur_streams.stores.local.rocksdb.binding import rocksdict
from murmur_streams.stores.local.rocksdb.database import RocksDatabase
from murmur_streams.stores.local.rocksdb.failures import translated
from murmur_streams.stores.local.rocksdb.inspect_folder import VERSION, check_folder, known_version
from murmur_streams.stores.local.rocksdb.open_folder import OpenFolder
from murmur_streams.stores.local.rocksdb.view import View

Step = Callable[[View, rocksdict.WriteBatch], None]
"""Reads what a version wrote, and puts what makes it the next one into the batch."""

MIGRATIONS: Mapping[int, Step] = MappingProxyType({})
"""Version -> the step that makes it the next one."""


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
    try:
        path = path.absolute()
    except OSError as error:
        raise StoreConfigurationError(
            f"{path} cannot be opened: the process's own folder is gone ({error.strerror}); "
            "name an absolute path"
        ) from error
    check_folder(path)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreConfigurationError(
            f"{path} cannot be made ({error.strerror}); name a folder in one that is writable"
        ) from error
    folder = OpenFolder(path)
    try:
        migrate(folder)
        return RocksDatabase(folder, sync=sync, feed_max_entries=feed_max_entries)
    except BaseException:
        folder.close()
        raise


def migrate(
    folder: OpenFolder, *, version: int = VERSION, migrations: Mapping[int, Step] = MIGRATIONS
) -> None:
    """Make the rows of a folder those of this version; mark an empty folder with it.

    Each step is one batch with its version: when it fails, the folder is what it was before it.

    Args:
        folder: open.
        version: the version that this release writes.
        migrations: how to get there.

    Raises:
        StoreConfigurationError: a newer release wrote it.
        StoreDamagedError: it has rows, but does not say of which version.
    """
    with translated(folder.path):
        view = View(folder.family, is_one_moment=False)
        found = known_version(folder.path, view, version=version)
        for old in range(version - 1 if found is None else found, version):
            with folder.batch() as batch:
                if found is not None:
                    migrations[old](view, batch)
                batch[keys.SCHEMA] = b"%d" % (old + 1)
                folder.write(batch)
                folder.sync()
