"""Stream tickets: one run, one minute, any pod with the secret; good for nothing else."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from murmur_streams import Fleet
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.auth import (
    BearerTokens,
    Principal,
    Scope,
    Token,
    digest,
    read_ticket,
    sign_ticket,
)
from tests.server.serving import check_problem, client_of, unchanged
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

SECRET = b"s" * 32
READ = frozenset({Scope.READ})
ACME, ADMIN, SHORT, WRITER = (
    f"{name}-0123456789abc" for name in ("acme", "admin", "short", "writer")
)


def tokens() -> BearerTokens:
    callers = {
        ACME: Principal("acme", READ, "acme"),
        ADMIN: Principal("admin", frozenset({Scope.ADMIN})),
        SHORT: Principal("short", READ, "acme", expires_at=time.time() + 20),
        WRITER: Principal("writer", frozenset({Scope.SUBMIT, Scope.CANCEL}), "acme"),
    }
    return BearerTokens([Token(digest(token.encode()), who) for token, who in callers.items()])


def asking(fleet: Fleet, **options: Any) -> FastAPI:
    defaults: dict[str, Any] = {
        "authenticator": tokens(),
        "ticket_secret": SECRET,
        "ticket_seconds": 60.0,
    }
    return make_app(fleet, ServerOptions(**defaults | options))


@pytest.fixture
async def caller(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(asking(fleet)) as client:
        yield client


@pytest.fixture
async def run_id(fleet: Fleet) -> str:
    """A run of acme's that has ended, so that its stream does, too."""
    return await ended(fleet, "r-1", "acme")


async def ended(fleet: Fleet, run_id: str, tenant: str | None) -> str:
    handle = await fleet.submit("idle", run_id=run_id, tenant=tenant)
    await handle.cancel()
    return run_id


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def ticket_of(caller: httpx.AsyncClient, run_id: str, token: str = ACME) -> str:
    answer = await caller.post(f"/runs/{run_id}/ticket", headers=bearer(token))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["ticket"])


async def test_a_ticket_opens_the_stream_on_any_pod_with_the_secret(
    fleet: Fleet, caller: httpx.AsyncClient, run_id: str
) -> None:
    """The pods share only the secret."""
    given = await caller.post(f"/runs/{run_id}/ticket", headers=bearer(ACME))
    assert given.json().keys() == {"ticket", "expires_in"}
    assert given.json()["expires_in"] == 60
    assert given.headers["Cache-Control"] == "no-store"
    async with client_of(asking(fleet)) as other_pod:
        for path in (f"/runs/{run_id}/stream", "/stream"):
            query = {"ticket": given.json()["ticket"]}
            query |= {"run": run_id} if path == "/stream" else {}
            answer = await other_pod.get(path, params=query)
            assert answer.status_code == 200, answer.text
            assert "event: run_cancelled" in answer.text


async def test_a_ticket_counts_whatever_else_a_browser_sends(
    caller: httpx.AsyncClient, run_id: str
) -> None:
    """An Authorization header beside it does not matter."""
    ticket = await ticket_of(caller, run_id)
    for header in ("Basic dXNlcjpwYXNz", "Bearer stranger", f"Bearer {ACME}"):
        answer = await caller.get(
            f"/runs/{run_id}/stream", params={"ticket": ticket}, headers={"Authorization": header}
        )
        assert answer.status_code == 200


async def test_an_admins_ticket_is_good_for_the_run_alone(
    fleet: Fleet, caller: httpx.AsyncClient, run_id: str
) -> None:
    """Other runs and the feed answer 401."""
    ticket = await ticket_of(caller, run_id, ADMIN)
    assert (await caller.get(f"/runs/{run_id}/stream?ticket={ticket}")).status_code == 200
    other = await ended(fleet, "r-2", None)
    check_problem(await caller.get(f"/runs/{other}/stream?ticket={ticket}"), 401)
    check_problem(await caller.get(f"/events/stream?ticket={ticket}"), 401)


def wrong_tickets() -> dict[str, str]:
    holder = Principal("acme", READ, "acme", "r-1")
    good = sign_ticket(SECRET, holder, 60)
    return {
        "empty": "",
        "nonsense": "nonsense",
        "a token": ACME,
        "expired": sign_ticket(SECRET, holder, 0),
        "another secret": sign_ticket(b"t" * 32, holder, 60),
        "another run": sign_ticket(SECRET, Principal("acme", READ, "acme", "r-2"), 60),
        "cut": good[:-1],
        "longer": good + "A",
        "a space": good + " ",
        "unsigned": good.partition(".")[0],
        "large": "A" * 5_000,
        "not ascii": "é" + good,
    }


