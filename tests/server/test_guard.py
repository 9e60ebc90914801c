"""The guard of every request: sizes, times, headers, methods, ids, the access log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from murmur_streams import Fleet
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.guard import Identity, RequestLimits, escaped
from murmur_streams.server.pod import Pod
from murmur_streams.stores.redis.store import redis_only
from murmur_streams.wire.problems import UNAUTHORIZED, ProblemError
from tests.server.serving import check_problem, client_of, exchange, submitted, task, unchanged
from tests.servers import Space

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("given", ["abc", "A.b_c-9", "x" * 64])
async def test_a_request_id_is_taken_over(client: httpx.AsyncClient, given: str) -> None:
    """The answer and a problem document repeat it."""
    for path in ("/healthz", "/nowhere"):
        response = await client.get(path, headers={"X-Request-Id": given})
        assert response.headers["X-Request-Id"] == given
    assert response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a\tb", "<script>", "é"])
async def test_a_request_id_outside_the_grammar_is_drawn_anew(
    client: httpx.AsyncClient, given: str
) -> None:
    """The pod draws one of 32 characters."""
    response = await client.get("/healthz", headers=[(b"X-Request-Id", given.encode())])
    assert len(response.headers["X-Request-Id"]) == 32


async def test_two_request_ids_are_none(client: httpx.AsyncClient) -> None:
    """The pod draws one of its own."""
    headers = [("X-Request-Id", "a"), ("X-Request-Id", "b")]
    response = await client.get("/healthz", headers=headers)
    assert len(response.headers.get_list("X-Request-Id")) == 1
    assert len(response.headers["X-Request-Id"]) == 32


async def test_every_answer_is_marked(client: httpx.AsyncClient) -> None:
    """Each answer has nosniff and no-store."""
    for path in ("/healthz", "/nowhere", "/runs", "/openapi.json"):
        response = await client.get(path)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        [("A", "x" * 20_000)],
        [("x" * 20_000, "a")],
        [(f"A-{number}", "x") for number in range(100)],
        [("Authorization", "Bearer " + "x" * 1_000_000)],
    ],
    ids=["a long value", "a long name", "many", "a token of a megabyte"],
)
async def test_headers_are_limited(
    client: httpx.AsyncClient, space: Space, headers: list[tuple[str, str]]
) -> None:
    """Too long or too many headers are 431."""
    with unchanged(space):
        response = await client.post("/submit", json=task(), headers=headers)
        check_problem(response, 431, "headers-too-large")


@pytest.mark.parametrize("path", ["/runs/" + "x" * 9_000, "/runs?target=" + "x" * 9_000])
async def test_a_url_is_limited(client: httpx.AsyncClient, path: str) -> None:
    """The answer is 414."""
    check_problem(await client.get(path), 414, "url-too-long")


@pytest.mark.parametrize(
    "name", ["Authorization", "Last-Event-ID", "Content-Length", "Idempotency-Key", "Content-Type"]
)
async def test_a_header_that_there_can_be_one_of_may_not_come_twice(
    app: FastAPI, space: Space, name: str
) -> None:
    """The answer is 400 and names the header."""
    headers = [("Content-Type", "application/json"), (name, "1")]
    headers += [(name, "1")] if name != "Content-Type" else []
    sent = exchange(app, "POST", "/submit", headers)
    sent.body(b"{}", more=False)
    with unchanged(space):
        await sent.run()
    assert sent.status == 400
    assert name.encode() in sent.content


@pytest.mark.parametrize(
    "media",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json; charset=utf-16",
        "application/json; charset=latin1",
        'application/json; charset="utf-8',
        "application/json; charset=",
        "application/json, text/plain",
        "text/json",
    ],
)
async def test_a_body_of_another_media_type_is_refused(
    app: FastAPI, space: Space, media: str | None
) -> None:
    """The answer is 415."""
    headers = [("Content-Length", "2")] + ([("Content-Type", media)] if media else [])
    sent = exchange(app, "POST", "/submit", headers)
    sent.body(b"{}", more=False)
    with unchanged(space):
        await sent.run()
    assert sent.status == 415


@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "Application/JSON",
        'application/json; charset="UTF-8"',
        "application/json;charset=utf8",
        'application/json ; CharSet="Utf8"',
    ],
)
async def test_json_is_taken_under_each_of_its_names(client: httpx.AsyncClient, media: str) -> None:
    """The media type may have a charset, in any case."""
    content = b'{"target":"fine","task":{"input":1}}'
    response = await client.post("/submit", content=content, headers={"Content-Type": media})
    assert response.status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "zstd"])
async def test_a_compressed_body_is_refused(
    client: httpx.AsyncClient, space: Space, coding: str
) -> None:
    """The answer is 415."""
    with unchanged(space):
        response = await client.post("/submit", json=task(), headers={"Content-Encoding": coding})
        check_problem(response, 415, "media-type")


async def test_a_body_without_an_end_is_refused_while_it_comes(
    app: FastAPI, space: Space, pod: Pod
) -> None:
    """After max_body_bytes the answer is 413, and the connection closes."""
    headers = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
    sent = exchange(app, "POST", "/submit", headers)
    parts = pod.options.max_body_bytes // 65_536 + 5
    for _ in range(parts):
        sent.body(b"x" * 65_536, more=True)
    with unchanged(space):
        await sent.run()
    assert sent.status == 413
    assert sent.headers["Connection"] == "close"
    assert sent.received.qsize() == 4


async def test_a_too_large_content_length_is_not_received(app: FastAPI) -> None:
    """413 comes before the body is read."""
    for length in ("2097153", "9" * 5_000):
        headers = [("Content-Type", "application/json"), ("Content-Length", length)]
        sent = exchange(app, "POST", "/submit", headers)
        sent.body(b"{}", more=True)
        await sent.run()
        assert sent.status == 413
        assert sent.received.qsize() == 1


@pytest.mark.parametrize("length", ["x", "-1", "+1", "1_0", "٣", "0x10"])
async def test_a_length_that_is_no_number_is_refused(app: FastAPI, length: str) -> None:
    """The answer is 400."""
    sent = exchange(app, "POST", "/submit", [("Content-Length", length)])
    await sent.run()
    assert sent.status == 400


async def test_a_body_that_comes_too_slowly_is_given_up(fleet: Fleet, space: Space) -> None:
    """After body_seconds the answer is 408."""
    headers = [("Content-Type", "application/json"), ("Content-Length", "100")]
    sent = exchange(make_app(fleet, ServerOptions(body_seconds=0.05)), "POST", "/submit", headers)
    sent.body(b'{"target"', more=True)
    with unchanged(space):
        await sent.run()
    assert sent.status == 408
    assert sent.headers["Connection"] == "close"


async def test_who_hangs_up_in_a_body_gets_no_answer(
    app: FastAPI, space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent, and the log has one line of level INFO."""
    headers = [("Content-Type", "application/json"), ("Content-Length", "100")]
    sent = exchange(app, "POST", "/submit", headers)
    sent.body(b'{"target"', more=True)
    sent.hang_up()
    with unchanged(space), caplog.at_level(logging.INFO, "murmur_streams"):
        await sent.run()
    assert sent.sent == []
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "POST /submit 499" in caplog.text


