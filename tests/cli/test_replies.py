"""Replies as redis-cli prints them."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from murmur_streams.cli.data.redis import Reply, for_json, for_pipe, for_terminal

ENTRIES: Reply = [[b"1-1", [b"type", b"a"]], [b"1-2", [b"type", b"b"]]]


@pytest.mark.parametrize(
    ("reply", "command", "text"),
    [
        pytest.param(b"OK", ["SET", "a", "b"], "OK", id="status"),
        pytest.param(b"OK", ["GET", "a"], '"OK"', id="value that looks like a status"),
        pytest.param(b"hash", ["TYPE", "a"], "hash", id="type"),
        pytest.param(7, ["XLEN", "a"], "(integer) 7", id="integer"),
        pytest.param(None, ["GET", "a"], "(nil)", id="nil"),
        pytest.param([], ["KEYS", "*"], "(empty array)", id="empty"),
        pytest.param(b'a"\\\n\x00\xff', ["GET", "a"], '"a\\"\\\\\\n\\x00\\xff"', id="bytes"),
        pytest.param(b"# Server\r\na:1\r\n", ["info"], "# Server\r\na:1", id="text"),
        pytest.param(ResponseError("ERR no"), ["X"], "(error) ERR no", id="error"),
        pytest.param([b"a", None, 1], ["MGET"], '1) "a"\n2) (nil)\n3) (integer) 1', id="list"),
    ],
)
def test_a_reply_on_a_terminal(reply: Reply, command: list[str], text: str) -> None:
    """For each type of reply, as redis-cli shows it."""
    assert for_terminal(reply, command) == text


def test_nested_lists_are_indented() -> None:
    """The layout is that of redis-cli."""
    assert for_terminal(ENTRIES, ["XRANGE"]).split("\n") == [
        '1) 1) "1-1"',
        '   2) 1) "type"',
        '      2) "a"',
        '2) 1) "1-2"',
        '   2) 1) "type"',
        '      2) "b"',
    ]


def test_numbers_of_long_lists_are_aligned() -> None:
    """The layout is that of redis-cli."""
    lines = for_terminal([b"x"] * 10, ["KEYS"]).split("\n")
    assert (lines[0], lines[9]) == (' 1) "x"', '10) "x"')


def test_a_pipe_gets_bytes_untouched_one_a_line() -> None:
    """Other programs can read the output."""
    assert for_pipe([b"a\xff", [1, None]]) == b"a\xff\n1\n"


def test_json_keeps_the_shape() -> None:
    """With bytes that are not UTF-8 escaped."""
    assert for_json([b"a", [1, None], b"\xff"]) == '["a", [1, null], "\\\\xff"]'
