"""The names of ``murmur.runs``: programs written against that module work with this one."""

from murmur_streams import (
    InMemoryRunStore,
    RedisRunStore,
    RunEvent,
    RunEventType,
    RunProgress,
    RunState,
    RunStatus,
    RunStore,
)

__all__ = [
    "InMemoryRunStore",
    "RedisRunStore",
    "RunEvent",
    "RunEventType",
    "RunProgress",
    "RunState",
    "RunStatus",
    "RunStore",
]
