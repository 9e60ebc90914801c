"""``open_store(url) -> RunStore``: from an address to the store that serves it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.embedded import default_data_dir, ensure_server, ensure_server_async
from murmur_streams.stores.local.engine.store import LocalRunStore
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.redis.store import RedisRunStore

_REDIS_SCHEMES = frozenset(
    {
        *("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"),
        *("redis+cluster", "rediss+cluster"),
    }
)
_DISK_SCHEMES = frozenset({"sqlite", "rocksdb"})
_SCHEMES = (
    "memory:, redis://, rediss://, unix://, redis+sentinel://, redis+cluster://, embedded:, "
    "sqlite: or rocksdb:"
)

AnyStore = RedisRunStore | LocalRunStore


def open_store(url: str, **options: Any) -> AnyStore:
    """Open the store that a URL names; a Redis is connected at its first use.

    Args:
        url: ``memory:``, ``redis://host:6379/0``, ``rediss://…``, ``unix:///path/to/socket``,
            ``redis+sentinel://host:26379,host:26379/service`` (``rediss+sentinel://…``),
            ``redis+cluster://host:6379,host:6379`` (``rediss+cluster://…``),
            ``embedded:`` (the default folder) or ``embedded:///path/to/folder``,
            ``sqlite:///path/to/file`` or ``rocksdb:///path/to/folder`` (``sqlite:runs.db`` is a
            path from the current folder). An embedded server is started here if none runs, which
            blocks for about 0.1 s.
        options: passed to the store's constructor.

    Raises:
        StoreConfigurationError: the URL names no store, or is malformed.
        EmbeddedServerError: the embedded server cannot be started.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise StoreConfigurationError(
            f"the URL {redacted(url)} is malformed; use {_SCHEMES}"
        ) from None
    if parts.scheme in _REDIS_SCHEMES:
        return RedisRunStore(url, **options)
    if parts.scheme == "memory" and not parts.netloc and parts.path in {"", "/"}:
        return InMemoryRunStore(**options)
    if parts.scheme == "embedded":
        return _open_embedded(url, parts, options)
    if parts.scheme == "sqlite":
        from murmur_streams.stores.local.sqlite.store import SQLiteRunStore

        return SQLiteRunStore(_path(url, parts), **options)
    if parts.scheme == "rocksdb":
        from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore

        return RocksDBRunStore(_path(url, parts), **options)
    raise StoreConfigurationError(f"the URL {redacted(url)} names no store; use {_SCHEMES}")


def path_on_disk(url: str) -> Path | None:
    """The file or folder that a URL names; None for other stores.

    Raises:
        StoreConfigurationError: the URL has the scheme of a file or folder, but does not name one.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return _path(url, parts) if parts.scheme in _DISK_SCHEMES else None


def _path(url: str, parts: SplitResult) -> Path:
    """The file or folder that a URL names; a URL that means something else is an error."""
    scheme, path = parts.scheme, parts.path
    why = ""
    if parts.query or parts.fragment:
        why = "has a ? or # in it: in a path they are %3F and %23, and settings are options of the"
        why += " store"
    elif parts.netloc or not path.strip("/"):
        why = f"names no path on this machine; write {scheme}:///path/to/it, or {scheme}:name for "
        why += "one in the current folder"
    elif path.strip("/") == ":memory:":
        why = "names no file: runs that need none are in memory:, those of a test in a folder of it"
    elif path.lstrip("/").startswith("~"):
        why = "begins with ~, which the shell expands only at the beginning of a word: write "
        why += f'"{scheme}:$HOME/..." or the whole path'
    elif scheme == "sqlite" and path.endswith("/"):
        why = f"names a folder, and SQLite's runs are in a file: write {url}runs.db"
    if why:
        raise StoreConfigurationError(f"the URL {redacted(url)} {why}")
    return Path(unquote(path))


def _open_embedded(url: str, parts: SplitResult, options: dict[str, Any]) -> RedisRunStore:
    if parts.netloc:
        raise StoreConfigurationError(
            f"the URL {redacted(url)} names a host; an embedded server is a folder on this "
            "machine: embedded:///path/to/folder"
        )
    folder = Path(unquote(parts.path)) if parts.path else default_data_dir(os.environ)
    server = ensure_server(folder)

    async def revive() -> None:
        await ensure_server_async(folder)

    return RedisRunStore(server.url, revive=revive, **options)