@pytest.mark.parametrize("wrong", wrong_tickets())
async def test_a_wrong_ticket_is_refused(
    caller: httpx.AsyncClient, space: Space, run_id: str, wrong: str
) -> None:
    """The answer is 401, even with a good token beside it."""
    ticket = quote(wrong_tickets()[wrong])
    for path in (f"/runs/{run_id}/stream?", f"/stream?run={run_id}&"):
        with unchanged(space):
            # A good token beside it does not help: the problem says what is wrong.
            answer = await caller.get(f"{path}ticket={ticket}", headers=bearer(ACME))
        check_problem(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_two_tickets_are_none(caller: httpx.AsyncClient, run_id: str) -> None:
    """The answer is 401."""
    ticket = await ticket_of(caller, run_id)
    answer = await caller.get(f"/runs/{run_id}/stream?ticket={ticket}&ticket={ticket}")
    check_problem(answer, 401)


async def test_a_ticket_is_for_no_other_run_of_a_stream_of_many(
    fleet: Fleet, caller: httpx.AsyncClient, run_id: str
) -> None:
    """The answer is 401."""
    ticket = await ticket_of(caller, run_id)
    other = await ended(fleet, "r-2", "acme")
    answer = await caller.get(f"/stream?run={run_id}&run={other}&ticket={ticket}")
    check_problem(answer, 401)
    check_problem(await caller.get(f"/stream?ticket={ticket}"), 401)


async def test_a_ticket_is_good_for_nothing_but_streams(
    caller: httpx.AsyncClient, space: Space, run_id: str
) -> None:
    """Every other route answers 401, and nothing is written."""
    ticket = await ticket_of(caller, run_id)
    paths = ["", "/status", "/result", "/events", "/journal"]
    asked = [("GET", f"/runs/{run_id}{path}") for path in paths]
    asked += [("POST", f"/runs/{run_id}/ticket"), ("POST", f"/runs/{run_id}/cancel")]
    asked += [("DELETE", f"/runs/{run_id}"), ("GET", "/runs"), ("GET", "/agents")]
    with unchanged(space):
        for method, path in asked:
            check_problem(await caller.request(method, path, params={"ticket": ticket}), 401)
            answer = await caller.request(method, path, headers=bearer(ticket))
            check_problem(answer, 401)


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (None, "r-1", 401),
        (WRITER, "r-1", 403),
        (ACME, "missing", 404),
        (ACME, "r-2", 404),
        (ACME, "not%20an%20id", 400),
    ],
    ids=["unknown", "no reader", "no run", "foreign", "no id"],
)
async def test_a_ticket_is_given_for_what_one_may_read(
    fleet: Fleet,
    caller: httpx.AsyncClient,
    space: Space,
    run_id: str,
    token: str | None,
    path: str,
    status: int,
) -> None:
    """Other requests get 401, 403, 404 or 400."""
    await ended(fleet, "r-2", "umbrella")
    with unchanged(space):
        answer = await caller.post(
            f"/runs/{path}/ticket", headers=bearer(token) if token is not None else {}
        )
    check_problem(answer, status)
    assert run_id == "r-1"


async def test_a_ticket_is_no_longer_good_than_its_token(
    caller: httpx.AsyncClient, run_id: str
) -> None:
    """The stream that it opens ends with the token, too."""
    answer = await caller.post(f"/runs/{run_id}/ticket", headers=bearer(SHORT))
    assert answer.json()["expires_in"] < 20
    holder = read_ticket(SECRET, answer.json()["ticket"])
    assert holder is not None
    assert holder.expires_at is not None, "the stream would outlive the token"
    assert holder.expires_at <= time.time() + 20


async def test_without_a_secret_there_are_no_tickets(fleet: Fleet, run_id: str) -> None:
    """The route answers 404."""
    good = sign_ticket(SECRET, Principal("acme", READ, "acme", run_id), 60)
    async with client_of(asking(fleet, ticket_secret=None)) as caller:
        answer = await caller.post(f"/runs/{run_id}/ticket", headers=bearer(ACME))
        check_problem(answer, 404, "not-found")
        check_problem(await caller.get(f"/runs/{run_id}/stream?ticket={good}"), 401)


async def test_a_server_without_tokens_gives_tickets(fleet: Fleet, run_id: str) -> None:
    """Its streams open without one."""
    async with client_of(asking(fleet, authenticator=None)) as caller:
        answer = await caller.post(f"/runs/{run_id}/ticket")
        assert answer.status_code == 200
        assert (await caller.get(f"/runs/{run_id}/stream?ticket=none")).status_code == 200


async def test_a_ticket_is_in_no_log(
    caller: httpx.AsyncClient, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the path of the stream without it."""
    caplog.set_level("DEBUG")
    logged = caplog.handler
    ticket = await ticket_of(caller, run_id)
    await caller.get(f"/runs/{run_id}/stream?ticket={ticket}")
    await caller.get(f"/runs/{run_id}?ticket={ticket}")
    own = [each for each in caplog.records if not each.name.startswith("http")]
    assert [each for each in own if re.search("/stream", each.getMessage())]
    assert ticket not in "".join(logged.format(each) for each in own)


async def test_a_stream_is_not_closed_by_its_tickets_end(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the token's own end closes it."""
    handle = await fleet.submit("idle", run_id="r-1", tenant="acme")
    app = asking(fleet)
    async with client_of(app) as caller:
        ticket = await ticket_of(caller, "r-1")
        reading = asyncio.create_task(caller.get(f"/runs/r-1/stream?ticket={ticket}"))
        await wait_until(lambda: app.state.pod.streams.total() == 1, "the stream is open")
        later = SimpleNamespace(time=lambda: time.time() + 61)
        monkeypatch.setattr("murmur_streams.server.auth.time", later)
        check_problem(await caller.get(f"/runs/r-1/stream?ticket={ticket}"), 401)
        assert not reading.done()
        await handle.cancel()
        assert "event: run_cancelled" in (await reading).text
