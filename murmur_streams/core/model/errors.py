"""Every error this package raises on purpose, one tree under one base.

::

    MurmurError
    ├── RegistryError                   what programs written for ``murmur.runs`` catch
    │   ├── RunNotFoundError
    │   │   └── DeadLetterNotFoundError
    │   ├── RunExistsError
    │   └── IdempotencyConflictError
    ├── InvalidInputError (ValueError)  refused before anything was written
    │   ├── InvalidRunIdError
    │   ├── InvalidTargetError
    │   ├── InvalidEventError
    │   ├── InvalidPayloadError
    │   ├── PayloadTooLargeError
    │   ├── InvalidArchiveError
    │   └── InvalidCursorError
    ├── WrongExpectedVersionError
    ├── RunTerminatedError
    ├── RunNotTerminalError
    ├── LeaseLostError
    ├── CursorError                     carries ``resume_cursor``
    │   ├── CursorGapError
    │   └── CursorResetError
    ├── StoreError
    │   ├── StoreUnavailableError
    │   ├── OutcomeUnknownError
    │   │   └── NotReplicatedError
    │   ├── StoreRewoundError
    │   ├── StoreReadOnlyError
    │   ├── StoreFullError
    │   ├── StoreClosedError
    │   ├── RunDamagedError
    │   ├── StoreDamagedError
    │   └── StoreConfigurationError
    │       ├── EmbeddedServerError
    │       └── WritesDisabledError
    ├── AgentNotRegisteredError
    ├── RunFailedError
    ├── RunCancelledError
    ├── NonRetryableError               what agents raise to fail for good
    └── RemoteAgentError
"""

from __future__ import annotations


class MurmurError(Exception):
    """Base of every error that this package raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # Rebuilt from its text, since the classes have different arguments: so it can be copied
        # and pickled.
        return _rebuilt, (type(self), self.args), self.__dict__


class RegistryError(MurmurError):
    """A run id is unknown or already taken."""


class RunNotFoundError(RegistryError):
    """No run has this id: it was never created, was deleted, or has expired."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run_id {run_id!r} not found: it was never created, was deleted, or has expired"
        )
        self.run_id = run_id


class DeadLetterNotFoundError(RunNotFoundError):
    """The run has no dead letter; the run itself may exist."""

    def __init__(self, run_id: str) -> None:
        RegistryError.__init__(
            self,
            f"no dead letter of run {run_id!r}: it was requeued or purged, or the run has not "
            "failed for good in a worker's hands",
        )
        self.run_id = run_id


class RunExistsError(RegistryError):
    """A run with this id was created before."""

    def __init__(
        self, run_id: str, instead: str = "choose another, or let new_run_id() draw one"
    ) -> None:
        super().__init__(f"run_id {run_id!r} already exists; {instead}")
        self.run_id = run_id


class IdempotencyConflictError(RegistryError):
    """The idempotency key was used before, for another request; nothing was submitted."""

    def __init__(self, run_id: str, target: str, key: str) -> None:
        super().__init__(
            f"idempotency key {key!r} of {target!r} belongs to run {run_id!r}, which was submitted "
            "with another input or other options; use a new key for new work"
        )
        self.run_id = run_id
        self.target = target
        self.key = key


class InvalidInputError(MurmurError, ValueError):
    """The caller's input breaks a rule; the text says which. Nothing was written."""


class InvalidRunIdError(InvalidInputError):
    """The run id is outside the grammar."""


class InvalidTargetError(InvalidInputError):
    """The target (the name of an agent or a group) is outside the grammar."""


class InvalidEventError(InvalidInputError):
    """The event cannot be journalled: another run's id, a naive timestamp, or not JSON."""


class InvalidPayloadError(InvalidInputError):
    """An input, output, result or metadata is not JSON, or does not fit its declared type."""


class PayloadTooLargeError(InvalidInputError):
    """An event, input or result is over its limit in bytes."""

    def __init__(self, what: str, size: int, limit: int, setting: str) -> None:
        super().__init__(
            f"{what} is {size:,} bytes, over the limit of {limit:,} ({setting}); "
            "store large data elsewhere and pass a reference to it"
        )
        self.size = size
        self.limit = limit


class InvalidArchiveError(InvalidInputError):
    """An archive is damaged, cut off, or of another format; nothing of it was written."""


class InvalidCursorError(InvalidInputError):
    """The text is not a cursor."""


class WrongExpectedVersionError(MurmurError):
    """The run's version is not the one the caller expected; nothing was appended."""

    def __init__(self, run_id: str, expected: int, actual: int) -> None:
        super().__init__(
            f"run {run_id!r} is at version {actual}, not {expected}: "
            "read what is new, decide again, then append"
        )
        self.run_id = run_id
        self.expected = expected
        self.actual = actual


class RunTerminatedError(MurmurError):
    """The run has ended; nothing more can be appended."""

    def __init__(self, run_id: str, state: str) -> None:
        super().__init__(f"run {run_id!r} has ended ({state}); nothing more can be appended to it")
        self.run_id = run_id
        self.state = state


