"""Problem documents become exceptions, the opposite of what the server does."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from murmur_streams.client.answers import (
    BY_SLUG,
    Answer,
    ForbiddenError,
    HTTPError,
    ReceivedProblem,
    UnauthorizedError,
    error_of,
)
from murmur_streams.client.requests import Ask, problem_of
from murmur_streams.core.model import errors
from murmur_streams.server.responses import problem_of as problem_of_error
from murmur_streams.wire import problems
from murmur_streams.wire.problems import EXCEPTION_KINDS, ProblemError, ProblemKind

ALL_KINDS = [value for value in vars(problems).values() if isinstance(value, ProblemKind)]


def made(document: dict[str, Any], status: int, **asked: str) -> BaseException:
    return error_of(ReceivedProblem(status, document, "req-1", **asked))


def test_the_client_knows_the_kinds_of_the_server_and_no_others() -> None:
    """Both tables have the same slugs."""
    assert set(BY_SLUG) == {kind.slug for kind in ALL_KINDS}


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.slug)
def test_every_kind_of_problem_is_an_exception_with_its_text(kind: ProblemKind) -> None:
    """The exception has the request id as a note."""
    document = problem_of_error(ProblemError(kind, "what happened")).document("req-1")
    error = made(document, kind.status, run_id="r-1")
    assert type(error) is BY_SLUG[kind.slug]
    assert isinstance(error, (errors.MurmurError, TimeoutError))
    assert "what happened" in str(error)
    assert error.__notes__ == ["request id: req-1"]
    if isinstance(error, HTTPError):
        assert (error.status, error.problem, error.request_id) == (kind.status, document, "req-1")


@pytest.mark.parametrize(("kind", "raised"), [(kind, raised) for raised, kind in EXCEPTION_KINDS])
def test_an_exception_of_the_server_comes_back_as_its_like(
    kind: ProblemKind, raised: type[BaseException]
) -> None:
    """The same class, or one that both share."""
    assert issubclass(BY_SLUG[kind.slug], errors.MurmurError | TimeoutError)
    # One kind may stand for several exceptions: then it becomes what they have in common.
    family = [each for each, of_kind in EXCEPTION_KINDS if of_kind is kind]
    assert any(issubclass(BY_SLUG[kind.slug], each) for each in family) or any(
        issubclass(each, BY_SLUG[kind.slug]) for each in family
    )
    assert raised in family


@pytest.mark.parametrize(
    ("raised", "kind", "attributes"),
    [
        (errors.RunNotFoundError("r-1"), errors.RunNotFoundError, {"run_id": "r-1"}),
        (errors.RunExistsError("r-1"), errors.RunExistsError, {"run_id": "r-1"}),
        (
            errors.CursorGapError("gone", "0a1b2c3d-1-2"),
            errors.CursorGapError,
            {"resume_cursor": "0a1b2c3d-1-2"},
        ),
        (errors.CursorResetError("anew", None), errors.CursorResetError, {"resume_cursor": None}),
        (
            errors.IdempotencyConflictError("r-1", "echo", "k"),
            errors.IdempotencyConflictError,
            {"target": "echo", "key": "k"},
        ),
        (
            errors.RunNotTerminalError("r-1", "running"),
            errors.RunNotTerminalError,
            {"run_id": "r-1"},
        ),
        (errors.PayloadTooLargeError("it", 9, 8, "x"), errors.PayloadTooLargeError, {}),
        (errors.AgentNotRegisteredError("no"), LookupError, {}),
        (errors.InvalidCursorError("no"), ValueError, {}),
        (TimeoutError("late"), TimeoutError, {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_the_librarys_exceptions_come_back_as_they_were(
    raised: BaseException, kind: type[BaseException], attributes: dict[str, Any]
) -> None:
    """Class, text and attributes are the same."""
    answer = problem_of_error(raised)
    error = made(answer.document("x"), answer.kind.status, run_id="r-1", target="echo", key="k")
    assert isinstance(error, kind)
    assert str(error) == str(raised)
    assert {name: getattr(error, name) for name in attributes} == attributes


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.slug)
def test_every_exception_can_cross_a_process(kind: ProblemKind) -> None:
    """Pickling and unpickling gives an equal exception."""
    document = problem_of_error(ProblemError(kind)).document("req-1")
    error = made(document, kind.status, run_id="r-1")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert (type(again), str(again)) == (type(error), str(error))
    assert again.__dict__ == error.__dict__


@pytest.mark.parametrize(
    ("name", "status", "run_id", "kind"),
    [
        ("RegistryError", 404, "r-1", errors.RunNotFoundError),
        ("RegistryError", 404, "", errors.RegistryError),
        ("SpecValidationError", 400, "", errors.InvalidInputError),
        ("ServerShuttingDown", 503, "", errors.StoreUnavailableError),
        ("TrustViolationError", 403, "", ForbiddenError),
        ("Unauthorized", 401, "", UnauthorizedError),
        ("BudgetExceededError", 429, "", HTTPError),
        ("SomethingNew", 500, "", HTTPError),
    ],
)
def test_the_name_of_an_error_does_without_a_problem_document(
    name: str, status: int, run_id: str, kind: type[BaseException]
) -> None:
    """Servers of ``murmur-runtime`` answer with ``error`` and ``message`` only."""
    error = made({"error": name, "message": "why"}, status, run_id=run_id)
    assert type(error) is kind
    assert "why" in str(error)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Bad Gateway</html>", b"[1]", b'"text"', b"null", b"\xff\xfe", b"[" * 100_000],
)
@pytest.mark.parametrize(
    ("status", "kind"), [(401, UnauthorizedError), (403, ForbiddenError), (418, HTTPError)]
)
def test_an_answer_that_is_no_problem_document_has_its_status(
    body: bytes, status: int, kind: type[HTTPError]
) -> None:
    """A proxy's HTML page is an HTTPError, for example."""
    error = error_of(problem_of(Ask(path="/"), Answer(status, {"x-request-id": "r"}, body)))
    assert type(error) is kind
    assert isinstance(error, HTTPError)
    assert (error.status, error.problem, error.request_id) == (status, {}, "r")


@pytest.mark.parametrize(
    "document",
    [
        {"type": 7, "detail": ["x"], "message": None, "title": {}},
        {"type": "urn:murmur-streams:problem:cursor-gap", "resume_cursor": 7},
        {"type": "urn:murmur-streams:problem:wrong-version", "actual_version": "9"},
        {"type": "urn:murmur-streams:problem:run-not-found", "detail": "x" * 1_000_000},
        {"error": {"a": 1}},
    ],
)
def test_a_hostile_document_is_still_an_exception(document: dict[str, Any]) -> None:
    """Its text has a bounded length."""
    answer = Answer(410, {}, json.dumps(document).encode())
    error = error_of(problem_of(Ask(path="/"), answer))
    assert isinstance(error, errors.MurmurError)
    assert len(str(error)) < 10_000
