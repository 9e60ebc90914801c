"""The error texts of runs that end without a handler; the Lua scripts get them from here."""

from __future__ import annotations

DEADLINE_TEXT = "the run did not end before its deadline"
NEGLECTED_TEXT = "it got no write for {seconds} seconds (live_ttl_seconds)"
GIVEN_UP_TEXTS = {
    "one": "given up after 1 attempt",
    "some": "given up after {attempts} attempts",
    "one_lost": "given up after 1 attempt: its lease ran out",
    "all_lost": "given up after {attempts} attempts: the lease of each ran out",
    "some_lost": "given up after {attempts} attempts: the lease of {lost} ran out",
}
"""By how many attempts there were, and of how many the lease ran out."""


def given_up(attempts: int, lost: int) -> str:
    """The error of a run that has used all its attempts.

    Args:
        attempts: how many executions began.
        lost: how many of them neither failed nor were excused: their leases ran out.
    """
    name = "one" if attempts == 1 else "some"
    if lost > 0:
        name = f"{'all' if lost == attempts > 1 else name}_lost"
    return GIVEN_UP_TEXTS[name].format(attempts=attempts, lost=lost)
