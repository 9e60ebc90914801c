"""Redis-native event sourcing for long-lived runs: submit, poll, stream, from any process."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # For type checkers and editors: "as" marks what is public. A test compares it with _NAMES.
    # isort would write one statement for each "as".
    # isort: off
    from murmur_streams.core.archive.run_archive import RunArchive as RunArchive
    from murmur_streams.core.model.entries import (
        EntryType as EntryType,
        JournalEntry as JournalEntry,
    )
    from murmur_streams.core.model.errors import *  # noqa: F403  # all of them
    from murmur_streams.core.model.events import RunEvent as RunEvent, RunEventType as RunEventType
    from murmur_streams.core.model.feed import FeedEntry as FeedEntry
    from murmur_streams.core.model.limits import Limits as Limits, new_run_id as new_run_id
    from murmur_streams.core.model.results import (
        AgentResult as AgentResult,
        GroupResult as GroupResult,
        ResultMetadata as ResultMetadata,
        TaskSpec as TaskSpec,
    )
    from murmur_streams.core.model.run import Run as Run, RunPage as RunPage
    from murmur_streams.core.model.states import (
        RunProgress as RunProgress,
        RunState as RunState,
        RunStatus as RunStatus,
    )
    from murmur_streams.core.rules.audit import AuditReport as AuditReport
    from murmur_streams.fleet import (
        Backoff as Backoff,
        Cancellation as Cancellation,
        Fleet as Fleet,
        RetryLater as RetryLater,
        RunContext as RunContext,
        RunHandle as RunHandle,
        RunLogFilter as RunLogFilter,
    )
    from murmur_streams.stores.local.memory.store import InMemoryRunStore as InMemoryRunStore
    from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore as RocksDBRunStore
    from murmur_streams.stores.local.sqlite.store import SQLiteRunStore as SQLiteRunStore
    from murmur_streams.stores.open import open_store as open_store
    from murmur_streams.stores.protocol import RunStore as RunStore
    from murmur_streams.stores.redis.store import RedisRunStore as RedisRunStore

    __version__: str

logging.getLogger("murmur_streams").addHandler(logging.NullHandler())

# Loaded at the first use of a name: the driver and pydantic take half a second to import, and a
# program that only wants the embedded server, or --help, needs neither.
_NAMES = {
    "core.archive.run_archive": "RunArchive",
    "core.model.entries": "EntryType JournalEntry",
    "core.model.errors": """
        AgentNotRegisteredError CursorError CursorGapError CursorResetError
        DeadLetterNotFoundError EmbeddedServerError IdempotencyConflictError
        InvalidArchiveError InvalidCursorError InvalidEventError InvalidInputError
        InvalidPayloadError InvalidRunIdError InvalidTargetError LeaseLostError
        MurmurError NonRetryableError NotReplicatedError OutcomeUnknownError
        PayloadTooLargeError RegistryError RemoteAgentError RunCancelledError
        RunDamagedError RunExistsError RunFailedError RunNotFoundError
        RunNotTerminalError RunTerminatedError StoreClosedError StoreConfigurationError
        StoreDamagedError StoreError StoreFullError StoreReadOnlyError StoreRewoundError
        StoreUnavailableError WritesDisabledError WrongExpectedVersionError
    """,
    "core.model.events": "RunEvent RunEventType",
    "core.model.feed": "FeedEntry",
    "core.model.limits": "Limits new_run_id",
    "core.model.results": "AgentResult GroupResult ResultMetadata TaskSpec",
    "core.model.run": "Run RunPage",
    "core.model.states": "RunProgress RunState RunStatus",
    "core.rules.audit": "AuditReport",
    "fleet": """
        Backoff Cancellation Fleet RetryLater RunContext RunHandle RunLogFilter
    """,
    "stores.local.memory.store": "InMemoryRunStore",
    "stores.local.rocksdb.store": "RocksDBRunStore",
    "stores.local.sqlite.store": "SQLiteRunStore",
    "stores.open": "open_store",
    "stores.protocol": "RunStore",
    "stores.redis.store": "RedisRunStore",
}
"""The public names by the module that defines them."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = import_module("importlib.metadata").version("murmur-streams")
    elif name == "__all__":
        value = sorted([*_MODULES, "__version__"])
    elif name in _MODULES:
        value = getattr(import_module(f"murmur_streams.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_MODULES, "__version__"])
