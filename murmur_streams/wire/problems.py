"""The kinds of problems that a server answers with (RFC 9457), and the exception of each.

The server looks for the kind of an exception, the client for the exception of a kind. An answer
with a problem has ``type`` (the kind's URN), ``title``, ``status``, ``detail`` and ``request_id``,
and the fields that clients of ``murmur-runtime`` read: ``error``, ``message``, ``agent`` and
``task_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from murmur_streams.core.model import errors

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:murmur-streams:problem:"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of problem."""

    slug: str
    """The end of ``type``."""
    status: int
    title: str
    error: str = "MurmurError"
    """The name that clients of ``murmur-runtime`` know."""
    shows_detail: bool = True
    """Whether clients may read the text of the exception; False: it is only logged."""
    retry_after: int | None = None
    """The seconds of the header Retry-After."""

    @property
    def type(self) -> str:
        """The URN in a problem's ``type``."""
        return TYPE_PREFIX + self.slug


class ProblemError(Exception):
    """One answer that is not a success; a route or a dependency raises it to answer with it."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail or kind.title)
        self.kind = kind
        self.headers = dict(headers or {})
        """With Retry-After if the kind of problem has one."""
        if kind.retry_after is not None:
            self.headers.setdefault("Retry-After", str(kind.retry_after))
        self.members = members

    def document(self, request_id: str) -> dict[str, Any]:
        """The JSON document."""
        return {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": str(self),
            "request_id": request_id,
            "error": self.kind.error,
            "message": str(self),
            "agent": None,
            "task_id": None,
            **self.members,
        }


BAD_REQUEST = ProblemKind("bad-request", 400, "The request is malformed", "SpecValidationError")
BAD_JSON = ProblemKind(
    "bad-json", 400, "The body is not the JSON that is taken here", "SpecValidationError"
)
BAD_CURSOR = ProblemKind("bad-cursor", 400, "The cursor is none of ours", "SpecValidationError")
UNAUTHORIZED = ProblemKind("unauthorized", 401, "Credentials are needed", "Unauthorized")
FORBIDDEN = ProblemKind(
    "forbidden", 403, "The credentials do not cover this", "TrustViolationError"
)
READ_ONLY = ProblemKind("read-only", 403, "This server only reads")
NOT_FOUND = ProblemKind("not-found", 404, "There is nothing here", "RegistryError")
RUN_NOT_FOUND = ProblemKind("run-not-found", 404, "The run does not exist", "RegistryError")
NO_AGENT = ProblemKind("agent-not-registered", 404, "The agent does not exist", "RegistryError")
NO_GROUP = ProblemKind("group-not-registered", 404, "The group does not exist", "RegistryError")
METHOD = ProblemKind("method-not-allowed", 405, "This method does nothing here")
NOT_ACCEPTABLE = ProblemKind("not-acceptable", 406, "This is an event stream")
SLOW_BODY = ProblemKind("body-timeout", 408, "The body came too slowly")
RUN_EXISTS = ProblemKind("run-exists", 409, "The run id is taken", "RegistryError")
NOT_ENDED = ProblemKind("run-not-ended", 409, "The run has not ended")
IN_FLIGHT = ProblemKind(
    "idempotency-in-flight", 409, "The first request is under way", retry_after=1
)
CURSOR_GAP = ProblemKind("cursor-gap", 410, "What came after the cursor is gone")
CURSOR_RESET = ProblemKind("cursor-reset", 410, "The cursor is of another stream")
TOO_LARGE = ProblemKind("too-large", 413, "The request is too large", "SpecValidationError")
LONG_URL = ProblemKind("url-too-long", 414, "The URL is too long", "SpecValidationError")
MEDIA = ProblemKind("media-type", 415, "Only plain JSON is taken here", "SpecValidationError")
INVALID = ProblemKind("invalid", 422, "A value breaks a rule", "SpecValidationError")
KEY_REUSED = ProblemKind(
    "idempotency-conflict", 422, "The key belongs to other work", "SpecValidationError"
)
TOO_MANY = ProblemKind(
    "too-many", 429, "Too many at the same time", "BudgetExceededError", retry_after=5
)
LONG_HEADERS = ProblemKind(
    "headers-too-large", 431, "The headers are too large", "SpecValidationError"
)
INTERNAL = ProblemKind("internal", 500, "Something went wrong here", shows_detail=False)
DAMAGED = ProblemKind(
    "run-damaged", 500, "What is stored of the run cannot be read", shows_detail=False
)
UNAVAILABLE = ProblemKind(
    "unavailable", 503, "The store cannot be reached now", shows_detail=False, retry_after=2
)
UNKNOWN = ProblemKind(
    "outcome-unknown",
    503,
    "It was done once or not at all; with an Idempotency-Key it can be asked again",
    shows_detail=False,
    retry_after=2,
)
DRAINING = ProblemKind(
    "shutting-down",
    503,
    "This pod is shutting down; ask another",
    "ServerShuttingDown",
    retry_after=5,
)
TIMEOUT = ProblemKind("timeout", 504, "It took too long")

SLUGS = tuple(kind.slug for kind in list(vars().values()) if isinstance(kind, ProblemKind))
"""The slugs of all kinds."""

EXCEPTION_KINDS: tuple[tuple[type[BaseException], ProblemKind], ...] = (
    (errors.RunNotFoundError, RUN_NOT_FOUND),
    (errors.RunExistsError, RUN_EXISTS),
    (errors.IdempotencyConflictError, KEY_REUSED),
    (errors.InvalidCursorError, BAD_CURSOR),
    (errors.InvalidRunIdError, BAD_REQUEST),
    (errors.PayloadTooLargeError, TOO_LARGE),
    (errors.InvalidInputError, INVALID),
    (errors.CursorGapError, CURSOR_GAP),
    (errors.CursorResetError, CURSOR_RESET),
    (errors.RunNotTerminalError, NOT_ENDED),
    (errors.AgentNotRegisteredError, NO_AGENT),
    (errors.OutcomeUnknownError, UNKNOWN),
    (errors.RunDamagedError, DAMAGED),
    (errors.WritesDisabledError, READ_ONLY),
    (errors.StoreError, UNAVAILABLE),
    (TimeoutError, TIMEOUT),
)
"""The kind of each exception: the first row that fits. An exception without a row is INTERNAL."""

_CLIENT_ONLY: dict[ProblemKind, type[BaseException]] = {
    BAD_REQUEST: errors.InvalidInputError,
    BAD_JSON: errors.InvalidPayloadError,
    NO_GROUP: errors.AgentNotRegisteredError,
    IN_FLIGHT: errors.OutcomeUnknownError,
    LONG_URL: errors.InvalidInputError,
    UNAVAILABLE: errors.StoreUnavailableError,
    DRAINING: errors.StoreUnavailableError,
}
"""Kinds that the server finds without an exception, or that stand for several exceptions."""

EXCEPTIONS: dict[str, type[BaseException]] = {
    **{kind.slug: exception for exception, kind in EXCEPTION_KINDS},
    **{kind.slug: exception for kind, exception in _CLIENT_ONLY.items()},
}
"""The exception of each kind, by the kind's slug. For the others the client has its own."""
