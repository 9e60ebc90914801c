"""The only module that imports rocksdict, and the options that RocksDB is opened with."""

from __future__ import annotations

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
