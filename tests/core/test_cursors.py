"""A cursor proves itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmur_streams.core.model.entries import Cursor
from murmur_streams.core.model.errors import CursorGapError, CursorResetError, InvalidCursorError

HERE = Cursor("0badcafe", 1_000, 5)


@settings(max_examples=200)
@given(st.integers(0, 16**8 - 1), st.integers(0, 10**15 - 1), st.integers(0, 10**15 - 1))
def test_a_cursor_comes_back_from_its_text(epoch: int, ms: int, seq: int) -> None:
    """Parsing the text of a cursor gives an equal cursor."""
    cursor = Cursor(f"{epoch:08x}", ms, seq)
    assert Cursor.parse(str(cursor)) == cursor


@settings(max_examples=200)
@given(st.text() | st.binary() | st.integers() | st.none())
def test_what_is_no_cursor_is_refused(value: object) -> None:
    """Any text or value that is not a cursor raises InvalidCursorError."""
    with pytest.raises(InvalidCursorError):
        Cursor.parse(value)


def test_the_refusal_is_one_short_line() -> None:
    """The error of a long hostile text has neither newlines nor control characters."""
    with pytest.raises(InvalidCursorError) as caught:
        Cursor.parse("\n\x1b[31m" * 10_000)
    text = str(caught.value)
    assert (len(text) < 200, "\n" in text, "\x1b" in text) == (True, False, False)


def test_a_cursor_at_an_entry_that_is_there_goes_on() -> None:
    """The journal still has the entry: nothing is raised."""
    HERE.check(epoch="0badcafe", version=9, found=True, oldest=None)


@pytest.mark.parametrize(
    ("epoch", "version", "oldest"),
    [
        ("another0", 9, None),
        ("0badcafe", 4, None),
        ("0badcafe", 9, None),
        ("0badcafe", 9, Cursor("0badcafe", 900, 2)),
    ],
    ids=["another life", "beyond the end", "an emptied journal", "another entry"],
)
def test_a_cursor_that_does_not_fit_is_reset(
    epoch: str, version: int, oldest: Cursor | None
) -> None:
    """Another epoch, a seq beyond the end or a replaced entry is a reset without a way on."""
    with pytest.raises(CursorResetError) as caught:
        HERE.check(epoch=epoch, version=version, found=False, oldest=oldest)
    assert caught.value.resume_cursor is None


def test_a_cursor_at_a_trimmed_entry_has_a_gap() -> None:
    """The error carries the cursor just before the oldest entry."""
    oldest = Cursor("0badcafe", 2_000, 7)
    with pytest.raises(CursorGapError, match="entries 6 to 7 ") as caught:
        HERE.check(epoch="0badcafe", version=9, found=False, oldest=oldest)
    assert caught.value.resume_cursor == str(oldest)
