"""Turns the answers of a server into the library's own values and exceptions. No I/O.

::

    MurmurError
    ├── HTTPError                       an answer without an exception of its own
    │   ├── UnauthorizedError           401
    │   ├── ForbiddenError              403
    │   └── UnreadableAnswerError       too large, or not from a murmur-streams server
    └── … those of ``murmur_streams.core.model.errors``, as if the runs were here
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model import errors
from murmur_streams.core.model.entries import Cursor, JournalEntry
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.limits import MAX_ERROR_CHARACTERS
from murmur_streams.core.model.run import Run, RunPage
from murmur_streams.core.rules.evolve import Cancellation, recorded_cancellation
from murmur_streams.wire import problems
from murmur_streams.wire.answers import entry_of, event_of, run_of, text_of


class HTTPError(errors.MurmurError):
    """The server answered with a problem for which the library has no other exception."""

    def __init__(
        self,
        message: str,
        status: int | None = None,
        problem: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """The status of the answer; None when no answer could be read."""
        self.problem: dict[str, Any] = dict(problem or {})
        """The problem document; empty when the answer had none."""
        self.request_id = request_id
        """The id of the request in the server's log."""


class UnauthorizedError(HTTPError):
    """The server requires a token, or rejects this one."""


class ForbiddenError(HTTPError):
    """The token does not permit this."""


class UnreadableAnswerError(HTTPError):
    """The answer is too large, or does not come from a murmur-streams server."""


@dataclass(frozen=True, slots=True)
class ReceivedProblem:
    """An answer other than success, as far as it could be read."""

    status: int
    document: Mapping[str, Any] = field(default_factory=dict[str, Any])
    request_id: str | None = None
    run_id: str = ""
    """The run that the request was about; "" when it was about none."""
    target: str = ""
    key: str = ""
    """The idempotency key that was sent."""

    @property
    def slug(self) -> str:
        """The slug of its kind; "" for an answer without one."""
        kind = self.document.get("type")
        return kind.removeprefix(problems.TYPE_PREFIX) if isinstance(kind, str) else ""

    @property
    def detail(self) -> str:
        """Its text for people."""
        for name in ("detail", "message", "title"):
            text = self.document.get(name)
            if isinstance(text, str) and text:
                return text[:MAX_ERROR_CHARACTERS]
        return f"the server answered {self.status}"


BY_SLUG: dict[str, type[BaseException]] = {
    **{slug: problems.EXCEPTIONS.get(slug, HTTPError) for slug in problems.SLUGS},
    problems.UNAUTHORIZED.slug: UnauthorizedError,
    problems.FORBIDDEN.slug: ForbiddenError,
}
"""The exception of each kind of problem."""

BY_NAME: dict[str, type[BaseException]] = {
    "RegistryError": errors.RegistryError,
    "ServerShuttingDown": errors.StoreUnavailableError,
    "SpecValidationError": errors.InvalidInputError,
    "TrustViolationError": ForbiddenError,
    "Unauthorized": UnauthorizedError,
}
"""The exceptions by ``error``, for servers that do not write problem documents."""

_BY_STATUS: dict[int, type[BaseException]] = {401: UnauthorizedError, 403: ForbiddenError}


def error_of(problem: ReceivedProblem) -> BaseException:
    """The exception for an answer. It has the request's id as a note."""
    kind = _kind(problem)
    if issubclass(kind, HTTPError):
        text = f"{problem.detail} (HTTP {problem.status})"
        error = kind(text, problem.status, problem.document, problem.request_id)
    else:
        # The class's __init__ is not called: an answer lacks some of its arguments.
        error = kind.__new__(kind, problem.detail)
        for name, value in _attributes(kind, problem).items():
            setattr(error, name, value)
    if problem.request_id:
        error.add_note(f"request id: {problem.request_id}")
    return error


def _kind(problem: ReceivedProblem) -> type[BaseException]:
    kind = BY_SLUG.get(problem.slug)
    if kind is not None:
        return kind
    name = problem.document.get("error")
    kind = BY_NAME.get(name) if isinstance(name, str) else None
    if (
        kind is errors.RegistryError
        and problem.run_id
        and problem.status == problems.RUN_NOT_FOUND.status
    ):
        return errors.RunNotFoundError
    return kind or _BY_STATUS.get(problem.status, HTTPError)


