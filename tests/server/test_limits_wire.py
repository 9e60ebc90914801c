"""Limits that need a real connection: half a head, an endless head, a slow body."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import suppress
from typing import Any

import pytest

from murmur_streams import Fleet
from tests.server.raw_wire import Connection, raw_wire
from tests.stores.faults.waiting import wait_until

HEAD = b"GET /healthz HTTP/1.1\r\nHost: pod\r\n"
END = b"Connection: close\r\n\r\n"
POST = b"POST /submit HTTP/1.1\r\nHost: pod\r\nContent-Type: application/json\r\n"
SMALL = {"max_header_bytes": 4_096, "max_headers": 20, "max_path_bytes": 1_024}
SOON = {"header_seconds": 0.2, "body_seconds": 0.2}


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 ([0-9]{3}) ", answer)
    assert found, answer
    return int(found[1])


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    found: dict[str, Any] = json.loads(body)
    assert found["status"] == status(answer)
    assert f"x-request-id: {found['request_id']}".encode() in head.lower()
    return found


async def submitted(fleet: Fleet) -> int:
    return len((await (await fleet.store()).list_runs()).runs)


async def until_closed(connection: Connection) -> bytes:
    try:
        return await connection.rest()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (HEAD + b"X: " + b"a" * 5_000 + b"\r\n" + END, 431),
        (HEAD + b"X" * 5_000 + b": a\r\n" + END, 431),
        (HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(30)) + END, 431),
        (HEAD + b"X: a\r\n" * 30 + END, 431),
        (b"GET /runs?cursor=" + b"a" * 2_000 + b" HTTP/1.1\r\nHost: pod\r\n" + END, 414),
        (b"GET /" + b"a" * 2_000 + b" HTTP/1.1\r\nHost: pod\r\n" + END, 414),
        (HEAD + b"X: a\r\n b\r\n" + END, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: pod\r\n\r\n", 400),
        (b"CONNECT pod:80 HTTP/1.1\r\nHost: pod\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    ],
)
async def test_a_head_that_is_too_much_or_none_is_refused(
    fleet: Fleet, head: bytes, expected: int
) -> None:
    """Too long, too many lines, malformed: each gets its status."""
    async with raw_wire(fleet, **SMALL) as wire:
        answer = await wire.ask(head)
    assert (status(answer), problem(answer)["status"]) == (expected, expected)


@pytest.mark.parametrize(
    "before",
    [
        HEAD + b"X: ",
        b"GET /healthz HTTP/1.1\r\nHost",
        HEAD + b"X: a\r\nCookie: ",
    ],
)
async def test_a_header_without_an_end_is_refused_before_it_has_one(
    fleet: Fleet, before: bytes
) -> None:
    """The pod does not read on for ever."""
    async with raw_wire(fleet, **SMALL) as wire:
        answer = await wire.ask(before, *[b"a" * 1_000] * 20)
    assert problem(answer)["status"] == 431


async def test_a_url_without_an_end_is_refused_before_it_has_one(fleet: Fleet) -> None:
    """The answer is 414."""
    async with raw_wire(fleet, **SMALL) as wire:
        answer = await wire.ask(b"GET /", *[b"a" * 1_000] * 20)
    assert problem(answer)["status"] == 414


async def test_a_head_that_is_just_short_enough_is_answered(fleet: Fleet) -> None:
    """The limit itself is allowed."""
    async with raw_wire(fleet, **SMALL) as wire:
        answer = await wire.ask(HEAD + b"X: " + b"a" * 3_900 + b"\r\n" + END)
    assert status(answer) == 200


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"\r\n",
        b"GET /healthz HTTP/1.1\r\n",
        HEAD + b"Authorization: Bea",
        HEAD + b"\r\n" + HEAD,
        HEAD + b"\r\n\r\n",
    ],
    ids=["nothing", "an empty line", "a first line", "half a header", "half a next", "after one"],
)
async def test_who_sends_half_a_head_is_let_go(fleet: Fleet, half: bytes) -> None:
    """The connection is closed after a while."""
    async with raw_wire(fleet, **SOON) as wire:
        answer = await wire.ask(half)
    assert answer == b"" or status(answer) == 200


async def test_a_head_that_drips_is_not_waited_for(fleet: Fleet) -> None:
    """A header line now and then does not keep the connection open."""
    async with raw_wire(fleet, **SOON) as wire:
        connection = await wire.connect()
        await connection.send(HEAD)
        dripping = asyncio.create_task(drip(connection, b"X: a\r\n"))
        try:
            assert await until_closed(connection) == b""
        finally:
            dripping.cancel()


async def drip(connection: Connection, piece: bytes) -> None:
    while True:
        await connection.send(piece)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (POST + b"Content-Length: 1000000\r\n\r\n{", b" "),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n"),
        (POST + b"Content-Length: 10\r\n\r\n", b""),
    ],
    ids=["length", "chunked", "nothing"],
)
async def test_a_body_that_drips_is_refused(fleet: Fleet, head: bytes, piece: bytes) -> None:
    """The answer is 408, and nothing is submitted."""
    async with raw_wire(fleet, **SOON) as wire:
        connection = await wire.connect()
        await connection.send(head)
        dripping = asyncio.create_task(drip(connection, piece))
        try:
            answer = await until_closed(connection)
        finally:
            dripping.cancel()
        assert problem(answer)["status"] == 408
        assert await submitted(fleet) == 0


async def test_a_chunked_body_without_end_is_refused_while_it_comes(fleet: Fleet) -> None:
    """After max_body_bytes the answer is 413."""
    async with raw_wire(fleet, max_body_bytes=10_000) as wire:
        connection = await wire.connect()
        await connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        sending = asyncio.create_task(drip(connection, b"800\r\n" + b" " * 2_048 + b"\r\n"))
        try:
            answer = await until_closed(connection)
        finally:
            sending.cancel()
        assert problem(answer)["status"] == 413
        assert await submitted(fleet) == 0


@pytest.mark.parametrize("what", [b"0\r\nX: ", b"1;"], ids=["trailer", "extension"])
async def test_what_stands_around_a_body_has_an_end_too(fleet: Fleet, what: bytes) -> None:
    """Trailers and chunk extensions are limited."""
    async with raw_wire(fleet, **SMALL) as wire:
        connection = await wire.connect()
        await connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n" + what)
        sending = asyncio.create_task(drip(connection, b"a" * 2_000))
        try:
            await until_closed(connection)
        finally:
            sending.cancel()
        assert await submitted(fleet) == 0


async def test_a_too_large_content_length_is_not_read(fleet: Fleet) -> None:
    """413 comes before the body is sent."""
    async with raw_wire(fleet, max_body_bytes=10_000) as wire:
        answer = await wire.ask(POST + b"Content-Length: 10001\r\n\r\n{")
    assert problem(answer)["status"] == 413


async def test_the_answer_to_a_large_body_is_seen_by_who_reads_it_late(fleet: Fleet) -> None:
    """A client that sends everything first still reads the 413."""

    def send_all_then_read(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(POST + b"Content-Length: 3000000\r\n\r\n")
            with suppress(ConnectionError):
                connection.sendall(b" " * 3_000_000)
            return connection.makefile("rb").read()

    async with raw_wire(fleet, max_body_bytes=10_000) as wire:
        for _ in range(5):
            answer = await asyncio.to_thread(send_all_then_read, wire.port)
            assert problem(answer)["status"] == 413


async def test_a_trailer_is_no_header(fleet: Fleet) -> None:
    """Fields after a chunked body are ignored."""
    body = json.dumps({"target": "echo", "task": {"input": "a"}}).encode()
    chunk = b"%x\r\n%s\r\n0\r\n" % (len(body), body)
    async with raw_wire(fleet) as wire:
        answer = await wire.ask(
            POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunk + b"Idempotency-Key: a\r\nIdempotency-Key: b\r\nX-Request-Id: mine\r\n\r\n",
        )
    assert status(answer) == 200
    assert b"x-request-id: mine" not in answer


async def test_trace_is_refused_and_echoes_nothing(fleet: Fleet) -> None:
    """The answer is 405 without the request's headers."""
    async with raw_wire(fleet) as wire:
        answer = await wire.ask(
            b"TRACE /runs/r-1 HTTP/1.1\r\nHost: pod\r\nX-Secret: s3cret\r\n" + END
        )
    assert status(answer) == 405
    assert b"allow:" in answer.lower()
    assert b"s3cret" not in answer


