"""A plugin for ``tests.matrix``: of its tests, only those that another server can break."""

from __future__ import annotations

import pytest

OF_A_SERVER = frozenset({"running", "spare", "server"})
"""The fixtures by which a test uses the chosen server, or one of its own."""
LOADS = frozenset(
    {
        "test_1000_reconnecting_subscribers_share_their_reads",
        "test_5000_followed_runs_lose_no_event",
        "test_a_thousand_idle_subscriptions_cost_next_to_nothing",
        "test_each_of_5000_unchanged_runs_is_listed_once",
    }
)
"""Tests that load the client. They take a quarter of the time, and `make test FULL=1` runs them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not depend on the server."""
    chosen = [item for item in items if _depends_on_the_server(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def _depends_on_the_server(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    return not OF_A_SERVER.isdisjoint(item.fixturenames) and item.originalname not in LOADS
