"""The encoder against a reader of the standard's: it reads exactly what was encoded."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.wire.sse import HEARTBEAT, SseBlock
from tests.server.event_source import Event, EventSource

HOSTILE = st.sampled_from(
    [
        *("\n", "\r", "\r\n", "\n\n", ":", " ", "\0", "\ufeff", "\u2028", "\u0085", "\v", "\f"),
        *("data: x", "\n\nevent: done", "id: 0", "retry: 1", "event", "\x1c", "😀", "ä"),
    ]
)
TEXTS = st.lists(st.one_of(st.text(max_size=8), HOSTILE), max_size=8).map("".join)
NAMES = TEXTS.map(lambda text: re.sub("[\r\n\0]", "", text)).filter(bool)
IDS = st.one_of(st.just(""), NAMES)
MESSAGES = st.builds(
    SseBlock,
    event=st.none() | NAMES,
    data=TEXTS,
    id=st.none() | IDS,
    retry=st.none() | st.integers(0, 10**9),
    comment=st.none() | TEXTS,
)


def as_read(text: str) -> str:
    return re.sub("\r\n?", "\n", text)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut_at % (len(data) + 1) for cut_at in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(ends)]


@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(0, 10_000), max_size=20))
def test_encoded_messages_are_read_wherever_bytes_are_cut(
    messages: list[SseBlock], cuts: list[int]
) -> None:
    """A reader of the standard gets the same messages."""
    source, expected, last_id = EventSource(), list[Event](), ""
    for message in messages:
        last_id = last_id if message.id is None else message.id
        expected.append(Event(message.event or "message", as_read(message.data or ""), last_id))
    stream = b"".join(message.encode() for message in messages)
    assert [each for part in cut(stream, cuts) for each in source.feed(part)] == expected
    assert source.last_event_id == last_id
    retries = [message.retry for message in messages if message.retry is not None]
    assert source.reconnection_ms == (retries[-1] if retries else None)


@given(MESSAGES)
def test_a_message_cut_at_every_byte_is_read_the_same(message: SseBlock) -> None:
    """Reading single bytes gives the same as one piece."""
    whole, bytewise, stream = EventSource(), EventSource(), message.encode()
    assert [e for byte in stream for e in bytewise.feed(bytes([byte]))] == whole.feed(stream)


@given(TEXTS, st.integers(0, 10**9))
def test_without_data_nothing_is_dispatched(comment: str, retry: int) -> None:
    """Comments and retry times alone do not make an event."""
    source = EventSource("before")
    stream = SseBlock(comment=comment, retry=retry).encode() + HEARTBEAT
    assert source.feed(stream + SseBlock(data="x").encode()) == [Event("message", "x", "before")]
    assert source.reconnection_ms == retry


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\r\nb", "\0", "\n"])
@pytest.mark.parametrize("field", ["event", "id"])
def test_a_name_or_id_that_would_break_its_line_is_refused(field: str, bad: str) -> None:
    """Newlines and zero bytes raise ValueError."""
    with pytest.raises(ValueError, match=f"the {field} "):
        SseBlock(**{"data": "x", field: bad}).encode()  # pyright: ignore[reportArgumentType]


def test_an_empty_name_is_refused_since_it_would_not_be_read() -> None:
    """Readers take an empty name for a missing one."""
    with pytest.raises(ValueError, match="the event ''"):
        SseBlock(event="", data="x").encode()


@pytest.mark.parametrize("bad", [-1, True])
def test_a_retry_that_is_not_all_digits_is_refused(bad: int) -> None:
    """Negative numbers and booleans raise ValueError."""
    with pytest.raises(ValueError, match="retry is"):
        SseBlock(retry=bad).encode()


def test_text_that_is_not_unicode_is_refused() -> None:
    """A lone surrogate raises ValueError."""
    with pytest.raises(ValueError, match="surrogates"):
        SseBlock(data="\ud800").encode()


def test_the_line_separators_of_other_standards_are_text() -> None:
    """Only CR and LF end a line."""
    assert SseBlock(data="a\u2028b\u2029c\u0085d\x0be").encode() == (
        "data: a\u2028b\u2029c\u0085d\x0be\n\n".encode()
    )


def test_a_message_has_its_fields_in_this_order() -> None:
    """The order is comment, retry, event, id, data."""
    message = SseBlock(event="log", data="a\nb", id="7", retry=5, comment="x\ny")
    assert message.encode() == (b": x\n: y\nretry: 5\nevent: log\nid: 7\ndata: a\ndata: b\n\n")