async def test_pipelined_requests_are_answered_in_order(fleet: Fleet) -> None:
    """Twenty-one requests in one write get their answers in order."""

    def numbered(number: int) -> bytes:
        return HEAD + b"X-Request-Id: n-%d\r\n" % number

    requests = b"".join(numbered(number) + b"\r\n" for number in range(20))
    async with raw_wire(fleet) as wire:
        answer = await wire.ask(requests + numbered(20) + END)
    found = re.findall(rb"x-request-id: n-([0-9]+)", answer.lower())
    assert found == [b"%d" % number for number in range(21)]


async def test_a_refused_head_behind_a_good_one_is_the_last(fleet: Fleet) -> None:
    """Requests behind a refusal get no answer."""
    async with raw_wire(fleet, **SMALL) as wire:
        connection = await wire.connect()
        await connection.send(HEAD + b"\r\n")
        assert status(await connection.until(b"\r\n\r\n")) == 200
        await connection.send(HEAD + b"X: a\r\n" * 30 + b"\r\n" + HEAD + b"\r\n")
        rest = await until_closed(connection)
    assert rest.count(b"HTTP/1.1 ") == 1
    assert b"HTTP/1.1 431 " in rest


async def test_a_good_request_before_a_bad_one_has_its_answer(fleet: Fleet) -> None:
    """Garbage after it closes the connection."""
    async with raw_wire(fleet) as wire:
        answer = await wire.ask(HEAD + b"X-Request-Id: good\r\n\r\n" + b"\x00garbage\r\n\r\n")
    assert status(answer) == 200
    assert b"x-request-id: good" in answer.lower()
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_body_that_cannot_be_read_is_refused(fleet: Fleet) -> None:
    """A malformed chunk is 400, and nothing is submitted."""
    async with raw_wire(fleet) as wire:
        answer = await wire.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n{}\r\n")
        assert problem(answer)["status"] == 400
        assert await submitted(fleet) == 0


