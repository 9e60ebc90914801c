"""Redis-native event sourcing for long-lived runs: submit, poll, stream, from any process."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import version

    from murmur_streams.core.archive.run_archive import RunArchive
    from murmur_streams.core.model.entries import EntryType, JournalEntry
    from murmur_streams.core.model.errors import (
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
    from murmur_streams.core.model.events import RunEvent, RunEventType
    from murmur_streams.core.model.feed import FeedEntry
    from murmur_streams.core.model.identifiers import new_run_id
    from murmur_streams.core.model.limits import Limits
    from murmur_streams.core.model.pages import RunPage
    from murmur_streams.core.model.results import AgentResult, GroupResult, ResultMetadata, TaskSpec
    from murmur_streams.core.model.run import Run
    from murmur_streams.core.model.states import RunProgress, RunState, RunStatus
    from murmur_streams.core.rules.audit import AuditReport
    from murmur_streams.fleet import (
        Backoff,
        Cancellation,
        Fleet,
        RetryLater,
        RunContext,
        RunHandle,
        RunLogFilter,
    )
    from murmur_streams.stores.local.memory.store import InMemoryRunStore
    from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore
    from murmur_streams.stores.local.sqlite.store import SQLiteRunStore
    from murmur_streams.stores.open import open_store
    from murmur_streams.stores.protocol import RunStore
    from murmur_streams.stores.redis.store import RedisRunStore

    __version__ = version("murmur-streams")

logging.getLogger("murmur_streams").addHandler(logging.NullHandler())

# Loaded when first asked for: the driver and pydantic cost half a second, and a program that only
# wants the embedded server, or --help, needs neither.
_MODULES = {
    "AgentNotRegisteredError": "murmur_streams.core.model.errors",
    "AgentResult": "murmur_streams.core.model.results",
    "AuditReport": "murmur_streams.core.rules.audit",
    "Backoff": "murmur_streams.fleet",
    "Cancellation": "murmur_streams.fleet",
    "CursorError": "murmur_streams.core.model.errors",
    "CursorGapError": "murmur_streams.core.model.errors",
    "CursorResetError": "murmur_streams.core.model.errors",
    "DeadLetterNotFoundError": "murmur_streams.core.model.errors",
    "EmbeddedServerError": "murmur_streams.core.model.errors",
    "EntryType": "murmur_streams.core.model.entries",
    "FeedEntry": "murmur_streams.core.model.feed",
    "Fleet": "murmur_streams.fleet",
    "GroupResult": "murmur_streams.core.model.results",
    "IdempotencyConflictError": "murmur_streams.core.model.errors",
    "InMemoryRunStore": "murmur_streams.stores.local.memory.store",
    "InvalidArchiveError": "murmur_streams.core.model.errors",
    "InvalidCursorError": "murmur_streams.core.model.errors",
    "InvalidEventError": "murmur_streams.core.model.errors",
    "InvalidInputError": "murmur_streams.core.model.errors",
    "InvalidPayloadError": "murmur_streams.core.model.errors",
    "InvalidRunIdError": "murmur_streams.core.model.errors",
    "InvalidTargetError": "murmur_streams.core.model.errors",
    "JournalEntry": "murmur_streams.core.model.entries",
    "LeaseLostError": "murmur_streams.core.model.errors",
    "Limits": "murmur_streams.core.model.limits",
    "MurmurError": "murmur_streams.core.model.errors",
    "NonRetryableError": "murmur_streams.core.model.errors",
    "OutcomeUnknownError": "murmur_streams.core.model.errors",
    "PayloadTooLargeError": "murmur_streams.core.model.errors",
    "RedisRunStore": "murmur_streams.stores.redis.store",
    "RegistryError": "murmur_streams.core.model.errors",
    "RemoteAgentError": "murmur_streams.core.model.errors",
    "ResultMetadata": "murmur_streams.core.model.results",
    "RetryLater": "murmur_streams.fleet",
    "RocksDBRunStore": "murmur_streams.stores.local.rocksdb.store",
    "Run": "murmur_streams.core.model.run",
    "RunArchive": "murmur_streams.core.archive.run_archive",
    "RunCancelledError": "murmur_streams.core.model.errors",
    "RunContext": "murmur_streams.fleet",
    "RunDamagedError": "murmur_streams.core.model.errors",
    "RunEvent": "murmur_streams.core.model.events",
    "RunEventType": "murmur_streams.core.model.events",
    "RunExistsError": "murmur_streams.core.model.errors",
    "RunFailedError": "murmur_streams.core.model.errors",
    "RunHandle": "murmur_streams.fleet",
    "RunLogFilter": "murmur_streams.fleet",
    "RunNotFoundError": "murmur_streams.core.model.errors",
    "RunNotTerminalError": "murmur_streams.core.model.errors",
    "RunPage": "murmur_streams.core.model.pages",
    "RunProgress": "murmur_streams.core.model.states",
    "RunState": "murmur_streams.core.model.states",
    "RunStatus": "murmur_streams.core.model.states",
    "RunStore": "murmur_streams.stores.protocol",
    "RunTerminatedError": "murmur_streams.core.model.errors",
    "SQLiteRunStore": "murmur_streams.stores.local.sqlite.store",
    "StoreClosedError": "murmur_streams.core.model.errors",
    "StoreConfigurationError": "murmur_streams.core.model.errors",
    "StoreDamagedError": "murmur_streams.core.model.errors",
    "StoreError": "murmur_streams.core.model.errors",
    "StoreFullError": "murmur_streams.core.model.errors",
    "StoreReadOnlyError": "murmur_streams.core.model.errors",
    "StoreUnavailableError": "murmur_streams.core.model.errors",
    "TaskSpec": "murmur_streams.core.model.results",
    "WrongExpectedVersionError": "murmur_streams.core.model.errors",
    "new_run_id": "murmur_streams.core.model.identifiers",
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
