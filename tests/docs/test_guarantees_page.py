"""docs/guarantees.md has the faults that tests name, and every fault of it has a test."""

from __future__ import annotations

from tests.chaos.worlds import kinds_of_worlds
from tests.guarantees import PAGE, ROWS, TOPOLOGIES, marks, page, table


def test_the_table_is_made_from_the_tests() -> None:
    """`make guarantees` would change nothing."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, table(kinds_of_worlds())) == text


def test_every_marker_names_a_row_and_a_topology() -> None:
    """A test cannot name a fault that the page does not have."""
    found = [*marks()]
    assert {mark.row for mark in found} <= set(ROWS)
    assert {mark.topology for mark in found} <= set(TOPOLOGIES)


def test_every_row_has_a_test() -> None:
    """Rows of Cluster alone may wait for it."""
    tested = {mark.row for mark in marks()}
    assert {name for name, row in ROWS.items() if row.applies != ("cluster",)} <= tested


def test_every_kind_that_a_row_names_is_in_a_chaos_run() -> None:
    """A kind that was renamed would silently leave the table."""
    kinds = frozenset().union(*kinds_of_worlds().values())
    missing = {
        kind
        for row in ROWS.values()
        if row.applies != ("cluster",)
        for kind in row.chaos
        if not any(each.startswith(kind) for each in kinds)
    }
    assert missing == set()
