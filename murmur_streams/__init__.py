"""Redis-native event sourcing for long-lived runs: submit, poll, stream, from any process."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import version

    from murmur_streams.core.archive import RunArchive
    from murmur_streams.core.audit import AuditReport
    from murmur_streams.core.entries import EntryType, JournalEntry
    from murmur_streams.core.errors import (
        AgentNotRegisteredError,
        CursorError,
        CursorGapError,
        CursorResetError,
        DeadLetterNotFoundError,
        EmbeddedServerError,
        IdempotencyConflictError,
        InvalidArchiveError,
        InvalidCursorError,
        InvalidEventError,
        InvalidInputError,
        InvalidPayloadError,
        InvalidRunIdError,
        InvalidTargetError,
        LeaseLostError,
        MurmurError,
        NonRetryableError,
        OutcomeUnknownError,
        PayloadTooLargeError,
        RegistryError,
        RemoteAgentError,
        RunCancelledError,
        RunDamagedError,
        RunExistsError,
        RunFailedError,
        RunNotFoundError,
        RunNotTerminalError,
        RunTerminatedError,
        StoreClosedError,
        StoreConfigurationError,
        StoreDamagedError,
        StoreError,
        StoreFullError,
        StoreReadOnlyError,
        StoreUnavailableError,
        WrongExpectedVersionError,
    )
    from murmur_streams.core.events import RunEvent, RunEventType
    from murmur_streams.core.feed import FeedEntry
    from murmur_streams.core.identifiers import new_run_id
    from murmur_streams.core.limits import Limits
    from murmur_streams.core.pages import RunPage
    from murmur_streams.core.protocol import RunStore
    from murmur_streams.core.results import AgentResult, GroupResult, ResultMetadata, TaskSpec
    from murmur_streams.core.run import Run
    from murmur_streams.core.states import RunProgress, RunState, RunStatus
    from murmur_streams.fleet import (
        Backoff,
        Cancellation,
        Fleet,
        RetryLater,
        RunContext,
        RunHandle,
        RunLogFilter,
    )
    from murmur_streams.stores.memory import InMemoryRunStore
    from murmur_streams.stores.open import open_store
    from murmur_streams.stores.redis.store import RedisRunStore
    from murmur_streams.stores.rocksdb.store import RocksDBRunStore
    from murmur_streams.stores.sqlite.store import SQLiteRunStore

    __version__ = version("murmur-streams")

logging.getLogger("murmur_streams").addHandler(logging.NullHandler())

# Loaded when first asked for: the driver and pydantic cost half a second, and a program that only
# wants the embedded server, or --help, needs neither.
_MODULES = {
    "AgentNotRegisteredError": "murmur_streams.core.errors",
    "AgentResult": "murmur_streams.core.results",
    "AuditReport": "murmur_streams.core.audit",
    "Backoff": "murmur_streams.fleet",
    "Cancellation": "murmur_streams.fleet",
    "CursorError": "murmur_streams.core.errors",
    "CursorGapError": "murmur_streams.core.errors",
    "CursorResetError": "murmur_streams.core.errors",
    "DeadLetterNotFoundError": "murmur_streams.core.errors",
    "EmbeddedServerError": "murmur_streams.core.errors",
    "EntryType": "murmur_streams.core.entries",
    "FeedEntry": "murmur_streams.core.feed",
    "Fleet": "murmur_streams.fleet",
    "GroupResult": "murmur_streams.core.results",
    "IdempotencyConflictError": "murmur_streams.core.errors",
    "InMemoryRunStore": "murmur_streams.stores.memory",
    "InvalidArchiveError": "murmur_streams.core.errors",
    "InvalidCursorError": "murmur_streams.core.errors",
    "InvalidEventError": "murmur_streams.core.errors",
    "InvalidInputError": "murmur_streams.core.errors",
    "InvalidPayloadError": "murmur_streams.core.errors",
    "InvalidRunIdError": "murmur_streams.core.errors",
    "InvalidTargetError": "murmur_streams.core.errors",
    "JournalEntry": "murmur_streams.core.entries",
    "LeaseLostError": "murmur_streams.core.errors",
    "Limits": "murmur_streams.core.limits",
    "MurmurError": "murmur_streams.core.errors",
    "NonRetryableError": "murmur_streams.core.errors",
    "OutcomeUnknownError": "murmur_streams.core.errors",
    "PayloadTooLargeError": "murmur_streams.core.errors",
    "RedisRunStore": "murmur_streams.stores.redis.store",
    "RegistryError": "murmur_streams.core.errors",
    "RemoteAgentError": "murmur_streams.core.errors",
    "ResultMetadata": "murmur_streams.core.results",
    "RetryLater": "murmur_streams.fleet",
    "RocksDBRunStore": "murmur_streams.stores.rocksdb.store",
    "Run": "murmur_streams.core.run",
    "RunArchive": "murmur_streams.core.archive",
    "RunCancelledError": "murmur_streams.core.errors",
    "RunContext": "murmur_streams.fleet",
    "RunDamagedError": "murmur_streams.core.errors",
    "RunEvent": "murmur_streams.core.events",
    "RunEventType": "murmur_streams.core.events",
    "RunExistsError": "murmur_streams.core.errors",
    "RunFailedError": "murmur_streams.core.errors",
    "RunHandle": "murmur_streams.fleet",
    "RunLogFilter": "murmur_streams.fleet",
    "RunNotFoundError": "murmur_streams.core.errors",
    "RunNotTerminalError": "murmur_streams.core.errors",
    "RunPage": "murmur_streams.core.pages",
    "RunProgress": "murmur_streams.core.states",
    "RunState": "murmur_streams.core.states",
    "RunStatus": "murmur_streams.core.states",
    "RunStore": "murmur_streams.core.protocol",
    "RunTerminatedError": "murmur_streams.core.errors",
    "SQLiteRunStore": "murmur_streams.stores.sqlite.store",
    "StoreClosedError": "murmur_streams.core.errors",
    "StoreConfigurationError": "murmur_streams.core.errors",
    "StoreDamagedError": "murmur_streams.core.errors",
    "StoreError": "murmur_streams.core.errors",
    "StoreFullError": "murmur_streams.core.errors",
    "StoreReadOnlyError": "murmur_streams.core.errors",
    "StoreUnavailableError": "murmur_streams.core.errors",
    "TaskSpec": "murmur_streams.core.results",
    "WrongExpectedVersionError": "murmur_streams.core.errors",
    "new_run_id": "murmur_streams.core.identifiers",
    "open_store": "murmur_streams.stores.open",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = import_module("importlib.metadata").version("murmur-streams")
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "AgentNotRegisteredError",
    "AgentResult",
    "AuditReport",
    "Backoff",
    "Cancellation",
    "CursorError",
    "CursorGapError",
    "CursorResetError",
    "DeadLetterNotFoundError",
    "EmbeddedServerError",
    "EntryType",
    "FeedEntry",
    "Fleet",
    "GroupResult",
    "IdempotencyConflictError",
    "InMemoryRunStore",
    "InvalidArchiveError",
    "InvalidCursorError",
    "InvalidEventError",
    "InvalidInputError",
    "InvalidPayloadError",
    "InvalidRunIdError",
    "InvalidTargetError",
    "JournalEntry",
    "LeaseLostError",
    "Limits",
    "MurmurError",
    "NonRetryableError",
    "OutcomeUnknownError",
    "PayloadTooLargeError",
    "RedisRunStore",
    "RegistryError",
    "RemoteAgentError",
    "ResultMetadata",
    "RetryLater",
    "RocksDBRunStore",
    "Run",
    "RunArchive",
    "RunCancelledError",
    "RunContext",
    "RunDamagedError",
    "RunEvent",
    "RunEventType",
    "RunExistsError",
    "RunFailedError",
    "RunHandle",
    "RunLogFilter",
    "RunNotFoundError",
    "RunNotTerminalError",
    "RunPage",
    "RunProgress",
    "RunState",
    "RunStatus",
    "RunStore",
    "RunTerminatedError",
    "SQLiteRunStore",
    "StoreClosedError",
    "StoreConfigurationError",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
    "TaskSpec",
    "WrongExpectedVersionError",
    "__version__",
    "new_run_id",
    "open_store",
]
