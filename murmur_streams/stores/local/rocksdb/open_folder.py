"""The open folder: how to write to it, to let go of it and to take it again.

While a folder is closed in good order, a marker in it notes the length of its manifest. RocksDB
takes a manifest that was cut off for an older state of the folder, and removes the tables that it
does not name; the marker shows that it was cut off.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from ctypes import py_object, pythonapi
from pathlib import Path
from threading import Lock

from murmur_streams.core.model.errors import StoreClosedError, StoreError, StoreUnavailableError
from murmur_streams.stores.local.rocksdb import binding
from murmur_streams.stores.local.rocksdb.binding import FAMILY, options, rocksdict

SHUTDOWN_MARKER = "murmur-streams.closed"

_PROBE = "murmur-streams.probe"
_PROBE_BYTES = 1024 * 1024


class OpenFolder:
    """A RocksDB folder, open; taken again after a failed write.

    Args:
        path: the folder. It is made absolute here: RocksDB opens files by it for as long as it is
            open, whatever the process's own folder is by then.

    Raises:
        StoreError: it cannot be opened; the text says why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.lock = Lock()
        """Held while the reader's thread reads, and while the folder is let go of."""
        self._writing = Lock()
        """Held while something is written, and while the folder is let go of; before ``lock``."""
        self._lock_name = str(self.path / "LOCK")
        self._lock_file: tuple[int, int] | None = None
        """Device and inode of the open LOCK: nothing else can have them while it is open."""
        self._root: rocksdict.Rdict | None = None
        self._family: rocksdict.Rdict | None = None
        self._column: rocksdict.ColumnFamily | None = None
        self._is_closed = False
        marker, note = self.path / SHUTDOWN_MARKER, None
        with suppress(OSError):
            # Before the folder is opened: a killed process must not leave an old marker.
            note = marker.read_bytes()
            marker.unlink()
        try:
            self._open()
        except BaseException:
            if note is not None:
                with suppress(OSError):
                    marker.write_bytes(note)
            raise

    @property
    def family(self) -> rocksdict.Rdict:
        """The object to read from."""
        if self._is_closed:
            raise StoreClosedError("the store is closed; open a new one")
        if self._family is None:
            raise StoreError(
                f"{self.path} could not be opened again after a write had failed; the next write "
                "tries it again"
            )
        return self._family

    def batch(self) -> rocksdict.WriteBatch:
        """An empty group of writes to the family, which it keeps open."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.set_default_column_family(self._column)
        return batch

    def delete_range(self, batch: rocksdict.WriteBatch, first: bytes, stop: bytes) -> None:
        """Remove what is in the range, in a batch."""
        # Unlike put and delete by item it does not go to the batch's default family.
        batch.delete_range(first, stop, self._column)

    def write(self, batch: rocksdict.WriteBatch) -> None:
        """Hand a batch to the operating system: a killed process loses none of it."""
        with self._writing:
            self.family.write(batch)

    def sync(self) -> None:
        """Wait until the disk has what was written."""
        # A synchronous write would hold the interpreter's lock while the disk works: this does not.
        with self._writing:
            self.family.flush_wal(sync=True)

    def check_there(self) -> None:
        """Refuse when the path leads elsewhere: what is written would never be found.

        It costs one stat, so each group can ask.

        Raises:
            StoreUnavailableError: the folder was deleted, moved or replaced.
            StoreClosedError: the store was closed.
        """
        if self._is_closed:
            raise StoreClosedError("the store is closed; open a new one")
        if not self._is_there():
            raise StoreUnavailableError(
                f"{self.path} is not there any more (deleted, moved or replaced while it was "
                "open); nothing was written: put it back, or close this store. One that has taken "
                "its place can be opened by another process, or after a restart of this one"
            )

    def reopen(self) -> None:
        """Let go of the folder and open it again: RocksDB takes no write after one has failed.

        Raises:
            StoreError: the cause is not gone; what was committed can still be read.
        """
        self.check_there()
        self._probe()
        with self._writing, self.lock:
            self._release()
            self._open()

    def close(self) -> None:
        """Let go of the folder, from any thread; a second call does nothing."""
        with self._writing, self.lock:
            was_open, is_there = self._family is not None, self._is_there()
            self._is_closed = True
            if not is_there and self.path.exists():
                self._abandon()
            self._release()
        if was_open and is_there:
            with suppress(OSError):  # without a marker nothing is checked
                name, size = _manifest(self.path)
                (self.path / SHUTDOWN_MARKER).write_text(f"{name} {size}\n", encoding="ascii")

    def _is_there(self) -> bool:
        try:
            found = os.stat(self._lock_name)  # noqa: PTH116  # a Path's costs twice as much
            return (found.st_dev, found.st_ino) == self._lock_file
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # RocksDB reports better what is wrong with it

    def _open(self) -> None:
        with binding.Translated(self.path):
            self._root = rocksdict.Rdict(str(self.path), options(), {FAMILY: options()})
            self._family = self._root.get_column_family(FAMILY)
            self._column = self._root.get_column_family_handle(FAMILY)
        with suppress(FileNotFoundError, NotADirectoryError):
            found = (self.path / "LOCK").stat()
            self._lock_file = found.st_dev, found.st_ino

    def _release(self) -> None:
        self._column = None
        for each in (self._family, self._root):
            try:
                if each is not None:
                    each.close()
            except Exception as error:
                # It could not tidy up. Nothing is lost: all that was acknowledged is in its log,
                # and read from there when the folder is opened again.
                if not binding.is_ours_to_translate(error):
                    raise
        self._family = self._root = None

    def _abandon(self) -> None:
        # Closing, and so the end of the last reference, writes tables and a manifest by their
        # names: they would replace those of the store that has taken the folder's place. So its
        # memory and the name of its lock stay taken until the process ends.
        for each in (self._family, self._root):
            if each is not None:
                pythonapi.Py_IncRef(py_object(each))
        self._family = self._root = None

    def _probe(self) -> None:
        # Opening writes files, and a folder that cannot be opened cannot be read either.
        probe = self.path / _PROBE
        try:
            with probe.open("wb") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "")
            what = f"{error.strerror} {name}".strip()
            raise binding.failure(self.path, OSError(what)) from error
        finally:
            with suppress(OSError):
                probe.unlink()


def check_manifest(path: Path) -> None:
    """Compare the manifest of a closed folder with its marker, if it has one.

    Raises:
        StoreDamagedError: the manifest is not as long as it was.
    """
    with suppress(OSError, ValueError):
        name, size = (path / SHUTDOWN_MARKER).read_text(encoding="ascii").split()
        found_name, found_size = _manifest(path)
        # Another manifest was made by a tool that opened the folder since.
        if found_name == name and found_size != int(size):
            raise binding.damaged(
                path, f"{name} has {found_size} bytes and had {size} when it was closed"
            )


def _manifest(path: Path) -> tuple[str, int]:
    name = (path / "CURRENT").read_text(encoding="ascii").strip()
    return name, (path / name).stat().st_size
