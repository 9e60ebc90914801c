"""Fixtures of all tests: a real server, a key space of one's own, and its audit."""

from __future__ import annotations

import functools
import gc
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from redis import Redis

from murmur_streams import Fleet
from murmur_streams.server import make_app
from murmur_streams.server.openapi import DocumentedApp
from tests.key_audit import audit_keys, left_by_hand
from tests.running_server import running_server
from tests.servers import Space

settings.register_profile(
    "dev", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("matrix", settings.get_profile("dev"), max_examples=200)
settings.register_profile("full", settings.get_profile("dev"), max_examples=2_000)
# `make check` chooses the full number by --hypothesis-profile=full.
settings.load_profile("dev")


def pytest_configure() -> None:
    """Let every program that a test starts react to SIGINT.

    A shell's background job (``make check &``, ``nohup``) ignores it, and a process starts with the
    signals ignored that its parent ignores: a test would wait in vain for the end of its program.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest: one that begins last leaves a processor idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Leave the tests themselves out of each later ``gc.collect()``, 0.2 s with them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_openapi_document() -> Iterator[None]:
    """Make the OpenAPI document once for all apps: it takes 0.1 s and depends on the routes alone.

    An app makes it for its first request, and most tests of the server have an app of their own.
    """
    make = DocumentedApp.openapi

    @functools.cache
    def document() -> dict[str, Any]:
        app = make_app(Fleet("memory:"))
        assert isinstance(app, DocumentedApp)
        return make(app)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DocumentedApp, "openapi", lambda app: document())
        yield


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
