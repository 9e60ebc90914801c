"""RocksDB as this package sees it: its options, its errors translated, one moment of its rows."""

from __future__ import annotations

import os
from pathlib import Path

from murmur_streams.core.model import errors

try:
    import rocksdict
except ImportError as error:
    raise ImportError(
        "a store in RocksDB needs rocksdict: pip install 'murmur-streams[rocksdb]'"
    ) from error

FAMILY = "murmur-streams"
"""The column family that holds all. A folder is known by it without being opened."""

_MIB = 1024 * 1024


def options() -> rocksdict.Options:
    """The options of the folder and of its column family."""
    # For a library inside a worker: 3 * 8 MiB of memory for writes, 8 MiB for blocks, few files.
    made = rocksdict.Options(raw_mode=True)
    made.create_if_missing(True)
    made.create_missing_column_families(True)
    # A log that ends in half a record is what a killed process leaves: that record was never
    # acknowledged, and goes. Damage before the end is refused: a later record may have been.
    made.set_wal_recovery_mode(rocksdict.DBRecoveryMode.tolerate_corrupted_tail_records())
    made.set_write_buffer_size(8 * _MIB)
    made.set_max_write_buffer_number(3)
    made.set_compression_type(rocksdict.DBCompressionType.lz4())
    made.set_bottommost_compression_type(rocksdict.DBCompressionType.zstd())
    made.set_level_compaction_dynamic_level_bytes(True)
    made.set_target_file_size_base(16 * _MIB)
    made.set_max_bytes_for_level_base(64 * _MIB)
    made.set_max_background_jobs(2)
    # Where much was removed, reading skips it row by row until it is compacted.
    made.add_compact_on_deletion_collector_factory(1024, 512, 0.0)
    made.set_keep_log_file_num(2)
    made.set_max_log_file_size(_MIB)
    made.set_stats_dump_period_sec(0)
    made.set_stats_persist_period_sec(0)
    made.set_max_manifest_file_size(4 * _MIB)
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(rocksdict.Cache(8 * _MIB))
    blocks.set_block_size(8 * 1024)
    blocks.set_bloom_filter(10, block_based=False)
    # In pieces: a table's whole filter does not fit so small a cache, and was read for each get.
    blocks.set_index_type(rocksdict.BlockBasedIndexType.two_level_index_search())
    blocks.set_partition_filters(True)
    blocks.set_metadata_block_size(4 * 1024)
    blocks.set_pin_top_level_index_and_filter(True)
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_format_version(5)
    made.set_block_based_table_factory(blocks)
    return made


# The binding raises bare Exceptions. Only their texts say what they are: the names of RocksDB's
# statuses, and what the C library says for each errno.
_DAMAGED = (
    "the store in {path} is damaged and was left as it is ({what}); restore it from a backup, or "
    "copy the folder and try RocksDB's own repair on the copy"
)
_LOCKED = ("lock hold by current process", "While lock file")
_FULL = (
    "the disk of {path} is full, or a limit is reached ({what}); nothing was written: make room, "
    "then write again"
)
_READ_ONLY = (
    "{path} cannot be written ({what}); nothing was written: make the folder and its files "
    "writable for this user"
)
_DISK_FULL = ("No space left", "Disk quota exceeded", "File too large")
_NOT_PERMITTED = ("Read-only file system", "Permission denied", "Operation not permitted")
_CORRUPT = ("Corruption", "file size mismatch", "No such file or directory", "truncated")
_FAILURES: tuple[tuple[tuple[str, ...], type[errors.StoreError], str], ...] = (
    (_DISK_FULL, errors.StoreFullError, _FULL),
    (_NOT_PERMITTED, errors.StoreReadOnlyError, _READ_ONLY),
    (_CORRUPT, errors.StoreDamagedError, _DAMAGED),
)


def is_ours_to_translate(error: Exception) -> bool:
    """Whether the binding raised it; an error of this package's own code stays as it is."""
    return type(error) is Exception or isinstance(error, rocksdict.DbClosedError)


