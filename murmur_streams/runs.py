"""The names of ``murmur.runs``: programs written against that module work with this one."""

from murmur_streams import (
    InMemoryRunStore,
    RedisRunStore,
    RocksDBRunStore,
    RunEvent,
    RunEventType,
    RunProgress,
    RunState,
    RunStatus,
    RunStore,
    SQLiteRunStore,
)

__all__ = [
    "InMemoryRunStore",
    "RedisRunStore",
    "RocksDBRunStore",
    "RunEvent",
    "RunEventType",
    "RunProgress",
    "RunState",
    "RunStatus",
    "RunStore",
    "SQLiteRunStore",
]
