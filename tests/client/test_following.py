"""Streams over many connections: the position and the wait of each, and their values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.client.answers import Answer, HTTPError, UnreadableAnswerError
from murmur_streams.core.model import errors
from tests.client.stepping import GONE, HEAD, NEVER_SENT, Outcome, Play, answer, problem

END = b'event: end\ndata: {"state":"completed"}\n\n'


def cursor(seq: int, epoch: str = "0a1b2c3d") -> str:
    return f"{epoch}-1700000000000-{seq}"


def message(seq: int, run_id: str = "r-1", last_id: str | None = None, kind: str = "log") -> bytes:
    data = {"type": kind, "run_id": run_id, "id": cursor(seq), "seq": seq}
    members = {**data, "timestamp": "2026-01-01T00:00:00Z"}
    return f"event: {kind}\nid: {last_id or cursor(seq)}\ndata: {json.dumps(members)}\n\n".encode()


def follow(*outcomes: Outcome, after: str | None = None, **options: Any) -> Play:
    play = Play(**options)
    play.follow(play.handle.stream(after=after), outcomes)
    return play


def seqs(play: Play) -> list[int]:
    return [event.seq for event in play.delivered]


def resumed(play: Play) -> list[str | None]:
    return [ask.headers.get("Last-Event-ID") for ask in play.asks]


def test_a_stream_ends_with_its_end() -> None:
    """The message end, which control=1 brings."""
    play = follow(HEAD, b"retry: 20\n" + message(1) + message(2), END)
    assert seqs(play) == [1, 2]
    assert play.asks[0].query == (("control", "1"),)
    assert resumed(play) == [None]


@pytest.mark.parametrize("broken", [b"", GONE])
def test_a_broken_stream_resumes_after_the_last_whole_message(broken: Outcome) -> None:
    """Half a message is dropped."""
    half = message(3)[:-10]
    play = follow(
        *(HEAD, b"retry: 20\n" + message(1) + message(2) + half, broken),
        *(HEAD, message(3) + END),
    )
    assert seqs(play) == [1, 2, 3]
    assert resumed(play) == [None, cursor(2)]
    assert play.waits == [0.02]
    assert play.closed == 2


def test_nothing_more_is_an_end() -> None:
    """204 ends a stream."""
    assert seqs(follow(HEAD, message(1), GONE, answer(204))) == [1]
    assert seqs(follow(answer(204), after=cursor(9))) == []


def test_the_servers_wait_holds_until_it_sends_another() -> None:
    """The retry time of the stream is used for each reconnect."""
    play = follow(
        *(HEAD, b"retry: 300\n\n", b"", HEAD, b"", HEAD, b"retry: 7\n", b"", HEAD, END),
    )
    assert play.waits == [0.3, 0.3, 0.007]


def test_the_default_wait_is_a_second_or_less_patience() -> None:
    """Without a ``retry:`` field the wait is a second, or ``retry_seconds`` if that is less."""
    play = follow(HEAD, b"", HEAD, b"retry: 999999999\n", b"", HEAD, END, retry_seconds=12)
    assert play.waits == [1.0, 12]


@pytest.mark.parametrize(
    "trouble",
    [
        *(GONE, NEVER_SENT, answer(500), answer(502), answer(503), answer(504), answer(429)),
        *(problem("shutting-down", 503), problem("internal", 500), problem("unavailable", 503)),
    ],
)
def test_every_trouble_of_the_server_is_outlived(trouble: Any) -> None:
    """The client reconnects after waits that grow."""
    play = follow(HEAD, b"retry: 0\n" + message(1), b"", trouble, trouble, HEAD, message(2) + END)
    assert seqs(play) == [1, 2]
    assert resumed(play)[1:] == [cursor(1)] * 3
    assert play.waits == [0.0, 0.05, 0.1]


def test_each_connection_begins_the_patience_anew() -> None:
    """Without a connection the stream fails after ``retry_seconds``."""
    busy = answer(503, retry_after="20")
    play = follow(busy, HEAD, b"", busy, HEAD, END, retry_seconds=30)
    assert play.waits == [20.0, 1.0, 20.0]
    with pytest.raises(errors.StoreUnavailableError):
        follow(NEVER_SENT, NEVER_SENT, retry_seconds=0.05)
    with pytest.raises(HTTPError):
        follow(HEAD, b"", busy, busy, retry_seconds=30)


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (problem("run-not-found", 404), errors.RunNotFoundError),
        (problem("bad-cursor", 400), errors.InvalidCursorError),
        (problem("cursor-gap", 410, resume_cursor=cursor(5)), errors.CursorGapError),
        (problem("forbidden", 403), HTTPError),
        (answer(200, {}, content_type="application/json"), UnreadableAnswerError),
        (answer(200), UnreadableAnswerError),
        (answer(301), HTTPError),
    ],
)
def test_what_no_reconnect_changes_is_raised(refusal: Any, kind: type[BaseException]) -> None:
    """A missing run, a bad cursor, an unreadable answer."""
    with pytest.raises(kind):
        follow(refusal)


def test_a_gap_and_a_reset_are_raised_with_the_way_on() -> None:
    """The errors have the resume_cursor of the message."""
    members = json.dumps({"resume_cursor": cursor(5)}).encode()
    with pytest.raises(errors.CursorGapError) as gap:
        follow(HEAD, b"event: gap\ndata: " + members + b"\n\n", after=cursor(1))
    assert gap.value.resume_cursor == cursor(5)
    with pytest.raises(errors.CursorResetError) as reset:
        follow(HEAD, b'event: reset\nid\ndata: {"resume_cursor":null}\n\n', after=cursor(1))
    assert reset.value.resume_cursor is None


def test_a_repeated_event_is_dropped() -> None:
    """The client compares the seq."""
    play = follow(
        HEAD, message(1) + message(2), b"", HEAD, message(1) + message(2) + message(3) + END
    )
    assert seqs(play) == [1, 2, 3]


def test_messages_of_newer_servers_are_skipped_and_counted() -> None:
    """A message of an unknown type is skipped, and its id still moves the cursor."""
    play = follow(HEAD, message(1) + message(2, kind="from_the_future"), b"", HEAD, END)
    assert seqs(play) == [1]
    assert resumed(play)[1] == cursor(2)


@pytest.mark.parametrize(
    "hostile",
    [
        *(b"data: {}\n\n", b"data: no json\n\n", b"data: 7\n\n", b"data: \xff\n\n"),
        *(b"data: " + b"[" * 100_000 + b"\n\n", b"event: gap\ndata: 7\n\n"),
        b'data: {"type":"log","run_id":"r-1","id":"no cursor"}\n\n',
        b'data: {"type":"log","run_id":7,"id":"0a1b2c3d-1-1"}\n\n',
        b"data: " + b"x" * 2_000_000,
    ],
)
def test_hostile_messages_are_an_error_and_no_crash(hostile: bytes) -> None:
    """Each raises UnreadableAnswerError."""
    with pytest.raises(UnreadableAnswerError):
        follow(HEAD, hostile, max_response_bytes=1_000_000)


def test_many_runs_end_with_the_last_and_resume_by_message_id() -> None:
    """The cursor of several runs is the id of the message."""

    def end(run_id: str) -> bytes:
        return f'event: end\nid: x\ndata: {{"run_id":"{run_id}","state":"failed"}}\n\n'.encode()

    play = Play()
    values = play.client.stream_many(["a", "b", "a"])
    first = message(1, "a", "runs.1.-") + message(1, "b", "runs.1.1") + end("a")
    play.follow(values, [HEAD, first, GONE, HEAD, message(2, "b", "runs.end.2") + end("b")])
    assert [(event.run_id, event.id) for event in play.delivered] == [
        *(("a", "runs.1.-"), ("b", "runs.1.1"), ("b", "runs.end.2")),
    ]
    assert resumed(play) == [None, "x"]
    assert play.asks[0].query == (("run", "a"), ("run", "b"), ("control", "1"))


def test_no_runs_are_no_stream() -> None:
    """An empty list raises InvalidInputError."""
    play = Play()
    with pytest.raises(errors.InvalidInputError, match="at least one run"):
        play.follow(play.client.stream_many([]), [])


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 2_000), st.sampled_from(["end", "cut", "503"])), max_size=12),
    st.integers(1, 50),
)
def test_however_a_stream_is_cut_each_event_comes_once(
    count: int, cuts: list[tuple[int, str]], size: int
) -> None:
    """A server that answers from where it is asked, cut after so many bytes."""
    left = list(cuts)
    play = Play()
    connection: list[Outcome] = []

    def open_stream() -> Answer:
        if left and left[0][1] == "503":
            left.pop(0)
            return answer(503)
        after = play.asks[-1].headers.get("Last-Event-ID")
        seen = 0 if after is None else int(after.rpartition("-")[2])
        whole = b"".join(message(seq) for seq in range(seen + 1, count + 1)) + END
        how = "end"
        if left:
            room, how = left.pop(0)
            whole = whole[:room]
        chunks: list[Outcome] = [whole[at : at + size] for at in range(0, len(whole), size)]
        connection[:] = [*chunks, GONE if how == "cut" else b""]
        return HEAD

    def outcomes() -> Any:
        opened = 0
        while True:
            if len(play.asks) > opened:
                opened = len(play.asks)
                yield open_stream()
            else:
                yield connection.pop(0)

    play.drive(play.handle.stream(), outcomes())
    assert seqs(play) == list(range(1, count + 1))
