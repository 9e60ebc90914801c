"""The stores on disk, for tests that both must pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from murmur_streams.stores.local.engine.file_store import FileAccess, FileRunStore, OpenFile
from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore
from murmur_streams.stores.local.sqlite.store import SQLiteRunStore

STORES: dict[str, type[FileRunStore]] = {"sqlite": SQLiteRunStore, "rocksdb": RocksDBRunStore}

Open = Callable[..., FileRunStore]


class Clock:
    """The same time for all, until a test moves it."""

    ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.ms


def opener(name: str, folder: Path) -> Open:
    """Opens the same store again and again."""

    def open_store(**options: Any) -> FileRunStore:
        return STORES[name](folder / "runs", **options)

    return open_store


def access_of(store: FileRunStore) -> FileAccess:
    """The store's way to its file."""
    access = store._access
    assert isinstance(access, FileAccess)
    return access


async def file_of(store: FileRunStore) -> OpenFile:
    """The store's open file."""
    return await access_of(store).get()
