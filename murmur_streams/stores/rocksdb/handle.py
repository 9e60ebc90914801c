"""The open folder: RocksDB's options, and how to let go of it and take it again."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

from murmur_streams.core.errors import StoreClosedError, StoreError
from murmur_streams.stores.rocksdb import closing_note
from murmur_streams.stores.rocksdb.binding import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    ColumnFamily,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
)
from murmur_streams.stores.rocksdb.failures import failure, is_ours_to_translate, translated

FAMILY = "murmur-streams"
"""The column family that holds all. A folder is known by it without being opened."""

_MIB = 1024 * 1024
_PROBE = "murmur-streams.probe"
_PROBE_BYTES = _MIB


class Handle:
    """A RocksDB folder, open; taken again after a failed write.

    Args:
        path: the folder.

    Raises:
        StoreError: it cannot be opened; the text says why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = Lock()
        """Held while the reader's thread reads, and while the folder is let go of."""
        self._root: Rdict | None = None
        self._family: Rdict | None = None
        self._column: ColumnFamily | None = None
        self._is_closed = False
        self._open()

    @property
    def family(self) -> Rdict:
        """What to read from."""
        if self._is_closed:
            raise StoreClosedError("the store is closed; open a new one")
        if self._family is None:
            raise StoreError(
                f"{self.path} could not be opened again after a write had failed; the next write "
                "tries it again"
            )
        return self._family

    def batch(self) -> WriteBatch:
        """An empty group of writes to the family."""
        batch = WriteBatch(raw_mode=True)
        batch.set_default_column_family(self._column)
        return batch

    def delete_range(self, batch: WriteBatch, first: bytes, stop: bytes) -> None:
        """Remove what is in the range, in a batch."""
        # Unlike put and delete by item it does not go to the batch's default family.
        batch.delete_range(first, stop, self._column)

    def write(self, batch: WriteBatch) -> None:
        """Hand a batch to the operating system: a killed process loses none of it."""
        self.family.write(batch)

    def sync(self) -> None:
        """Wait until the disk has what was written."""
        # A synchronous write would hold the interpreter's lock while the disk works: this does not.
        self.family.flush_wal(sync=True)

    def reopen(self) -> None:
        """Let go of the folder and open it again: RocksDB takes no write after one has failed.

        Raises:
            StoreError: the cause is not gone; what was committed can still be read.
        """
        if self._is_closed:
            raise StoreClosedError("the store is closed; open a new one")
        self._probe()
        with self.lock:
            self._release()
            self._open()

    def close(self) -> None:
        """Let go of the folder; a second call does nothing."""
        with self.lock:
            was_open = self._family is not None
            self._is_closed = True
            self._release()
        if was_open:
            closing_note.leave(self.path)

    def _open(self) -> None:
        options = _options()
        with translated(self.path):
            self._root = Rdict(str(self.path), options, {FAMILY: _options()})
            self._family = self._root.get_column_family(FAMILY)
            self._column = self._root.get_column_family_handle(FAMILY)

    def _release(self) -> None:
        self._column = None
        for each in (self._family, self._root):
            try:
                if each is not None:
                    each.close()
            except Exception as error:
                # It could not tidy up. Nothing is lost: all that was acknowledged is in its log,
                # and read from there when the folder is opened again.
                if not is_ours_to_translate(error):
                    raise
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
            raise _refused(self.path, error) from error
        finally:
            with suppress(OSError):
                probe.unlink()


def _refused(path: Path, error: OSError) -> StoreError:
    name = errno.errorcode.get(error.errno or 0, "")
    return failure(path, OSError(f"{error.strerror} {name}".strip()))


def _options() -> Options:
    # A library inside a worker: 3 * 8 MiB of memory for writes, 8 MiB for blocks, few files.
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    # A log that ends in half a record is what a killed process leaves: that record was never
    # acknowledged, and goes. Damage before the end is refused: a later record may have been.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_write_buffer_size(8 * _MIB)
    options.set_max_write_buffer_number(3)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_bottommost_compression_type(DBCompressionType.zstd())
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_target_file_size_base(16 * _MIB)
    options.set_max_bytes_for_level_base(64 * _MIB)
    options.set_max_background_jobs(2)
    # Where much was removed, reading skips it row by row until it is compacted.
    options.add_compact_on_deletion_collector_factory(1024, 512, 0.0)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(_MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_max_manifest_file_size(4 * _MIB)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(8 * _MIB))
    blocks.set_block_size(8 * 1024)
    blocks.set_bloom_filter(10, block_based=False)
    # In pieces: a table's whole filter does not fit so small a cache, and was read for each get.
    blocks.set_index_type(BlockBasedIndexType.two_level_index_search())
    blocks.set_partition_filters(True)
    blocks.set_metadata_block_size(4 * 1024)
    blocks.set_pin_top_level_index_and_filter(True)
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_format_version(5)
    options.set_block_based_table_factory(blocks)
    return options
