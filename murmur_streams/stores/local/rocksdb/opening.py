"""Opens a folder: looks before it touches, refuses what is not a store of ours, migrates rows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from murmur_streams.core.model.errors import StoreConfigurationError, StoreError
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.rocksdb import keys, rows
from murmur_streams.stores.local.rocksdb.binding import (
    FAMILY,
    Translated,
    View,
    damaged,
    in_use,
    options,
    rocksdict,
)
from murmur_streams.stores.local.rocksdb.database import RocksDatabase
from murmur_streams.stores.local.rocksdb.open_folder import (
    SHUTDOWN_MARKER,
    OpenFolder,
    check_manifest,
)

VERSION = 1
"""Of the keys and rows, as this release writes them."""

# Files that RocksDB and its binding leave if they are killed while they make a folder: no data.
_BEGUN = re.compile(
    r"LOCK|IDENTITY|LOG(\.old\..*)?|rocksdict-config\.json|(MANIFEST|OPTIONS)-\d+|.*\.dbtmp"
)
_ROCKSDB = re.compile(rf"MANIFEST-\d+|\d+\.(sst|log|blob)|IDENTITY|{re.escape(SHUTDOWN_MARKER)}")
_READ_ONLY = rocksdict.AccessType.read_only(error_if_log_file_exist=False)
_MURMUR_RUNTIME = re.compile(rb"[re]/[A-Za-z0-9]")


def check_folder(path: Path) -> None:
    """Refuse a folder that is not a store of ours and not free to become one.

    Raises:
        StoreConfigurationError: it is not a store, is of a newer version, or another process has it
            open; no file in it was changed.
        StoreDamagedError: it was a RocksDB, and cannot be read; likewise.
    """
    if not _is_there(path):
        if not path.absolute().parent.is_dir():
            raise StoreConfigurationError(
                f"{path} cannot be made: {path.absolute().parent} does not exist; make it first, "
                "or correct the path"
            )
        return
    if not path.is_dir():
        raise StoreConfigurationError(f"{path} is a file; a RocksDB store is a folder: name one")
    try:
        names = sorted(each.name for each in path.iterdir())
    except OSError as error:
        raise StoreConfigurationError(
            f"{path} cannot be read ({error.strerror}); make it readable for this user"
        ) from error
    holder = _holder(path)
    if holder is not None:
        raise in_use(path, holder)
    if "CURRENT" not in names:
        _check_no_data(path, names)
        return
    try:
        check_manifest(path)
        # Reads CURRENT and the manifest, writes nothing.
        with Translated(path):
            families = rocksdict.Rdict.list_cf(str(path), rocksdict.Options(raw_mode=True))
        if FAMILY in families:
            _check_ours(path)
        else:
            _check_foreign(path)
    except StoreError as error:
        holder = _holder(path)
        if holder is None:
            raise
        # The process that opened it meanwhile has removed files that this check looked for.
        raise in_use(path, holder) from error


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


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreConfigurationError(
            f"{str(path)!r} cannot be opened ({why}); name another folder"
        ) from error
    return True


def _check_ours(path: Path) -> None:
    # Where no links can be made, opening it reports the same.
    with suppress(OSError), _through_links(path) as links:
        opened = rocksdict.Rdict(str(links), options(), {FAMILY: options()}, _READ_ONLY)
        try:
            view = View(opened.get_column_family(FAMILY), is_one_moment=False)
            known_version(path, view)
            rows.read_feed_ends(view.get(keys.FEED))
        finally:
            opened.close()


def _check_no_data(path: Path, names: list[str]) -> None:
    if all(_BEGUN.fullmatch(name) for name in names):
        return
    if any(_ROCKSDB.fullmatch(name) for name in names):
        raise damaged(path, "the file CURRENT is missing")
    raise _foreign(path, f"it has other files ({names[0]})")


def _check_foreign(path: Path) -> None:
    with _through_links(path) as links:
        first = _first_key(links)
    if first is None:
        if any(path.glob("*.sst")):
            raise damaged(path, "it has tables that its manifest does not name")
        return
    if _MURMUR_RUNTIME.match(first):
        raise _foreign(path, "murmur-runtime wrote it, whose runs this package cannot read")
    raise _foreign(path, "it is a RocksDB of another program")


@contextmanager
def _through_links(path: Path) -> Generator[Path]:
    """A folder of links to the files: what RocksDB writes to open it for reading goes there."""
    with TemporaryDirectory(prefix="murmur-streams-") as folder:
        links = Path(folder)
        for each in path.absolute().iterdir():
            if each.name not in {"LOCK", "LOG", "rocksdict-config.json"}:
                (links / each.name).symlink_to(each)
        with Translated(path, links):
            yield links


def _first_key(links: Path) -> bytes | None:
    defaults = rocksdict.Options(raw_mode=True)
    families = rocksdict.Rdict.list_cf(str(links), defaults)
    every = {name: rocksdict.Options(raw_mode=True) for name in families}
    opened = rocksdict.Rdict(str(links), defaults, every, _READ_ONLY)
    try:
        for name in families:
            rows = opened.get_column_family(name).iter()
            rows.seek_to_first()
            if rows.valid():
                return rows.key()
            rows.status()
        return None
    finally:
        rows = None
        opened.close()


def _foreign(path: Path, why: str) -> StoreConfigurationError:
    return StoreConfigurationError(
        f"{path} is not a store of murmur-streams: {why}. Nothing in it was changed; name an empty "
        "folder, or one that does not exist yet"
    )


def _holder(path: Path) -> int | None:
    # LOCK itself is never opened here: closing it would take the lock from a store of this process.
    with suppress(OSError, ValueError):
        file = (path / "LOCK").stat()
        position = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if position in fields:
                pid = int(fields[fields.index(position) - 1])
                return pid if pid > 0 else None
    return None


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
    with Translated(folder.path):
        view = View(folder.family, is_one_moment=False)
        found = known_version(folder.path, view, version=version)
        for old in range(version - 1 if found is None else found, version):
            batch = folder.batch()
            try:
                if found is not None:
                    migrations[old](view, batch)
                batch[keys.SCHEMA] = b"%d" % (old + 1)
                folder.write(batch)
                folder.sync()
            finally:
                batch.set_default_column_family(None)  # it would keep the folder open