async def test_who_reads_no_answers_is_let_go(fleet: Fleet) -> None:
    """A client that never reads is cut off after send_seconds."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: pod\r\n\r\n"
    async with raw_wire(fleet, send_seconds=0.1) as wire:
        connection = await wire.connect()
        await connection.send(request * 1_000)
        state = wire.server.server_state
        await wait_until(lambda: len(state.connections) == 1, "it is there")
        await wait_until(lambda: not state.connections and not state.tasks, "it is let go")
        connection.close()


async def test_long_answers_are_read_to_their_end(fleet: Fleet) -> None:
    """A client that reads gets all of 301 answers."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: pod\r\n"
    async with raw_wire(fleet, send_seconds=2) as wire:
        answer = await wire.ask((request + b"\r\n") * 300 + request + END)
    assert answer.count(b"HTTP/1.1 200 ") == 301


async def test_an_upgrade_is_not_made(fleet: Fleet) -> None:
    """A request for a websocket is answered as plain HTTP."""
    upgrade = (
        b"Connection: upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with raw_wire(fleet, **SOON) as wire:
        assert status(await wire.ask(HEAD + upgrade)) == 200


@pytest.mark.parametrize(
    "spoof",
    [b"X-Forwarded-For: 10.9.8.7\r\n", b"Forwarded: for=10.9.8.7\r\n", b"X-Real-IP: 10.9.8.7\r\n"],
)
async def test_who_the_client_is_is_not_for_it_to_say(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, spoof: bytes
) -> None:
    """The access log has the address of the connection."""
    caplog.set_level("INFO", "murmur_streams.access")
    async with raw_wire(fleet) as wire:
        assert status(await wire.ask(HEAD + spoof + END)) == 200
    assert "client 127.0.0.1" in caplog.text
    assert "10.9.8.7" not in caplog.text


async def test_the_server_does_not_say_what_it_is_made_of(fleet: Fleet) -> None:
    """Answers have no Server header."""
    async with raw_wire(fleet) as wire:
        answer = await wire.ask(HEAD + END)
    assert b"server:" not in answer.lower()
    assert b"uvicorn" not in answer.lower()


async def test_all_connections_are_gone_when_their_clients_are(fleet: Fleet) -> None:
    """The pod has none left after refused requests."""
    async with raw_wire(fleet, **SOON) as wire:
        for _ in range(10):
            await wire.ask(HEAD + b"X: a\r\n" * 200 + END)
        state = wire.server.server_state
        await wait_until(lambda: not state.connections and not state.tasks, "they are gone")


async def test_head_has_no_body_and_leaves_the_connection_open(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """The next request on the connection is answered."""
    async with raw_wire(fleet) as wire:
        head = await wire.ask(
            b"HEAD /agents HTTP/1.1\r\nHost: pod\r\n\r\nGET /agents HTTP/1.1\r\nHost: pod\r\n" + END
        )
    first, _, second = head.partition(b"\r\n\r\n")
    assert status(first) == status(second) == 200
    length = re.search(rb"content-length: ([0-9]+)", first.lower())
    assert length is not None
    assert int(length[1]) == len(second.partition(b"\r\n\r\n")[2]) > 0
    assert "Traceback" not in caplog.text


async def test_a_request_without_a_host_is_malformed(fleet: Fleet) -> None:
    """HTTP/1.1 needs one, HTTP/1.0 does not."""
    async with raw_wire(fleet) as wire:
        assert problem(await wire.ask(b"GET /healthz HTTP/1.1\r\n" + END))["status"] == 400
        assert status(await wire.ask(b"GET /healthz HTTP/1.0\r\n\r\n")) == 200
