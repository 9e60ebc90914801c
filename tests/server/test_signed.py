"""A ticket is what was signed, and for as long as it was."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.server.auth import (
    Principal,
    Scope,
    read_ticket,
    seconds_left,
    sign_ticket,
)

SECRET = b"s" * 32
HOLDER = Principal("web", frozenset({Scope.READ}), "acme", "r-1", 4_000_000_000.0)
TICKET = sign_ticket(SECRET, HOLDER, 3_600)


def test_who_signed_in_is_who_comes() -> None:
    """Reading a ticket gives its holder."""
    assert read_ticket(SECRET, sign_ticket(SECRET, HOLDER, 60)) == HOLDER


def test_a_ticket_only_reads() -> None:
    """An admin's ticket has no other scope."""
    admin = Principal("ops", frozenset(Scope), None, "r-1")
    found = read_ticket(SECRET, sign_ticket(SECRET, admin, 60))
    assert found is not None
    assert found.scopes == {Scope.READ}


def test_another_secret_signs_other_tickets() -> None:
    """A ticket of another secret is not accepted."""
    assert read_ticket(b"t" * 32, sign_ticket(SECRET, HOLDER, 60)) is None


def test_a_ticket_whose_time_is_over_is_none() -> None:
    """It is not accepted."""
    assert read_ticket(SECRET, sign_ticket(SECRET, HOLDER, 0)) is None


@given(st.data())
def test_no_other_text_is_a_ticket(data: st.DataObject) -> None:
    """One changed character of body or signature spoils it."""
    body, _, signature = TICKET.partition(".")
    at = data.draw(st.integers(0, len(body) - 1))
    char = data.draw(st.characters().filter(lambda char: char != body[at]))
    assert read_ticket(SECRET, f"{body[:at]}{char}{body[at + 1 :]}.{signature}") is None
    other = data.draw(st.text(max_size=60).filter(lambda text: text != signature))
    assert read_ticket(SECRET, f"{body}.{other}") is None


@pytest.mark.parametrize("text", ["", ".", "a", "a.b", "=.=", "é.é", "a.b.c", "x" * 5_000])
def test_what_is_no_ticket_is_none(text: str) -> None:
    """Any malformed text reads as None."""
    assert read_ticket(SECRET, text) is None


def test_the_longest_names_fit() -> None:
    """The longest name, tenant and run id."""
    holder = Principal("n" * 64, frozenset({Scope.READ}), "t" * 64, "r" * 128, 4e9)
    assert read_ticket(SECRET, sign_ticket(SECRET, holder, 60)) == holder


def test_a_ticket_is_no_longer_good_than_what_it_was_given_for() -> None:
    """Its seconds end with the token."""
    assert seconds_left(Principal("a", frozenset()), 60) == 60
    assert seconds_left(Principal("a", frozenset(), expires_at=time.time() + 3_000), 60) == 60
    assert 0 < seconds_left(Principal("a", frozenset(), expires_at=time.time() + 30), 60) <= 30
    assert seconds_left(Principal("a", frozenset(), expires_at=time.time() - 1), 60) == 0