def _attributes(kind: type[BaseException], problem: ReceivedProblem) -> dict[str, Any]:
    document = problem.document
    run_id = problem.run_id
    if issubclass(kind, errors.CursorError):
        return {"resume_cursor": _text(document, "resume_cursor")}
    if issubclass(kind, errors.PayloadTooLargeError):
        return {"size": _number(document, "size"), "limit": _number(document, "limit")}
    if issubclass(kind, errors.IdempotencyConflictError):
        taken = _text(document, "run_id") or run_id
        return {"run_id": taken, "target": problem.target, "key": problem.key}
    if issubclass(kind, errors.RunNotTerminalError):
        return {"run_id": run_id, "state": _text(document, "state") or ""}
    if issubclass(kind, errors.RunDamagedError):
        damaged = _text(document, "run_id") or run_id
        can_rebuild = document.get("can_rebuild") is not False
        return {"run_id": damaged, "what": problem.detail, "can_rebuild": can_rebuild}
    of_a_run = (errors.RunNotFoundError, errors.RunExistsError)
    return {"run_id": run_id} if issubclass(kind, of_a_run) else {}


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = cast("object", document.get(name))
    return value if isinstance(value, str) else None


def _number(document: Mapping[str, Any], name: str) -> int:
    value = cast("object", document.get(name))
    return value if type(value) is int else 0


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes = b""


class LostError(Exception):
    """The connection failed before the whole answer arrived."""

    def __init__(self, message: str, *, may_have_arrived: bool) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived
        """False when the server cannot have seen the request."""


@dataclass(frozen=True, slots=True)
class RunEventPage:
    """Some events of a run, oldest first."""

    events: tuple[RunEvent, ...]
    cursor: str | None
    """Pass it to read on after these events."""
    has_ended: bool
    """Whether there will be no more."""


@dataclass(frozen=True, slots=True)
class RunJournalPage:
    """Some entries of a run's journal, oldest first."""

    entries: tuple[JournalEntry, ...]
    cursor: str | None
    """Pass it to get the next page; None when this was the last."""


def read(answer: Answer, reader: Callable[[Any], T]) -> T:
    """The value of an answer's JSON.

    Raises:
        UnreadableAnswerError: the answer is not JSON, or not of the expected form.
    """
    return checked(answer.body, reader, answer.headers.get("x-request-id"), answer.status)


def checked(
    text: str | bytes,
    reader: Callable[[Any], T],
    request_id: str | None = None,
    status: int | None = None,
) -> T:
    """The value of some JSON text; UnreadableAnswerError as for ``read``."""
    try:
        return reader(decode_json(text))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UnreadableAnswerError(
            f"the server's answer cannot be read ({type(error).__name__}): "
            "is this the address of a murmur-streams server?",
            status,
            None,
            request_id,
        ) from error


def position_of(cursor: str) -> Cursor:
    """The position that a cursor in an answer stands for."""
    try:
        return Cursor.parse(cursor)
    except errors.InvalidCursorError as error:
        # The server sent this cursor: InvalidCursorError would blame one of the caller's.
        raise UnreadableAnswerError(f"the server's answer cannot be read: {error}") from error


def page_of(members: dict[str, Any]) -> RunPage:
    """A page of a listing."""
    return RunPage(tuple(run_of(each) for each in members["runs"]), members.get("next"))


def events_of(members: dict[str, Any]) -> RunEventPage:
    """A page of events; types that this version does not know are left out."""
    found = (event_of(each) for each in members["events"])
    events = tuple(event for event in found if event is not None)
    return RunEventPage(events, members["next"] or None, bool(members["ended"]))


def journal_of(run_id: str, members: dict[str, Any]) -> RunJournalPage:
    """A page of a journal."""
    entries = tuple(entry_of(run_id, each) for each in members["entries"])
    return RunJournalPage(entries, members.get("next"))


def feed_entry_of(cursor: str, members: dict[str, Any]) -> FeedEntry:
    """An entry of the feed."""
    run_id, target = text_of(members["run_id"]), text_of(members["target"])
    return FeedEntry(cursor, run_id, target, entry_of(run_id, members))


def cancellation_of(members: dict[str, Any], run: Run) -> Cancellation:
    """How far a cancel has come: the answer says how, the run says when."""
    how = members.get("how")
    return replace(recorded_cancellation(run), how=how and text_of(how))


def names_of(members: list[Any]) -> list[str]:
    """The names in a list of names."""
    return [text_of(name) for name in members]
