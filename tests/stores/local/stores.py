"""The stores on disk, for tests that both must pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from murmur_streams.stores.local.engine.store import DiskRunStore
from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore
from murmur_streams.stores.local.sqlite.store import SQLiteRunStore

STORES: dict[str, type[DiskRunStore]] = {"sqlite": SQLiteRunStore, "rocksdb": RocksDBRunStore}

Open = Callable[..., DiskRunStore]


def opener(name: str, folder: Path) -> Open:
    """Opens the same store again and again."""

    def open_store(**options: Any) -> DiskRunStore:
        return STORES[name](folder / "runs", **options)

    return open_store
