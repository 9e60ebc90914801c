"""Which version of the keys and rows a folder has, and the steps from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from murmur_streams.core.errors import StoreConfigurationError
from murmur_streams.stores.rocksdb import keys
from murmur_streams.stores.rocksdb.binding import WriteBatch
from murmur_streams.stores.rocksdb.failures import damaged, translated
from murmur_streams.stores.rocksdb.handle import Handle
from murmur_streams.stores.rocksdb.view import View

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
        found = _version_of(handle)
        if found is None:
            _write(handle, handle.batch(), version)
            return
        if found > version:
            raise StoreConfigurationError(
                f"{handle.path} was written by a newer murmur-streams (its rows are of version "
                f"{found}, this release knows {version}); upgrade: pip install -U murmur-streams"
            )
        for old in range(found, version):
            batch = handle.batch()
            try:
                migrations[old](View(handle.family, is_one_moment=False), batch)
                _write(handle, batch, old + 1)
            finally:
                batch.set_default_column_family(None)  # a traceback would keep the folder open


def _version_of(handle: Handle) -> int | None:
    view = View(handle.family, is_one_moment=False)
    row = view.get(keys.SCHEMA)
    if row is None and view.scan(b"", b"\xff", 1):
        raise damaged(handle.path, "it does not say which version its rows have")
    try:
        return None if row is None else int(row)
    except ValueError:
        raise damaged(handle.path, f"the version of its rows is {ascii(row)[:40]}") from None


def _write(handle: Handle, batch: WriteBatch, version: int) -> None:
    batch[keys.SCHEMA] = b"%d" % version
    handle.write(batch)
    handle.sync()
