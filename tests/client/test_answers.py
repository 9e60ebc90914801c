"""Addresses, credentials, sizes: what goes out, what is let in, and what is shown."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

import murmur_streams.client
from murmur_streams.client import (
    AsyncClient,
    Client,
    HTTPError,
    UnauthorizedError,
    UnreadableAnswerError,
)
from murmur_streams.client.endpoint import Endpoint
from murmur_streams.core.model import errors
from tests.client.pods import Pod
from tests.stores.faults.waiting import wait_until

SECRET = "a-token-that-must-stay-secret"
STATUS = {"run_id": "r-1", "state": "running", "progress": None}

Answering = Callable[[httpx.Request], httpx.Response]


def sync_client(answering: Answering, url: str = "http://h", **options: Any) -> Client:
    return Client(url, transport=httpx.MockTransport(answering), retry_seconds=0, **options)


def async_client(answering: Answering, url: str = "http://h", **options: Any) -> AsyncClient:
    return AsyncClient(url, transport=httpx.MockTransport(answering), retry_seconds=0, **options)


def both(answering: Answering, **options: Any) -> list[BaseException | None]:
    """The outcome of both clients for an answer to ``status``."""

    async def ask() -> None:
        async with async_client(answering, **options) as client:
            await client.handle("r-1").status()

    def ask_sync() -> None:
        with sync_client(answering, **options) as client:
            client.handle("r-1").status()

    found: list[BaseException | None] = []
    for call in (lambda: asyncio.run(ask()), ask_sync):
        try:
            call()
            found.append(None)
        except Exception as error:  # noqa: BLE001  # it is what the test is about
            found.append(error)
    return found


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://h", "http://h/runs/r-1/status"),
        ("http://h:81/", "http://h:81/runs/r-1/status"),
        ("https://h/a/b", "https://h/a/b/runs/r-1/status"),
        ("https://h/a/b/", "https://h/a/b/runs/r-1/status"),
        ("http://[::1]:81/a", "http://[::1]:81/a/runs/r-1/status"),
    ],
)
def test_routes_are_below_the_base_url(url: str, wanted: str) -> None:
    """The base URL may have a port, a path and a last slash."""
    asked: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json=STATUS)

    assert both(answering, url=url) == [None, None]
    assert asked == [wanted, wanted]


@pytest.mark.parametrize(
    "url",
    [
        *("", "h", "h:80", "ftp://h", "redis://h", "http://", "http:///x", "http://h:99999", "//h"),
        *("http://h?a=1", "http://h#x", "http://[::1", "http://h\n", "http://h:0", None, 7),
    ],
)
def test_what_is_no_servers_address_is_refused(url: Any) -> None:
    """Other schemes, queries and malformed URLs raise InvalidInputError."""
    for make in (Client, AsyncClient):
        with pytest.raises(errors.InvalidInputError, match="is not the address of a server"):
            make(url)


@pytest.mark.parametrize(
    "url", [f"http://ann:{SECRET}@h", f"http://{SECRET}@h", f"http://:{SECRET}@h"]
)
def test_credentials_in_the_address_are_refused_and_not_repeated(url: str) -> None:
    """The error advises token= and does not show them."""
    with pytest.raises(errors.InvalidInputError, match="pass token=") as caught:
        Client(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("token", ["", f"{SECRET} x", f"{SECRET}\r\nX: 1", f"{SECRET}é", 7, b"x"])
def test_a_token_unfit_for_a_header_is_refused_and_not_shown(token: Any) -> None:
    """Spaces, newlines and other types raise InvalidInputError."""
    with pytest.raises(errors.InvalidInputError) as caught:
        Client("http://h", token=token)
    shown = "".join(traceback.format_exception(caught.value))
    assert "a-token" not in shown


def test_the_token_is_sent_and_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Errors and the log do not contain it."""
    sent: list[str | None] = []

    def answering(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("authorization"))
        if len(sent) > 2:
            raise httpx.ConnectError("no", request=request)
        return httpx.Response(401, json={"error": "Unauthorized", "message": "no"})

    with caplog.at_level(logging.DEBUG):
        found = [*both(answering, token=SECRET), *both(answering, token=SECRET)]
    assert sent == [f"Bearer {SECRET}"] * 4
    assert [type(error) for error in found] == [UnauthorizedError] * 2 + [
        errors.StoreUnavailableError
    ] * 2
    server = Endpoint.of("http://h", SECRET, {}, trust_env=True)
    shown = [*map(repr, found), *map(str, found), caplog.text, repr(server), str(server)]
    shown += ["".join(traceback.format_exception(error)) for error in found if error]
    shown += [repr(Client("http://h", token=SECRET)), repr(AsyncClient("http://h", token=SECRET))]
    assert not [text for text in shown if SECRET in text]


