"""The requests that are tried again, their waits, and the errors when patience ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from murmur_streams.client.answers import (
    Answer,
    HTTPError,
    UnauthorizedError,
    UnreadableAnswerError,
)
from murmur_streams.client.requests import Patience, Retrying, retry_after
from murmur_streams.core.model import errors
from tests.client.stepping import GONE, NEVER_SENT, Play, answer, problem

STATUS = answer(200, {"run_id": "r-1", "state": "running", "progress": None})
MADE = answer(200, {"run_id": "r-1"})
BUSY = problem("too-many", 429)


@pytest.mark.parametrize(
    "outcome",
    [
        *(GONE, NEVER_SENT, BUSY, problem("unavailable", 503), problem("shutting-down", 503)),
        *(answer(502), answer(503), answer(504), problem("idempotency-in-flight", 409)),
    ],
)
def test_what_passes_is_asked_again(outcome: Any) -> None:
    """For each trouble that may pass, with growing waits."""
    play = Play()
    assert play.act(play.handle.status(), [outcome, outcome, STATUS]) is not None
    assert len(play.asks) == 3
    assert play.waits == [0.05, 0.1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422, 500, 501])
def test_what_will_not_change_is_raised_at_once(status: int) -> None:
    """All other error statuses raise without a retry."""
    play = Play()
    with pytest.raises(errors.MurmurError):
        play.act(play.handle.status(), [answer(status)])
    assert play.waits == []


def test_waits_grow_and_end_with_patience() -> None:
    """A wait is at most 2.5 s, and all waits together retry_seconds."""
    play = Play(retry_seconds=20)
    with pytest.raises(errors.StoreUnavailableError, match="refused"):
        play.act(play.handle.status(), [NEVER_SENT] * 20)
    assert play.waits[:7] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5]
    assert set(play.waits[7:]) == {2.5}
    assert play.now <= 20


def test_waits_are_spread() -> None:
    """A random draw makes each wait up to twice as long."""
    for draw, wait in ((0.0, 0.05), (0.5, 0.075), (1.0, 0.1)):
        retrying = Retrying(Patience(draw=lambda draw=draw: draw))
        assert retrying.wait_after(GONE) == pytest.approx(wait)


def test_no_patience_is_one_try() -> None:
    """With retry_seconds=0 nothing is repeated."""
    play = Play(retry_seconds=0)
    with pytest.raises(errors.StoreUnavailableError):
        play.act(play.handle.status(), [NEVER_SENT])


def test_retry_after_is_honoured() -> None:
    """The server's Retry-After replaces the client's own wait."""
    play = Play()
    outcomes = [answer(429, retry_after="7"), answer(503, retry_after="0"), STATUS]
    play.act(play.handle.status(), outcomes)
    assert play.waits == [7.0, 0.0]


def test_a_retry_after_beyond_patience_is_the_error_at_once() -> None:
    """Waiting would be in vain."""
    play = Play()
    with pytest.raises(HTTPError) as caught:
        play.act(play.handle.status(), [answer(429, retry_after="31")])
    assert (caught.value.status, play.waits) == (429, [])


@pytest.mark.parametrize(
    ("text", "known"),
    [
        *(("5", 5.0), (" 5 ", 5.0), ("", None), ("soon", None), ("-1", None), ("1.5", None)),
        *(("\u0665", None), ("9" * 400, 999_999_999.0), ("Wed, 32 Foo 2026", None)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_as_the_standard_has_it(text: str, known: float | None) -> None:
    """Only whole seconds in ASCII digits count."""
    assert retry_after(Answer(503, {"retry-after": text})) == known


def test_retry_after_may_be_a_date() -> None:
    """A date in the form of HTTP is converted to seconds."""
    text = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    seconds = retry_after(Answer(503, {"retry-after": text}))
    assert seconds is not None
    assert 0 < seconds <= 100


def test_a_submit_has_a_key_of_its_own_and_keeps_it() -> None:
    """All tries of one submission have the same key."""
    play = Play()
    work = play.client.submit("echo", 1)
    made = play.act(work, [GONE, BUSY, problem("outcome-unknown", 503), MADE])
    assert made.run_id == "r-1"
    keys = {ask.headers["Idempotency-Key"] for ask in play.asks}
    assert len(keys) == 1
    other = Play()
    other.act(other.client.submit("echo", 1), [MADE])
    assert other.asks[0].headers["Idempotency-Key"] not in keys


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        ([NEVER_SENT], errors.StoreUnavailableError),
        ([GONE], errors.OutcomeUnknownError),
        ([GONE, NEVER_SENT], errors.OutcomeUnknownError),
        ([problem("outcome-unknown", 503)], errors.OutcomeUnknownError),
        ([problem("unavailable", 503)], errors.StoreUnavailableError),
        ([answer(504), NEVER_SENT], errors.OutcomeUnknownError),
    ],
)
def test_the_error_says_whether_anything_may_have_been_done(
    outcomes: list[Any], kind: type[BaseException]
) -> None:
    """OutcomeUnknownError once a request may have arrived."""
    play = Play(retry_seconds=0.05 * (len(outcomes) - 1))
    with pytest.raises(kind):
        play.act(play.client.submit("echo", 1), outcomes)


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ([], errors.RunExistsError),
        ([NEVER_SENT], errors.RunExistsError),
        ([problem("shutting-down", 503)], errors.RunExistsError),
        ([GONE], errors.OutcomeUnknownError),
        ([answer(502)], errors.OutcomeUnknownError),
    ],
)
def test_an_id_that_is_taken_after_a_lost_answer_may_be_ones_own(
    before: list[Any], kind: type[BaseException]
) -> None:
    """The error is then OutcomeUnknownError."""
    play = Play()
    work = play.client.submit("echo", 1, run_id="r-1")
    with pytest.raises(kind):
        play.act(work, [*before, problem("run-exists", 409)])
    assert "Idempotency-Key" not in play.asks[0].headers


@pytest.mark.parametrize(("before", "is_deleted"), [([], False), ([GONE], True)])
def test_what_was_deleted_by_a_lost_request_is_deleted(before: list[Any], is_deleted: bool) -> None:
    """Not found after a lost answer is a success."""
    play = Play()
    work = play.handle.delete(force=False)
    outcomes = [*before, problem("run-not-found", 404)]
    if is_deleted:
        play.act(work, outcomes)
    else:
        with pytest.raises(errors.RunNotFoundError):
            play.act(work, outcomes)


SNAPSHOT = {
    "run_id": "r-1",
    "target": "echo",
    "state": "running",
    "version": 2,
    "created_at": "2026-01-01T00:00:00.123Z",
    "cursor": "0a1b2c3d-1700000000000-2",
}
NOT_ENDED = problem("run-not-ended", 409)
RESULT = {"agent_name": "echo", "task_id": "r-1", "success": True, "output": 7, "error": None}


def page(*, ended: bool) -> Answer:
    return answer(200, {"events": [], "next": "0a1b2c3d-1700000000000-3", "ended": ended})


def test_a_result_is_waited_for_without_being_polled() -> None:
    """The client uses long polls of 25 s."""
    play = Play()
    outcomes = [NOT_ENDED, answer(200, SNAPSHOT), page(ended=False), NOT_ENDED, page(ended=True)]
    work = play.handle.result(None)
    assert play.act(work, [*outcomes, answer(200, RESULT)]).output == 7
    waited = [dict(ask.query) for ask in play.asks if ask.path.endswith("/events")]
    assert [query["wait"] for query in waited] == ["25", "25"]
    assert [query["after"][-1] for query in waited] == ["2", "3"]


def test_a_result_has_its_time_and_no_more() -> None:
    """After the timeout it raises TimeoutError."""
    play = Play()
    outcomes = [NOT_ENDED, answer(200, SNAPSHOT), page(ended=False)]
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.05 seconds"):
        play.act(play.handle.result(0.05), [*outcomes, NOT_ENDED])
    assert play.waits == [0.05]


def test_a_run_of_a_group_has_a_result_of_its_own() -> None:
    """any_result reads it, result raises."""
    group = {"group": True, "outputs": {"a": RESULT, "b": RESULT}, "success": True}
    play = Play()
    work = play.handle.any_result(None)
    found = play.act(work, [answer(200, group)])
    assert {name: leaf.output for name, leaf in found.outputs.items()} == {"a": 7, "b": 7}
    other = Play()
    with pytest.raises(errors.MurmurError, match="of a group"):
        other.act(other.handle.result(None), [answer(200, group)])


def test_an_error_has_its_type_when_the_server_sends_it() -> None:
    """RunFailedError has it as error_type."""
    play = Play()
    document = {**RESULT, "success": False, "output": None, "error": "no", "error_type": "KeyError"}
    failed = answer(200, {**SNAPSHOT, "state": "failed"})
    with pytest.raises(errors.RunFailedError, match="no") as caught:
        play.act(play.handle.output(None), [answer(200, document), failed])
    assert caught.value.error_type == "KeyError"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html></html>", b"[]", b"null", b'{"run_id": 7, "state": "running"}', b"\xff"),
        *(b'{"run_id": "r-1", "state": "asleep"}', b"[" * 100_000, b'{"state": "running"}'),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error_of_its_own(body: bytes) -> None:
    """UnreadableAnswerError has the request id."""
    play = Play()
    unreadable = Answer(200, {"x-request-id": "req-1"}, body)
    with pytest.raises(UnreadableAnswerError, match="cannot be read") as caught:
        play.act(play.handle.status(), [unreadable])
    assert caught.value.request_id == "req-1"


@pytest.mark.parametrize(
    "members",
    [
        *({"cursor": "x"}, {"cursor": None}, {"state": "x"}, {"version": "x"}, {"run_id": None}),
        *({"created_at": "x"}, {"created_at": 7}, {"progress": 7}, {"errors": 7}, {"target": []}),
    ],
)
def test_a_snapshot_that_makes_no_sense_is_an_error_of_its_own(members: dict[str, Any]) -> None:
    """Each member of a wrong kind raises UnreadableAnswerError."""
    play = Play()
    with pytest.raises(UnreadableAnswerError):
        play.act(play.handle.snapshot(), [answer(200, {**SNAPSHOT, **members})])


def test_credentials_that_are_refused_are_asked_once() -> None:
    """No retry follows a 401."""
    play = Play()
    with pytest.raises(UnauthorizedError):
        play.act(play.client.agents(), [problem("unauthorized", 401)])


@pytest.mark.parametrize(
    "options",
    [
        *({"timeout_seconds": 0}, {"timeout_seconds": float("inf")}, {"silence_seconds": -1}),
        *({"retry_seconds": -1}, {"retry_seconds": float("nan")}, {"max_response_bytes": 0}),
    ],
)
def test_patience_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    """Each option out of range raises InvalidInputError."""
    with pytest.raises(errors.InvalidInputError):
        Patience(**options)