ALLOWED = {
    "/submit": "OPTIONS, POST",
    "/runs": "GET, HEAD, OPTIONS",
    "/runs/r": "DELETE, GET, HEAD, OPTIONS",
    "/runs/r/cancel": "OPTIONS, POST",
    "/runs/r/stream": "GET, OPTIONS",
    "/healthz": "GET, HEAD, OPTIONS",
}


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "CONNECT", "PROPFIND", "G\tET"])
async def test_a_405_names_the_methods_of_the_path(
    app: FastAPI, space: Space, method: str, path: str, allowed: str
) -> None:
    """They are in the Allow header."""
    sent = exchange(app, method, path)
    with unchanged(space):
        await sent.run()
    assert sent.status == 405
    assert sent.headers["Allow"] == allowed
    assert sent.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
async def test_options_answers_with_the_methods(
    client: httpx.AsyncClient, path: str, allowed: str
) -> None:
    """They are in the Allow header."""
    response = await client.options(path)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Allow"] == allowed


async def test_what_is_not_there_is_not_found_by_any_method(client: httpx.AsyncClient) -> None:
    """An unknown path is 404, never 405."""
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        check_problem(await client.request(method, "/nowhere"), 404, "not-found")
    assert (await client.head("/nowhere")).status_code == 404
    for path in ("/docs", "/redoc", "/runs/", "//runs"):
        check_problem(await client.get(path), 404, "not-found")


async def test_head_is_get_without_its_content(client: httpx.AsyncClient) -> None:
    """The headers are the same."""
    run_id = await submitted(client)
    for path in (f"/runs/{run_id}", "/healthz", f"/runs/{run_id}/events"):
        got, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("Content-Type", "Content-Length", "ETag"):
            assert head.headers.get(name) == got.headers.get(name)
    assert (await client.head(f"/runs/{run_id}/stream")).status_code == 405


async def test_everything_but_probes_is_refused_while_the_pod_drains(
    client: httpx.AsyncClient, pod: Pod
) -> None:
    """The answer is 503 with Retry-After."""
    pod.drain.set()
    for path in ("/runs", "/agents", "/nowhere", "/openapi.json"):
        response = await client.get(path)
        check_problem(response, 503, "shutting-down")
        assert response.headers["Retry-After"]
    for path in ("/health", "/healthz", "/metrics"):
        assert (await client.get(path)).status_code == 200


