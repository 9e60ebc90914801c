"""The only place that imports rocksdict: an extra, told by name when it is missing."""

from __future__ import annotations

try:
    from rocksdict import (
        AccessType,
        BlockBasedIndexType,
        BlockBasedOptions,
        Cache,
        ColumnFamily,
        DbClosedError,
        DBCompressionType,
        DBRecoveryMode,
        Options,
        Rdict,
        RdictIter,
        ReadOptions,
        WriteBatch,
    )
except ImportError as error:
    raise ImportError(
        "a store in RocksDB needs rocksdict: pip install 'murmur-streams[rocksdb]'"
    ) from error

__all__ = [
    "AccessType",
    "BlockBasedIndexType",
    "BlockBasedOptions",
    "Cache",
    "ColumnFamily",
    "DBCompressionType",
    "DBRecoveryMode",
    "DbClosedError",
    "Options",
    "Rdict",
    "RdictIter",
    "ReadOptions",
    "WriteBatch",
]