def failure(path: Path, error: Exception, opened: Path | None = None) -> errors.StoreError:
    """The error for what the binding raised: where, and what to do.

    Args:
        path: the store's folder.
        error: what it raised.
        opened: the folder of links to it that was opened instead.
    """
    what = str(error).replace(str(opened or path), str(path))
    if isinstance(error, rocksdict.DbClosedError):
        return errors.StoreClosedError("the store is closed; open a new one")
    if any(phrase in what for phrase in _LOCKED):
        return in_use(path, None)
    for phrases, kind, sentence in _FAILURES:
        if any(phrase in what for phrase in phrases):
            return kind(sentence.format(path=path, what=what))
    return errors.StoreError(f"RocksDB failed in {path}: {what}")


def in_use(path: Path, pid: int | None) -> errors.StoreConfigurationError:
    """The error for a folder that is open already, by which process if that is known."""
    who = "it is" if pid is None else f"process {pid} has it"
    if pid == os.getpid():
        who = "this process has it"
    return errors.StoreConfigurationError(
        f"{path} cannot be opened, {who} open already: a RocksDB folder is for one process, and "
        "for one store in it. Close the other, or use a sqlite: or redis: URL, which several "
        "processes can share"
    )


def damaged(path: Path, what: str) -> errors.StoreDamagedError:
    """The error for a folder that cannot be read."""
    return errors.StoreDamagedError(_DAMAGED.format(path=path, what=what))


class Translated:
    """Raises what the binding raises inside as errors of this package; arguments as ``failure``.

    A class, since each write enters one: entering a generator takes four times as long.
    """

    __slots__ = ("_opened", "_path")

    def __init__(self, path: Path, opened: Path | None = None) -> None:
        self._path = path
        self._opened = opened

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and is_ours_to_translate(error):
            raise failure(self._path, error, self._opened) from error


Row = tuple[bytes, bytes]
"""Key and value."""


class View:
    """Rows by key and by range.

    An iterator sees what was there when it was made, and only that: it serves as the snapshot.
    (The binding's own Snapshot does not hold for its iterators.)

    Args:
        family: whose rows.
        is_one_moment: False when no other thread writes meanwhile, or when one row or range is
            read. Then a get is a get, and the end of a range is passed to RocksDB, which otherwise
            looks through what was removed behind it for the next row that was not.
    """

    def __init__(self, family: rocksdict.Rdict, *, is_one_moment: bool) -> None:
        self._family = family
        self._moment = family.iter() if is_one_moment else None

    def get(self, key: bytes) -> bytes | None:
        """The row's value; None when there is none."""
        if self._moment is None:
            return self._family.get(key)
        self._moment.seek(key)
        if self._moment.valid():
            return self._moment.value() if self._moment.key() == key else None
        self._moment.status()
        return None

    def scan(self, first: bytes, stop: bytes, limit: int, *, is_back: bool = False) -> list[Row]:
        """The first rows with ``first <= key < stop``, by key; the last ones, from the last one."""
        found: list[Row] = []
        if limit <= 0 or first >= stop:
            return found
        rows = self._moment or self._bounded(first, stop)
        try:
            _seek(rows, first, stop, is_back=is_back)
            while rows.valid():
                key: bytes = rows.key()
                if not first <= key < stop:
                    return found
                found.append((key, rows.value()))
                if len(found) == limit:
                    return found
                if is_back:
                    rows.prev()
                else:
                    rows.next()
            # An iterator ends at damage as it ends at the end.
            rows.status()
        finally:
            # An error's traceback would keep the iterator, and the iterator the folder open.
            del rows
        return found

    def close(self) -> None:
        """Let go of the moment."""
        self._moment = None

    def _bounded(self, first: bytes, stop: bytes) -> rocksdict.RdictIter:
        options = rocksdict.ReadOptions()
        options.set_iterate_lower_bound(first)
        options.set_iterate_upper_bound(stop)
        return self._family.iter(options)


def _seek(rows: rocksdict.RdictIter, first: bytes, stop: bytes, *, is_back: bool) -> None:
    if not is_back:
        rows.seek(first)
        return
    rows.seek_for_prev(stop)
    if rows.valid() and rows.key() == stop:
        rows.prev()
