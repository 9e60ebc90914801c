"""The requests for arguments; some arguments are refused before a request is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from murmur_streams.client import requests
from murmur_streams.core.model import errors
from murmur_streams.core.model.states import RunState

NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)


def body(**options: Any) -> dict[str, Any]:
    ask = requests.submit("echo", {"a": [1, None]}, **options)
    assert ask.body is not None
    return json.loads(ask.body)


def test_what_is_left_out_is_not_sent() -> None:
    """Defaults are the server's."""
    assert body() == {"target": "echo", "task": {"input": {"a": [1, None]}}}
    empty = requests.submit("echo", None)
    assert json.loads(empty.body or b"") == {"target": "echo", "task": {}}
    assert dict(empty.headers) == {}


def test_every_option_is_sent() -> None:
    """Options travel in the body or as headers."""
    sent = body(
        run_id="r-1", metadata={"k": 1}, delay=timedelta(minutes=1), priority=-3, deadline=2.5
    )
    assert sent["task"]["metadata"] == {"k": 1}
    del sent["task"]
    wanted = {"target": "echo", "run_id": "r-1", "delay": 60.0, "priority": -3, "deadline": 2.5}
    assert sent == wanted
    assert body(at=NOW)["at"] == "2030-01-31T09:00:00+00:00"
    ask = requests.submit("echo", 1, idempotency_key='a"b\\c', wait=1.2)
    assert ask.headers == {"Idempotency-Key": '"a\\"b\\\\c"', "Prefer": "wait=2"}
    assert (ask.key, ask.wait_seconds, ask.method, ask.path) == ('a"b\\c', 1.2, "POST", "/submit")


def test_a_trace_travels_in_headers_and_a_bad_one_is_dropped() -> None:
    """Only valid headers of the two names."""
    trace = {"traceparent": "00-a-b-01", "tracestate": "x\r\nEvil: 1", "other": "x"}
    assert requests.submit("echo", 1, trace=trace).headers == {"traceparent": "00-a-b-01"}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"run_id": "a/b"}, errors.InvalidRunIdError),
        ({"run_id": "r", "idempotency_key": "k"}, errors.InvalidInputError),
        ({"delay": 1, "at": NOW}, errors.InvalidInputError),
        ({"at": NOW.replace(tzinfo=None)}, errors.InvalidInputError),
        *[({"delay": delay}, errors.InvalidInputError) for delay in (-1, True, "1", float("nan"))],
        ({"deadline": float("inf")}, errors.InvalidInputError),
        ({"metadata": [1]}, errors.InvalidInputError),
        ({"metadata": {"a": {1}}}, errors.InvalidPayloadError),
        *[
            ({"idempotency_key": key}, errors.InvalidInputError)
            for key in ("", "a b", "a\nb", "é", "x" * 256, 7)
        ],
        ({"wait": -1}, errors.InvalidInputError),
    ],
)
def test_a_submission_that_breaks_a_rule_is_not_sent(
    options: dict[str, Any], kind: type[BaseException]
) -> None:
    """Each rule is checked before the request."""
    with pytest.raises(kind):
        requests.submit("echo", 1, **options)


@pytest.mark.parametrize("value", [{1}, float("nan"), "\ud800", object(), {1: 2}])
def test_an_input_that_is_no_json_is_not_sent(value: object) -> None:
    """It raises InvalidPayloadError."""
    with pytest.raises(errors.InvalidPayloadError):
        requests.submit("echo", value)


@pytest.mark.parametrize("run_id", ["", "../x", "a b", "a\r\nb", "a?b", "é", "x" * 129, None, 7])
def test_no_run_id_outside_the_grammar_is_sent(run_id: Any) -> None:
    """Each route of a run checks it first."""
    for rest in ("/status", "", "/result", "/ticket"):
        with pytest.raises(errors.InvalidRunIdError):
            requests.of_run(run_id, rest)
    with pytest.raises(errors.InvalidRunIdError):
        requests.stream(run_id, None)
    with pytest.raises(errors.InvalidRunIdError):
        requests.stream_many(["a", run_id], None)


def test_ids_are_encoded_in_paths() -> None:
    """A colon becomes %3A."""
    assert requests.of_run("a:b", "/status").path == "/runs/a%3Ab/status"
    assert requests.of_run("a:b", "/status").run_id == "a:b"


@pytest.mark.parametrize("after", ["a\r\nX: 1", "a\0", "é", " x", "x "])
def test_a_cursor_that_no_header_can_hold_is_not_sent(after: str) -> None:
    """Newlines, spaces and non-ASCII raise InvalidInputError."""
    for make in (
        lambda: requests.stream("r-1", after),
        lambda: requests.stream_many(["r-1"], after),
        lambda: requests.feed(after, (), ()),
    ):
        with pytest.raises(errors.InvalidInputError, match="visible ASCII"):
            make()


def test_queries_hold_what_was_asked_for() -> None:
    """Options that were not given are left out."""
    assert requests.events("r", None, None, 0).query == ()
    asked = requests.events("r", "c", 5, 2.5)
    assert asked.query == (("after", "c"), ("limit", "5"), ("wait", "2.5"))
    assert asked.wait_seconds == 2.5
    runs = requests.list_runs(state=RunState.FAILED, target="echo", limit=7)
    assert runs.query == (("state", "failed"), ("target", "echo"), ("limit", "7"))
    feed = requests.feed(None, ["a", "b"], ["log"])
    assert feed.query == (("target", "a"), ("target", "b"), ("type", "log"), ("control", "1"))
    assert requests.delete("r", force=False).query == ()
    assert requests.delete("r", force=True).query == (("force", "true"),)


def test_a_cancel_sends_what_was_given_and_no_more() -> None:
    """Reason in the body, wait in a header."""
    assert (requests.cancel("r", None, None).body, requests.cancel("r", None, None).headers) == (
        None,
        {},
    )
    asked = requests.cancel("r", "why", 0)
    assert (asked.body, asked.headers) == (b'{"reason":"why"}', {"Prefer": "wait=0"})
    with pytest.raises(errors.InvalidInputError, match="must be text"):
        requests.cancel("r", 7, None)  # pyright: ignore[reportArgumentType]  # that is the mistake
