"""Pages of other origins: none by default; those that are named, exactly."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from murmur_streams import Fleet
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.app import CORS_SEEN
from murmur_streams.server.auth import BearerTokens
from tests.server.serving import client_of, task, unchanged
from tests.servers import Space

PAGE = "https://app.example.com"
FOREIGN = [
    "https://evil.example.com",
    "https://app.example.com.evil.com",
    "https://app.example.com:8443",
    "http://app.example.com",
    "HTTPS://APP.EXAMPLE.COM",
    "https://app.example.com/",
    "null",
    "*",
    "",
]


@pytest.fixture
async def browser(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(
        make_app(fleet, ServerOptions(cors_origins=(PAGE, "http://localhost:3000")))
    ) as client:
        yield client


def preflight(origin: str, method: str = "POST", headers: str = "content-type") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


async def test_by_default_no_page_of_another_origin_may_do_anything(
    client: httpx.AsyncClient,
) -> None:
    """No answer has a CORS header."""
    for answer in (
        await client.get("/runs", headers={"Origin": PAGE}),
        await client.options("/submit", headers=preflight(PAGE)),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", "content-type, idempotency-key, prefer, traceparent, authorization"),
        ("GET", "authorization, if-none-match, last-event-id, x-request-id"),
        ("DELETE", "authorization"),
    ],
)
async def test_a_preflight_of_a_named_origin_succeeds(
    browser: httpx.AsyncClient, method: str, headers: str
) -> None:
    """Methods and headers of the interface are allowed."""
    answer = await browser.options("/submit", headers=preflight(PAGE, method, headers))
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert method in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    assert all(name in allowed for name in headers.split(", "))
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    ("method", "headers"), [("PUT", "content-type"), ("POST", "x-other"), ("TRACE", "accept")]
)
async def test_a_preflight_for_an_unused_method_fails(
    browser: httpx.AsyncClient, method: str, headers: str
) -> None:
    """So does one for an unknown header."""
    answer = await browser.options("/submit", headers=preflight(PAGE, method, headers))
    assert answer.status_code == 400


@pytest.mark.parametrize("origin", FOREIGN)
async def test_another_origin_gets_no_cors_headers(browser: httpx.AsyncClient, origin: str) -> None:
    """A browser then hides the answer from the page."""
    for answer in (
        await browser.get("/runs", headers={"Origin": origin}),
        await browser.options("/submit", headers=preflight(origin)),
    ):
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" in answer.headers["Vary"]


async def test_a_page_reads_answers_and_their_headers(
    fleet: Fleet, browser: httpx.AsyncClient
) -> None:
    """ETag, X-Request-Id and the others are exposed."""
    run_id = (await fleet.submit("idle")).run_id
    answer = await browser.get(f"/runs/{run_id}", headers={"Origin": PAGE})
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    exposed = answer.headers["Access-Control-Expose-Headers"]
    assert exposed == ", ".join(CORS_SEEN)
    assert {"ETag", "X-Request-Id", "Preference-Applied", "Retry-After"} <= set(CORS_SEEN)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/runs", 401), ("POST", "/submit", 415), ("GET", "/nowhere", 404)],
)
async def test_a_page_reads_refusals_too(
    fleet: Fleet, space: Space, method: str, path: str, status: int
) -> None:
    """Problem documents have the CORS headers."""
    app = make_app(fleet, ServerOptions(authenticator=BearerTokens(()), cors_origins=(PAGE,)))
    content = b"a" if method == "POST" else b""
    async with client_of(app) as browser:
        with unchanged(space):
            answer = await browser.request(method, path, headers={"Origin": PAGE}, content=content)
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE


async def test_who_is_no_page_is_answered_as_ever(browser: httpx.AsyncClient) -> None:
    """A client without an Origin header gets no CORS header."""
    answer = await browser.post("/submit", json=task())
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "https://*.example.com", "example.com", "https://app.example.com/", "null", ""),
        *("https://APP.example.com", "https://app.example.com:443", "ftp://app.example.com"),
    ],
)
def test_no_app_is_made_for_what_no_browser_sends(fleet: Fleet, origin: str) -> None:
    """A wildcard, a path or a wrong case in an origin raises ValueError."""
    with pytest.raises(ValueError, match="must be an origin such as"):
        make_app(fleet, ServerOptions(cors_origins=(PAGE, origin)))
