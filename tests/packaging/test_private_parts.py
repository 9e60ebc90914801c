"""Undocumented parts of libraries that the package uses: a release without them fails here."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from importlib.metadata import version

import pytest
import uvicorn
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from uvicorn.protocols.http import httptools_impl
from uvicorn.server import ServerState

PROTOCOL_METHODS = (
    *("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
    *("on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body"),
    *("on_message_complete", "on_response_complete", "send_400_response"),
    "timeout_keep_alive_handler",
)
PROTOCOL_FIELDS = ("cycle", "flow", "headers", "loop", "pipeline", "scope", "transport", "url")
CYCLE_FIELDS = {
    *("disconnected", "keep_alive", "message_event", "response_complete", "response_started"),
    "transport",
}


async def _app(scope: object, receive: object, send: object) -> None:
    """An application that is never called."""


def _protocol() -> httptools_impl.HttpToolsProtocol:
    config = uvicorn.Config(_app, lifespan="off", log_config=None)
    config.load()
    return httptools_impl.HttpToolsProtocol(config, ServerState(), {})


def _missing_of_protocol() -> list[str]:
    protocol = _protocol()
    # Those of a request are set when it begins.
    begin = set(type(protocol).on_message_begin.__code__.co_names)
    found = {*dir(protocol), *begin}
    return [name for name in (*PROTOCOL_METHODS, *PROTOCOL_FIELDS) if name not in found]


def _missing_of_server() -> list[str]:
    server = uvicorn.Server(uvicorn.Config(_app))
    names = ("capture_signals", "startup", "should_exit", "force_exit", "server_state")
    state = ("connections", "tasks")
    missing = [name for name in names if not hasattr(server, name)]
    return missing + [name for name in state if not hasattr(server.server_state, name)]


def _missing_of_cycle() -> list[str]:
    names = httptools_impl.RequestResponseCycle.__init__.__code__.co_names
    missing = CYCLE_FIELDS - set(names)
    return [*sorted(missing), *([] if 200 in httptools_impl.STATUS_LINE else ["STATUS_LINE"])]


def _missing_of_connections() -> list[str]:
    missing: list[str] = []
    for kind in (Connection, SSLConnection, UnixDomainSocketConnection):
        made = kind()
        missing += [f"{kind.__name__}.{name}" for name in ("_writer",) if not hasattr(made, name)]
    for kind in (Connection, SSLConnection):
        if set(kind()._connection_arguments()) - {"ssl"} != {"host", "port"}:
            missing.append(f"{kind.__name__}._connection_arguments")
        if kind._connect is not Connection._connect:
            missing.append(f"{kind.__name__}._connect")
    return missing


def _missing_of_asyncio() -> list[str]:
    async def task() -> bool:
        return hasattr(asyncio.current_task(), "_log_destroy_pending")

    missing = [] if asyncio.run(task()) else ["Task._log_destroy_pending"]
    return missing + ([] if hasattr(asyncio, "_unregister_task") else ["_unregister_task"])


PARTS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "uvicorn's protocol": ("server/protocol.py", _missing_of_protocol),
    "uvicorn's request": ("server/protocol.py", _missing_of_cycle),
    "uvicorn's server": ("server/serving.py", _missing_of_server),
    "redis's connections": (
        "stores/redis/connection/lane.py and transport.py",
        _missing_of_connections,
    ),
}


@pytest.mark.parametrize("part", PARTS)
async def test_a_private_part_is_where_it_was(part: str) -> None:
    """Names what a new release has taken away, and the file that must do without."""
    user, missing = PARTS[part]
    distribution = part.partition("'")[0]
    gone = missing()
    assert not gone, f"{distribution} {version(distribution)} has no {gone}; {user} uses it"


def test_asyncio_has_its_private_parts() -> None:
    """The same for Python's own, which fleet/execution/tasks.py and fleet/background.py use."""
    gone, python = _missing_of_asyncio(), platform.python_version()
    users = "fleet/execution/tasks.py and fleet/background.py"
    assert not gone, f"asyncio of Python {python} has no {gone}; {users} use it"