class RunNotTerminalError(MurmurError):
    """The operation is only for runs that have ended, and this one has not."""

    def __init__(self, run_id: str, state: str, instead: str = "delete it with force=True") -> None:
        super().__init__(f"run {run_id!r} is {state}; wait until it has ended, or {instead}")
        self.run_id = run_id
        self.state = state


class LeaseLostError(MurmurError):
    """The worker's claim on the run is over: the run was taken back from it, or has ended."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"the claim on run {run_id!r} is over: the run was taken back from this worker, or it "
            "has ended; nothing was written"
        )
        self.run_id = run_id


class CursorError(MurmurError):
    """A stream cannot go on from its cursor without missing or repeated entries.

    A caller that accepts missing or repeated entries resumes after ``resume_cursor``; None means
    from the start.
    """

    def __init__(self, message: str, resume_cursor: str | None) -> None:
        super().__init__(message)
        self.resume_cursor = resume_cursor


class CursorGapError(CursorError):
    """Entries after the cursor were trimmed away."""


class CursorResetError(CursorError):
    """The cursor is of another run, an earlier life of the id, or beyond the end.

    If the server lost writes, ``resume_cursor`` is an entry that the reader has surely seen, if
    there is one: ten seconds before the cursor.
    """


class StoreError(MurmurError):
    """The store could not carry out the operation."""


class StoreUnavailableError(StoreError):
    """The server cannot be reached; nothing was written by this call."""


class OutcomeUnknownError(StoreError):
    """The connection failed and retries ran out: the write was applied once, or not at all."""


class NotReplicatedError(OutcomeUnknownError):
    """The primary applied the write, but its replicas did not confirm it in time.

    Only stores with ``durability="replicated"`` raise it.
    """


class StoreRewoundError(StoreError):
    """The server lost earlier writes to this run that it had acknowledged to this store.

    A failover or a restart took them away. Nothing of this call was written. It is raised once for
    each run and loss; the same call again is applied to the run as it is now.
    """

    def __init__(self, run_id: str, where: str) -> None:
        super().__init__(
            f"{where} lost writes to run {run_id!r} that it had acknowledged (a failover, or a "
            "restart without its last data); nothing of this call was written: read the run again "
            "and decide"
        )
        self.run_id = run_id


class StoreReadOnlyError(StoreError):
    """The server takes no writes now (replica, full or failing disk). Nothing was written."""


class StoreFullError(StoreError):
    """The server is out of memory. Nothing was written."""


class StoreClosedError(StoreError):
    """The store was closed before or during the call."""


class RunDamagedError(StoreError):
    """The stored state of the run cannot be read.

    ``rebuild`` restores it from the journal, unless ``can_rebuild`` is False: then the journal
    itself is damaged.
    """

    def __init__(self, run_id: str, what: str, *, can_rebuild: bool = True) -> None:
        advice = (
            "`murmur-streams rebuild` makes it anew from the journal"
            if can_rebuild
            else "its journal cannot mend it: import it from an export, or delete it by force"
        )
        super().__init__(f"the stored state of run {run_id!r} is damaged ({what}); {advice}")
        self.run_id = run_id
        self.what = what
        self.can_rebuild = can_rebuild


class StoreDamagedError(StoreError):
    """The file or folder of a store cannot be read. It was left unchanged."""


class StoreConfigurationError(StoreError):
    """The URL, credentials, permissions, server version or keys do not fit this store."""


class WritesDisabledError(StoreConfigurationError):
    """The store was opened with ``read_only=True``, and the call would write. Nothing was sent."""


class EmbeddedServerError(StoreConfigurationError):
    """The embedded server could not be found, started or reached."""


class AgentNotRegisteredError(MurmurError, LookupError):
    """The fleet has no agent of this name."""


class RunFailedError(MurmurError):
    """The run ended ``failed``; ``error_type``, ``error`` and ``traceback`` say why."""

    def __init__(
        self, run_id: str, error: str, error_type: str | None = None, traceback: str | None = None
    ) -> None:
        super().__init__(f"run {run_id!r} failed: {error}")
        self.run_id = run_id
        self.error = error
        self.error_type = error_type
        self.traceback = traceback


class RunCancelledError(MurmurError):
    """The run ended ``cancelled``."""

    def __init__(self, run_id: str, reason: str | None = None) -> None:
        super().__init__(f"run {run_id!r} was cancelled" + (f": {reason}" if reason else ""))
        self.run_id = run_id
        self.reason = reason


class NonRetryableError(MurmurError):
    """Raised by an agent: the run fails at once, however many retries it has left."""


class RemoteAgentError(MurmurError):
    """An exception that an agent raised in another process, as data.

    It has the type, the message, and the end of the traceback if the worker recorded one.
    """

    def __init__(self, type_name: str, message: str, traceback: str | None = None) -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback


def _rebuilt(kind: type[MurmurError], args: tuple[object, ...]) -> MurmurError:
    return kind.__new__(kind, *args)
