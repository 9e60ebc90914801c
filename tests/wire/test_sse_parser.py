"""The reader of event streams, against the steps of the standard as a second, simpler reader."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.wire.sse import SseMessage, SseParser, SseTooLargeError

ROOM = 1_000_000


def read(*chunks: bytes, last_id: str = "") -> tuple[list[SseMessage], SseParser]:
    parser = SseParser(ROOM, last_id)
    return [message for chunk in chunks for message in parser.feed(chunk)], parser


def by_the_standard(stream: bytes) -> tuple[list[SseMessage], str, int | None]:
    """The whole stream at once, by the standard's steps, in its order."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _ = re.split("\r\n|\n|\r", text)
    data, kind, id_buffer, last_id, retry = "", "", "", "", None
    messages: list[SseMessage] = []
    for line in lines:
        if not line:
            last_id = id_buffer
            if data:
                messages.append(SseMessage(kind or "message", data.removesuffix("\n"), last_id))
            data, kind = "", ""
            continue
        if line.startswith(":"):
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            id_buffer = value
        elif name == "retry" and value and all(char in "0123456789" for char in value):
            retry = int(value)
    return messages, last_id, retry


PIECES = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"\n\n", b":", b" ", b"\0", b"\xef\xbb\xbf", b"\xef\xbb", b"\xff"),
        *(b"data", b"data:", b"data: ", b"id", b"id: 7", b"id:a\0b", b"event:", b"retry: 12"),
        *(
            b"retry:x",
            b"\xc3\xa9",
            b"\xc3",
            b"\xe2\x80\xa8",
            b"\xc2\x85",
            b"\x0b",
            b"\x0c",
            b"\x1c",
        ),
        *(b"x", b"Data: y", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80"),
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=6), max_size=40).map(b"".join)


@given(STREAMS, st.lists(st.integers(1, 9), max_size=60))
def test_any_bytes_cut_anywhere_are_read_as_the_standard_says(
    stream: bytes, sizes: list[int]
) -> None:
    """A second, simple reader of the standard gets the same."""
    chunks: list[bytes] = []
    rest = stream
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    messages, parser = read(*chunks, rest)
    assert (messages, parser.last_id, parser.retry_ms) == by_the_standard(stream)


@given(st.lists(st.text().filter(lambda text: "\r" not in text), min_size=1, max_size=5))
def test_what_an_encoder_splits_into_lines_comes_back_whole(texts: list[str]) -> None:
    """Each newline of the data is restored."""
    lines = [line for text in texts for line in [*text.split("\n")]]
    stream = "".join(f"data: {line}\n" for line in lines) + "\n"
    messages, _ = read(stream.encode("utf-8", "surrogatepass"))
    if not any("\ud800" <= char <= "\udfff" for char in "".join(texts)):
        assert [message.data for message in messages] == ["\n".join(lines)]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_each_line_end_ends_a_line(end: str) -> None:
    """LF, CR and CRLF are equal."""
    stream = end.join(["event: log", "id: 1", "data: a", "data: b", "", ""])
    assert read(stream.encode())[0] == [SseMessage("log", "a\nb", "1")]


def test_a_cr_dispatches_before_its_lf_has_come() -> None:
    """A message does not wait for the next byte."""
    parser = SseParser(ROOM)
    assert parser.feed(b"data: a\r\r") == [SseMessage("message", "a", "")]
    assert parser.feed(b"\ndata: b\r\n") == []
    assert parser.feed(b"\r") == [SseMessage("message", "b", "")]
    assert parser.feed(b"\n\n") == []


def test_a_byte_order_mark_is_dropped_once_and_at_the_start_only() -> None:
    """It may arrive in pieces."""
    assert read(b"\xef", b"\xbb", b"\xbfdata: a\n\n")[0] == [SseMessage("message", "a", "")]
    assert read(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n")[0] == []
    assert read(b"data: a\n\xef\xbb\xbfdata: b\n\n")[0] == [SseMessage("message", "a", "")]


def test_an_id_with_nul_is_ignored_and_an_empty_one_counts() -> None:
    """The standard says so."""
    messages, parser = read(b"id: 1\ndata\n\nid: 2\0\ndata\n\nid\ndata\n\n", last_id="0")
    assert [message.last_id for message in messages] == ["1", "1", ""]
    assert parser.last_id == ""


def test_an_id_without_data_counts_once_its_block_has_ended() -> None:
    """An unfinished block does not change the last id."""
    assert read(b"id: 1\n\n")[1].last_id == "1"
    assert read(b"id: 1\n\nid: 2\ndata: lost")[1].last_id == "1"


def test_messages_without_id_have_that_of_an_earlier_connection() -> None:
    """The reader is made with the last id."""
    assert read(b"data: a\n\n", last_id="7")[0] == [SseMessage("message", "a", "7")]


def test_one_space_is_dropped_and_no_more() -> None:
    """Further spaces after the colon belong to the data."""
    assert read(b"data:  a \n\n")[0] == [SseMessage("message", " a ", "")]


def test_a_block_without_data_is_dropped_with_its_event_name() -> None:
    """The next block has none."""
    assert read(b"event: x\n\ndata: a\n\n")[0] == [SseMessage("message", "a", "")]


def test_an_unfinished_message_is_dropped() -> None:
    """At the end of the stream."""
    assert read(b"data: a\n\ndata: b\n")[0] == [SseMessage("message", "a", "")]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        *(("12", 12), ("0", 0), ("0012", 12), ("", None), ("-1", None), ("1.5", None)),
        *(("\u0661", None), ("1e3", None), (" 12", None), ("9" * 5_000, 999_999_999)),
    ],
)
def test_a_retry_is_ascii_digits(text: str, known: int | None) -> None:
    """Other texts are ignored."""
    assert read(f"retry: {text}\n".encode())[1].retry_ms == known


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b"data: " + b"x" * 2_000, id="a line without an end"),
        pytest.param(b"data: xxxxxxxx\n" * 200, id="a message without an end"),
        pytest.param(b":" * 2_000, id="a comment without an end"),
        pytest.param(b"data\n" * 2_000, id="empty lines of data"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_never_ends_is_refused(hostile: bytes, size: int) -> None:
    """Lines and messages over the limit raise SseTooLargeError."""
    parser = SseParser(1_000)
    chunks = [hostile[start : start + size] for start in range(0, len(hostile), size)]
    with pytest.raises(SseTooLargeError, match="over 1,000 bytes"):
        _ = [parser.feed(chunk) for chunk in chunks]


def test_many_small_messages_need_no_room() -> None:
    """The limit is for one message."""
    parser = SseParser(1_000)
    assert len(parser.feed(b"data: x\n\n" * 10_000)) == 10_000