def test_a_redirect_takes_no_token_elsewhere() -> None:
    """Redirects are not followed."""
    asked: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"location": "http://elsewhere/"})

    found = both(answering, token=SECRET)
    assert asked == ["h", "h"]
    assert [(type(error), "307" in str(error)) for error in found] == [(HTTPError, True)] * 2


def test_a_certificate_that_is_not_trusted_is_not_asked_again() -> None:
    """The first failure raises."""
    asked: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ConnectError(
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate "
            "(_ssl.c:1006)",
            request=request,
        )

    client = Client("https://h", transport=httpx.MockTransport(answering))
    with pytest.raises(
        errors.StoreConfigurationError, match=r"no connection to https://h: .*self-signed"
    ):
        client.agents()
    assert len(asked) == 1


class Endless(httpx.AsyncByteStream, httpx.SyncByteStream):
    """A body without an end."""

    def __iter__(self) -> Any:
        while True:
            yield b"x" * 1000

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000


@pytest.mark.parametrize("status", [200, 500])
def test_a_body_without_an_end_is_refused(status: int) -> None:
    """The client stops reading after max_response_bytes."""
    found = both(lambda _: httpx.Response(status, stream=Endless()), max_response_bytes=10_000)
    assert [type(error) for error in found] == [UnreadableAnswerError] * 2
    assert all("over 10,000 bytes" in str(error) for error in found)


def test_a_body_that_says_it_is_too_long_is_not_read() -> None:
    """A large Content-Length is enough for the refusal."""
    headers = {"content-length": "10001"}
    found = both(
        lambda _: httpx.Response(200, headers=headers, stream=Endless()), max_response_bytes=10_000
    )
    assert all(isinstance(error, UnreadableAnswerError) for error in found)


def test_what_is_packed_is_not_unpacked() -> None:
    """A compressed answer is refused: it may be a bomb."""

    def answering(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Endless())

    found = both(answering)
    assert all("packed as 'gzip'" in str(error) for error in found)


async def test_a_stream_that_is_packed_is_refused() -> None:
    """The error names the coding."""
    headers = {"content-type": "text/event-stream", "content-encoding": "br"}
    client = async_client(lambda _: httpx.Response(200, headers=headers, stream=Endless()))
    with pytest.raises(UnreadableAnswerError, match="packed as 'br'"):
        await anext(client.handle("r-1").stream())


async def test_a_stream_of_one_endless_line_is_refused() -> None:
    """The client stops reading after max_response_bytes."""
    headers = {"content-type": "text/event-stream"}
    answering: Answering = lambda _: httpx.Response(200, headers=headers, stream=Endless())  # noqa: E731
    with pytest.raises(UnreadableAnswerError):
        await anext(async_client(answering, max_response_bytes=5_000).handle("r-1").stream())
    with pytest.raises(UnreadableAnswerError):
        next(sync_client(answering, max_response_bytes=5_000).handle("r-1").stream())


async def test_a_stream_that_is_left_lets_go_of_its_connection(pod: Pod) -> None:
    """The server sees that it is closed."""
    async with AsyncClient(pod.url) as client:
        handle = await client.submit("counts", 1, delay=3600)
        stream = client.handle(handle.run_id).stream()
        reading = asyncio.create_task(anext(stream))
        await wait_until(lambda: pod.streams == 1, "the stream is open")
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await wait_until(lambda: pod.streams == 0, "the stream is closed")
        await handle.delete(force=True)


def test_without_httpx_the_import_says_what_to_install() -> None:
    """Only the two clients need it."""
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "import murmur_streams.client\n"
        "from murmur_streams.client import HTTPError\n"
        "for name in ('Client', 'AsyncClient'):\n"
        "    try:\n"
        "        getattr(murmur_streams.client, name)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("pip install 'murmur-streams[client]'") == 2


def test_every_name_of_the_client_is_there() -> None:
    """__all__ is sorted and complete."""
    names = list(murmur_streams.client.__all__)
    assert names == sorted(set(names)) == dir(murmur_streams.client)
    assert [name for name in names if not hasattr(murmur_streams.client, name)] == []
    with pytest.raises(AttributeError):
        _ = murmur_streams.client.nonsense  # pyright: ignore[reportAttributeAccessIssue]  # that is it


def test_the_client_needs_no_store() -> None:
    """It imports neither redis nor our stores and fleet."""
    code = (
        "import sys\n"
        "from murmur_streams.client import AsyncClient, Client\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'redis'\n"
        "       or name.startswith(('murmur_streams.stores', 'murmur_streams.fleet'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0)
