"""Which version of the keys and rows a folder has, and the steps from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.local.rocksdb import keys
from murmur_streams.stores.local.rocksdb.binding import WriteBatch
from murmur_streams.stores.local.rocksdb.failures import damaged, translated
from murmur_streams.stores.local.rocksdb.handle import Handle
from murmur_streams.stores.local.rocksdb.view import View

Step = Callable[[View, WriteBatch], None]
"""Reads what a version wrote, and puts what makes it the next one into the batch."""

VERSION = 1
MIGRATIONS: Mapping[int, Step] = MappingProxyType({})
"""Version -> the step that makes it the next one."""


def check(
    handle: Handle, *, version: int = VERSION, migrations: Mapping[int, Step] = MIGRATIONS
) -> None:
    """Make the folder one of this version.

    Each step is one batch with its version: when it fails, the folder is what it was before it.

    Args:
        handle: the open folder.
        version: the version that this release writes.
        migrations: how to get there.

    Raises:
        StoreConfigurationError: a newer release wrote it.
        StoreDamagedError: it has rows, but does not say of which version.
    """
    with translated(handle.path):
        view = View(handle.family, is_one_moment=False)
        found = known_version(handle.path, view, version=version)
        if found is None:
            _write(handle, handle.batch(), version)
            return
        for old in range(found, version):
            batch = handle.batch()
            try:
                migrations[old](View(handle.family, is_one_moment=False), batch)
                _write(handle, batch, old + 1)
            finally:
                batch.set_default_column_family(None)  # a traceback would keep the folder open


def known_version(path: Path, view: View, *, version: int = VERSION) -> int | None:
    """The version of the folder's rows; None when it has none yet.

    Args:
        path: of the folder, for errors.
        view: of its rows.
        version: the newest that is known.

    Raises:
        StoreConfigurationError: it is a newer one.
        StoreDamagedError: there are rows, but they do not say of which version.
    """
    row = view.get(keys.SCHEMA)
    if row is None:
        if view.scan(b"", b"\xff", 1):
            raise damaged(path, "it does not say which version its rows have")
        return None
    try:
        found = int(row)
    except ValueError:
        raise damaged(path, f"the version of its rows is {ascii(row)[:40]}") from None
    if found > version:
        raise StoreConfigurationError(
            f"{path} was written by a newer murmur-streams (its rows are of version {found}, this "
            f"release knows {version}); upgrade: pip install -U murmur-streams"
        )
    return found


def _write(handle: Handle, batch: WriteBatch, version: int) -> None:
    batch[keys.SCHEMA] = b"%d" % version
    handle.write(batch)
    handle.sync()
