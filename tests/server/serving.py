"""Helpers for tests of the HTTP server: problems, callers, and a check for unchanged keys."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from murmur_streams.server.auth import Principal, Scope
from murmur_streams.wire.problems import UNAUTHORIZED, ProblemError
from tests.servers import Space

MEMBERS = {"type", "title", "status", "detail", "request_id", "error", "message", "agent"}


def check_problem(response: httpx.Response, status: int, slug: str | None = None) -> dict[str, Any]:
    """The response is this problem, whole and with its id; its document."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document.keys() >= MEMBERS
    assert document["status"] == status
    assert document["request_id"] == response.headers["X-Request-Id"]
    assert document["message"] == document["detail"]
    if slug is not None:
        assert document["type"] == f"urn:murmur-streams:problem:{slug}"
    return document


def client_of(app: Any, **options: Any) -> httpx.AsyncClient:
    """A client of an app, without a network between them; a 500 is an answer like any other."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://pod", **options)


@contextmanager
def unchanged(space: Space) -> Generator[None]:
    """The block must not change anything on the server.

    Except for the records of calls: a refused call is recorded, too.
    """
    before = space.dump_without_records()
    yield
    assert space.dump_without_records() == before


@dataclass
class Callers:
    """An authenticator of callers by name: ``Authorization: Bearer NAME``."""

    known: dict[str, Principal] = field(default_factory=dict[str, Principal])

    def add(self, name: str, scopes: Sequence[Scope], tenant: str | None = None) -> dict[str, str]:
        """Make a caller known; the headers it sends."""
        self.known[name] = Principal(name, frozenset(scopes), tenant)
        return {"Authorization": f"Bearer {name}"}

    async def __call__(self, headers: list[tuple[bytes, bytes]]) -> Principal:
        given = dict(headers).get(b"authorization", b"").decode().removeprefix("Bearer ")
        if given not in self.known:
            raise ProblemError(UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
        return self.known[given]


@dataclass
class Exchange:
    """One request that is sent by hand, message by message, and what came back."""

    app: FastAPI
    scope: dict[str, Any]
    received: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue[dict[str, Any]])
    sent: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    async def run(self) -> None:
        """Let the app serve it."""

        async def send(message: Any) -> None:
            self.sent.append(message)

        await self.app(self.scope, self.received.get, send)

    def body(self, content: bytes, *, more: bool) -> None:
        """Send a part of the body."""
        self.received.put_nowait({"type": "http.request", "body": content, "more_body": more})

    def hang_up(self) -> None:
        """Be gone."""
        self.received.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        """Of the answer."""
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> httpx.Headers:
        """Of the answer."""
        return httpx.Headers(self.sent[0]["headers"])

    @property
    def content(self) -> bytes:
        """Of the answer."""
        return b"".join(message.get("body", b"") for message in self.sent)


def exchange(
    app: FastAPI, method: str, path: str, headers: Sequence[tuple[str, str]] = ()
) -> Exchange:
    """A request to be sent by hand."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1", "replace"),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in (("host", "pod"), *headers)
        ],
        "client": ("127.0.0.1", 1),
        "server": ("pod", 80),
    }
    return Exchange(app, scope)


class Gate:
    """An agent waits here before it ends."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Event()


def task(given: Any = 1, target: str = "fine", **more: Any) -> dict[str, Any]:
    """A body of POST /submit."""
    return {"target": target, "task": {"input": given}, **more}


async def submitted(client: httpx.AsyncClient, *args: Any, **more: Any) -> str:
    """Submit a run; its id."""
    response = await client.post("/submit", json=task(*args, **more))
    assert response.status_code == 200, response.text
    return str(response.json()["run_id"])
