"""Nothing but the grammar reaches a key."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmur_streams.core.model.errors import (
    InvalidInputError,
    InvalidRunIdError,
    InvalidTargetError,
)
from murmur_streams.core.model.limits import (
    check_run_id,
    check_target,
    check_tenant,
    new_epoch,
    new_run_id,
)

FIRST = string.ascii_letters + string.digits
HOSTILE: list[object] = [
    "",
    " a",
    "a ",
    "a\n",
    "\na",
    "a\x00b",
    "a\r\nSET x 1",
    "{a}",
    "a}b",
    "a*",
    "a?",
    "[a]",
    "../a",
    "a/b",
    "a\\b",
    "'a'",
    "é",
    "а",  # noqa: RUF001  # a Cyrillic letter is the point
    "\u0661",
    "a\u200b",
    "\udc80",
    ".",
    "-",
    "_",
    ":",
    "a" * 129,
    None,
    0,
    b"a",
    ["a"],
]


@settings(max_examples=200)
@given(st.sampled_from(FIRST), st.text(FIRST + "._:-", max_size=127))
def test_every_id_of_the_grammar_is_taken(first: str, rest: str) -> None:
    """Any text of the grammar is accepted as a run id."""
    assert check_run_id(first + rest) == first + rest


@settings(max_examples=200)
@given(st.sampled_from(FIRST), st.text(FIRST + "._-", max_size=127))
def test_every_target_of_the_grammar_is_taken(first: str, rest: str) -> None:
    """Any text of the grammar is accepted as a target."""
    assert check_target(first + rest) == first + rest


@settings(max_examples=200)
@given(st.sampled_from(FIRST), st.text(FIRST + "._-", max_size=63))
def test_every_tenant_of_the_grammar_is_taken(first: str, rest: str) -> None:
    """Any text of the grammar is accepted as a tenant."""
    assert check_tenant(first + rest) == first + rest


def test_no_tenant_is_taken_too() -> None:
    """None is accepted: a run need not have a tenant."""
    assert check_tenant(None) is None


@pytest.mark.parametrize(
    "value",
    [*(each for each in HOSTILE if each is not None), "a:b", "a" * 65],
    ids=lambda value: ascii(value)[:20],
)
def test_what_is_outside_the_grammar_is_no_tenant(value: object) -> None:
    """Any other value raises InvalidInputError with the rule."""
    with pytest.raises(InvalidInputError, match="1 to 64 characters"):
        check_tenant(value)


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:20])
def test_what_is_outside_the_grammar_is_no_id(value: object) -> None:
    """Any other value raises InvalidRunIdError with the rule."""
    with pytest.raises(InvalidRunIdError, match="1 to 128 characters"):
        check_run_id(value)


@pytest.mark.parametrize("value", [*HOSTILE, "a:b"], ids=lambda value: ascii(value)[:20])
def test_what_is_outside_the_grammar_is_no_target(value: object) -> None:
    """Any other value raises InvalidTargetError with the rule."""
    with pytest.raises(InvalidTargetError, match="1 to 128 characters"):
        check_target(value)


def test_a_refusal_cannot_forge_a_line_of_a_log() -> None:
    """The error text is printable and short, even for an id with newlines and escapes."""
    with pytest.raises(InvalidRunIdError) as caught:
        check_run_id("x\n2026-01-01 ERROR forged\x1b[2J" * 100)
    text = str(caught.value)
    assert (text.isprintable(), len(text) < 300) == (True, True)


def test_a_new_id_is_of_the_grammar() -> None:
    """The ids that we generate are valid run ids."""
    assert check_run_id(new_run_id())


def test_new_ids_and_epochs_differ() -> None:
    """A thousand new ids and a hundred new epochs are all different."""
    assert len({new_run_id() for _ in range(1000)}) == 1000
    assert len({new_epoch() for _ in range(100)}) == 100
