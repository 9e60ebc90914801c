"""The only module that imports rocksdict; the error for a missing extra names it."""

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
