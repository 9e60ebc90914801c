"""Fixtures of all tests: a real server, a key space of one's own, and its audit."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from redis import Redis

from tests.key_audit import audit_keys, left_by_hand
from tests.running_server import running_server
from tests.servers import Space

settings.register_profile(
    "dev", max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("matrix", settings.get_profile("dev"), max_examples=200)
settings.register_profile("full", settings.get_profile("dev"), max_examples=2_000)
# `make test` runs with -n, and always the full number; a plain `pytest` while one works is quick.
# --hypothesis-profile=full or =dev chooses otherwise.
settings.load_profile("full" if "PYTEST_XDIST_WORKER" in os.environ else "dev")


def pytest_collection_finish() -> None:
    """Leave the tests themselves out of each later ``gc.collect()``, 0.2 s with them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Redis]]:
    """The chosen server, one of this worker process: its URL and a client."""
    with running_server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


@pytest.fixture
def space(request: pytest.FixtureRequest, running: tuple[str, Redis]) -> Iterator[Space]:
    """A clean server; at the test's end its keys are audited and removed."""
    url, admin = running
    admin.flushall()
    space = Space(url, admin)
    yield space
    problems = audit_keys(admin, space.prefix, left_by_hand(request))
    admin.flushall()
    assert problems == [], "the key audit"
