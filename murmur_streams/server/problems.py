"""One table from exception to problem document (RFC 9457), with the error fields of old clients.

A document has ``type``, ``title``, ``status``, ``detail`` and ``request_id``; beside them the
fields that clients of ``murmur-runtime`` read: ``error``, ``message``, ``agent``, ``task_id``.
What went wrong inside is logged under the request id and never told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from murmur_streams.core.exception_text import error_message
from murmur_streams.core.model import errors

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:murmur-streams:problem:"
_MOST_SHOWN = 5
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of problem: its name in ``type``, its status, and the name that old clients know."""

    slug: str
    status: int
    title: str
    error: str
    is_told: bool = True
    """False: the text of the exception stays inside."""
    retry_after: int | None = None


class ProblemError(Exception):
    """Raised by a route: it is answered with this problem."""

    def __init__(
        self,
        kind: Kind,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail or kind.title)
        self.kind = kind
        self.headers = dict(headers or {})
        self.members = members


BAD_REQUEST = Kind("bad-request", 400, "The request is malformed", "SpecValidationError")
BAD_JSON = Kind(
    "bad-json", 400, "The body is not the JSON that is taken here", "SpecValidationError"
)
BAD_CURSOR = Kind("bad-cursor", 400, "The cursor is none of ours", "SpecValidationError")
UNAUTHORIZED = Kind("unauthorized", 401, "Credentials are needed", "Unauthorized")
FORBIDDEN = Kind("forbidden", 403, "The credentials do not cover this", "TrustViolationError")
NOT_FOUND = Kind("not-found", 404, "There is nothing here", "RegistryError")
RUN_NOT_FOUND = Kind("run-not-found", 404, "There is no such run", "RegistryError")
NO_AGENT = Kind("agent-not-registered", 404, "There is no such agent", "RegistryError")
NO_GROUP = Kind("group-not-registered", 404, "There is no such group", "RegistryError")
METHOD = Kind("method-not-allowed", 405, "This method does nothing here", "MurmurError")
NOT_ACCEPTABLE = Kind("not-acceptable", 406, "This is an event stream", "MurmurError")
SLOW_BODY = Kind("body-timeout", 408, "The body came too slowly", "MurmurError")
RUN_EXISTS = Kind("run-exists", 409, "The run id is taken", "RegistryError")
NOT_ENDED = Kind("run-not-ended", 409, "The run has not ended", "MurmurError")
IN_FLIGHT = Kind(
    "idempotency-in-flight", 409, "The first request is under way", "MurmurError", retry_after=1
)
CURSOR_GAP = Kind("cursor-gap", 410, "What came after the cursor is gone", "MurmurError")
CURSOR_RESET = Kind("cursor-reset", 410, "The cursor is of another stream", "MurmurError")
TOO_LARGE = Kind("too-large", 413, "The request is too large", "SpecValidationError")
LONG_URL = Kind("url-too-long", 414, "The URL is too long", "SpecValidationError")
MEDIA = Kind("media-type", 415, "Only plain JSON is taken here", "SpecValidationError")
INVALID = Kind("invalid", 422, "A value breaks a rule", "SpecValidationError")
KEY_REUSED = Kind(
    "idempotency-conflict", 422, "The key belongs to other work", "SpecValidationError"
)
TOO_MANY = Kind("too-many", 429, "Too many at the same time", "BudgetExceededError", retry_after=5)
LONG_HEADERS = Kind("headers-too-large", 431, "The headers are too large", "SpecValidationError")
INTERNAL = Kind("internal", 500, "Something went wrong here", "MurmurError", is_told=False)
DAMAGED = Kind(
    "run-damaged", 500, "What is stored of the run cannot be read", "MurmurError", is_told=False
)
UNAVAILABLE = Kind(
    "unavailable",
    503,
    "The store cannot be reached now",
    "MurmurError",
    is_told=False,
    retry_after=2,
)
UNKNOWN = Kind(
    "outcome-unknown",
    503,
    "It was done once or not at all; with an Idempotency-Key it can be asked again",
    "MurmurError",
    is_told=False,
    retry_after=2,
)
DRAINING = Kind(
    "shutting-down",
    503,
    "This pod is shutting down; ask another",
    "ServerShuttingDown",
    retry_after=5,
)
TIMEOUT = Kind("timeout", 504, "It took too long", "MurmurError")

_REFUSED_WRITES: dict[type[BaseException], str] = {
    errors.StoreFullError: "The store has no free memory and takes no new work now",
    errors.StoreReadOnlyError: "The store takes no writes now: it is a replica",
}
KINDS: tuple[tuple[type[BaseException], Kind], ...] = (
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
    (errors.StoreError, UNAVAILABLE),
    (TimeoutError, TIMEOUT),
)
"""The first that fits; what is in no row is INTERNAL."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer that is no success."""

    kind: Kind
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def document(self, request_id: str) -> dict[str, Any]:
        """As it is answered."""
        return {
            "type": _TYPE + self.kind.slug,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "request_id": request_id,
            "error": self.kind.error,
            "message": self.detail,
            "agent": None,
            "task_id": None,
            **self.members,
        }

    @property
    def all_headers(self) -> dict[str, str]:
        """Its headers, Retry-After among them where waiting helps."""
        after = self.kind.retry_after
        return {**({"Retry-After": str(after)} if after is not None else {}), **self.headers}


def problem_of(error: BaseException) -> Problem:
    """The problem that an exception is answered with."""
    if isinstance(error, ProblemError):
        return Problem(error.kind, str(error), error.members, error.headers)
    # By its type: one that a user's own type raised may say that its class is anything, or fail.
    kind = next((kind for made, kind in KINDS if issubclass(type(error), made)), INTERNAL)
    detail = (kind.is_told and error_message(error)) or kind.title
    if isinstance(error, errors.RunDamagedError):
        detail = damage_detail(error)
    detail = _REFUSED_WRITES.get(type(error), detail)
    return Problem(kind, detail, _members(error))


def damage_detail(error: errors.RunDamagedError) -> str:
    """What an operator does about a damaged run. What is damaged stays inside, in the log."""
    advice = (
        f"`murmur-streams rebuild {error.run_id}` makes it anew from its journal"
        if error.can_rebuild
        else "its journal cannot mend it: import it from an export, or delete it by force"
    )
    return (
        f"what is stored of run {error.run_id!r} is damaged; `murmur-streams audit "
        f"{error.run_id}` shows where, and {advice}"
    )


def invalid(what: str, errors: list[Any]) -> ProblemError:
    """The problem of values that break rules; it names places and rules, and repeats no value."""
    shown = [{"at": _place(each["loc"]), "rule": _clean(each["msg"])} for each in errors]
    first = "; ".join(f"{each['at']}: {each['rule']}" for each in shown[:_MOST_SHOWN])
    more = len(shown) - _MOST_SHOWN
    detail = f"{what} does not fit: {first}" + (f"; and {more} more" if more > 0 else "")
    return ProblemError(INVALID, detail, errors=shown[:_MOST_SHOWN])


def _place(loc: tuple[object, ...]) -> str:
    return _clean(".".join(str(part) for part in loc)) or "value"


def _clean(text: str) -> str:
    return ascii(text)[1:-1][:_SHOWN_CHARACTERS]


def _members(error: BaseException) -> dict[str, Any]:
    if isinstance(error, errors.CursorError):
        return {"resume_cursor": error.resume_cursor}
    if isinstance(error, errors.RunDamagedError):
        return {"run_id": error.run_id, "can_rebuild": error.can_rebuild}
    return {}
