"""Redis-native event sourcing for long-lived runs: submit, poll, stream, from any process."""

import logging
from importlib.metadata import version

from murmur_streams.core.audit import AuditReport
from murmur_streams.core.entries import EntryType, JournalEntry
from murmur_streams.core.errors import (
    AgentNotRegisteredError,
    CursorError,
    CursorGapError,
    CursorResetError,
    EmbeddedServerError,
    InvalidCursorError,
    InvalidEventError,
    InvalidInputError,
    InvalidPayloadError,
    InvalidRunIdError,
    InvalidTargetError,
    LeaseLostError,
    MurmurError,
    OutcomeUnknownError,
    PayloadTooLargeError,
    RegistryError,
    RemoteAgentError,
    RunCancelledError,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    RunNotTerminalError,
    RunTerminatedError,
    StoreClosedError,
    StoreConfigurationError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    WrongExpectedVersionError,
)
from murmur_streams.core.events import RunEvent, RunEventType
from murmur_streams.core.identifiers import new_run_id
from murmur_streams.core.limits import Limits
from murmur_streams.core.protocol import RunStore
from murmur_streams.core.results import AgentResult, GroupResult, ResultMetadata, TaskSpec
from murmur_streams.core.run import Run
from murmur_streams.core.states import RunProgress, RunState, RunStatus
from murmur_streams.fleet import Fleet, RunContext, RunHandle
from murmur_streams.stores.memory import InMemoryRunStore
from murmur_streams.stores.open import open_store
from murmur_streams.stores.redis.store import RedisRunStore

__version__ = version("murmur-streams")

logging.getLogger("murmur_streams").addHandler(logging.NullHandler())

__all__ = [
    "AgentNotRegisteredError",
    "AgentResult",
    "AuditReport",
    "CursorError",
    "CursorGapError",
    "CursorResetError",
    "EmbeddedServerError",
    "EntryType",
    "Fleet",
    "GroupResult",
    "InMemoryRunStore",
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
    "OutcomeUnknownError",
    "PayloadTooLargeError",
    "RedisRunStore",
    "RegistryError",
    "RemoteAgentError",
    "ResultMetadata",
    "Run",
    "RunCancelledError",
    "RunContext",
    "RunEvent",
    "RunEventType",
    "RunExistsError",
    "RunFailedError",
    "RunHandle",
    "RunNotFoundError",
    "RunNotTerminalError",
    "RunProgress",
    "RunState",
    "RunStatus",
    "RunStore",
    "RunTerminatedError",
    "StoreClosedError",
    "StoreConfigurationError",
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