async def test_the_access_log_has_a_line_that_nothing_can_forge(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Newlines in a path are escaped, and the query is left out."""
    path = "/runs/a\r\nGET forged 200\u202e\u2028\x1b[31m"
    sent = exchange(app, "GET", path, [("X-Request-Id", "known")])
    sent.scope["raw_path"] = b"/runs/a"
    sent.scope["query_string"] = b"ticket=secret"
    with caplog.at_level(logging.INFO, "murmur_streams.access"):
        await sent.run()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.isascii()
    assert line.isprintable()
    assert line.startswith("GET /runs/a\\r\\nGET forged 200\\u202e\\u2028\\x1b[31m 422 ")
    assert "request known client 127.0.0.1" in line
    assert "secret" not in line


def test_escaping_leaves_what_is_harmless() -> None:
    """Only characters outside printable ASCII are escaped."""
    assert escaped("/runs/a-b_c:d?é") == "/runs/a-b_c:d?\\xe9"


async def test_a_claim_of_another_address_is_not_logged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Forwarding headers are not believed."""
    with caplog.at_level(logging.INFO, "murmur_streams.access"):
        headers = {"X-Forwarded-For": "6.6.6.6", "Host": "evil", "Forwarded": "for=6.6.6.6"}
        await client.get("/healthz", headers=headers)
    assert "6.6.6.6" not in caplog.text


def serving(pod: Pod, app: Any) -> Any:
    """An app of one's own behind the guard."""
    return Identity(RequestLimits(app, pod), pod.metrics)


async def test_an_internal_error_is_logged_and_not_sent(
    pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer has only the request id."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a secret of the inside")

    async with client_of(serving(pod, broken)) as client:
        response = await client.get("/", headers={"X-Request-Id": "lookitup"})
    check_problem(response, 500, "internal")
    assert "secret" not in response.text
    assert "request lookitup" in caplog.text
    assert "a secret of the inside" in caplog.text


async def test_an_answer_that_breaks_off_is_logged_and_cut(
    pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is raised to the server, which closes the connection."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    sent = exchange(serving(pod, broken), "GET", "/", [("X-Request-Id", "lookitup")])
    with pytest.raises(RuntimeError, match="in the middle"):
        await sent.run()
    assert [message["type"] for message in sent.sent] == ["http.response.start"]
    assert "request lookitup: its answer broke off" in caplog.text


async def test_a_challenge_comes_with_its_header(pod: Pod) -> None:
    """A 401 has WWW-Authenticate."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        raise ProblemError(UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})

    async with client_of(serving(pod, guarded)) as client:
        response = await client.get("/")
    check_problem(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_page_of_another_origin_may_read_refusals(fleet: Fleet) -> None:
    """Refusals of the guard have the CORS headers, too."""
    async with client_of(
        make_app(fleet, ServerOptions(cors_origins=("https://page.example",)))
    ) as client:
        headers = {"Origin": "https://page.example", "Content-Type": "text/plain"}
        for response in (
            await client.post("/submit", content=b"{}", headers=headers),
            await client.get("/runs/a%20b", headers=headers),
            await client.get("/healthz", headers=headers),
        ):
            assert response.headers["Access-Control-Allow-Origin"] == "https://page.example"
            assert response.headers["X-Request-Id"]
        asked = headers | {"Access-Control-Request-Method": "POST"}
        preflight = await client.options("/submit", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["X-Request-Id"]


async def test_it_works_mounted_in_another_app(fleet: Fleet) -> None:
    """The routes are below a path of a Starlette app."""
    outer = Starlette(routes=[Mount("/murmur", app=make_app(fleet))])
    async with client_of(outer) as client:
        client.base_url = "http://pod/murmur"
        run_id = await submitted(client)
        assert (await client.get(f"/runs/{run_id}/status")).json()["state"] == "pending"
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        check_problem(await client.get("/nowhere"), 404, "not-found")
        response = await client.put(f"/runs/{run_id}")
        check_problem(response, 405, "method-not-allowed")
        assert response.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS"
        check_problem(await client.post("/submit", content=b"{", headers=JSON), 400, "bad-json")
        document = (await client.get("/openapi.json")).json()
        assert document["servers"] == [{"url": "/murmur"}]


async def test_a_mounted_pod_answers_probes_while_it_drains(fleet: Fleet) -> None:
    """Other routes answer 503."""
    app = make_app(fleet)
    async with client_of(Starlette(routes=[Mount("/murmur", app=app)])) as client:
        app.state.pod.drain.set()
        assert (await client.get("/murmur/healthz")).status_code == 200
        check_problem(await client.get("/murmur/runs"), 503, "shutting-down")


async def test_on_its_own_the_end_of_its_life_drains_and_closes(space: Space) -> None:
    """The lifespan of the app closes the fleet."""
    fleet = Fleet(space.url, key_prefix=space.prefix)
    app = make_app(fleet)
    received: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan"}, received.get, sent.put))
    received.put_nowait({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    store = redis_only(await fleet.store())
    assert not app.state.pod.drain.is_set()
    received.put_nowait({"type": "lifespan.shutdown"})
    assert (await sent.get())["type"] == "lifespan.shutdown.complete"
    await life
    assert app.state.pod.drain.is_set()
    assert store._server.closed


async def test_a_websocket_is_let_go(app: FastAPI) -> None:
    """It is closed at once."""
    received: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    received.put_nowait({"type": "websocket.connect"})
    sent: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "websocket", "path": "/runs", "headers": [], "query_string": b""}
    await app(scope, received.get, sent.put)
    assert (await sent.get())["type"] == "websocket.close"
