"""The catalogue of bad input: each gets its answer, and changes nothing in the store."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.server.serving import check_problem, submitted, task, unchanged
from tests.servers import Space

JSON = {"Content-Type": "application/json"}

BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "cut off": (b"{", 400),
    "100,000 nested arrays": (b"[" * 100_000, 400),
    "100,000 nested arrays as the input": (
        b'{"target":"echo","task":{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        400,
    ),
    "10 MB": (b'"' + b"x" * 10_000_000 + b'"', 413),
    "NaN": (b'{"target":"echo","task":{"input":NaN}}', 400),
    "Infinity": (b'{"target":"echo","task":{"input":-Infinity}}', 400),
    "1e999": (b'{"target":"echo","task":{"input":1e999}}', 400),
    "a delay of NaN": (b'{"target":"echo","task":{},"delay":NaN}', 400),
    "a deadline of 1e999": (b'{"target":"echo","task":{},"deadline":1e999}', 400),
    "a member twice": (b'{"target":"echo","target":"fine","task":{}}', 400),
    "no UTF-8": (b'{"target":"echo","task":{"input":"\xfe"}}', 400),
    "two byte order marks": (b"\xef\xbb\xbf" * 2 + json.dumps(task()).encode(), 400),
    "UTF-16": (json.dumps(task()).encode("utf-16"), 400),
    "a lone surrogate": (b'{"target":"echo","task":{"input":"\\ud800"}}', 400),
    "an integer of 5,000 digits": (
        b'{"target":"echo","task":{"input":' + b"9" * 5_000 + b"}}",
        400,
    ),
    "an array": (b"[]", 422),
    "text": (b'"text"', 422),
    "null": (b"null", 422),
    "a number": (b"1", 422),
    "10,000 members": (json.dumps({str(n): 1 for n in range(10_000)}).encode(), 413),
    "a name of a megabyte": (b'{"' + b"k" * 1_000_000 + b'":1}', 413),
}

MISFITS: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({}, 422),
    "no target": ({"task": {"input": 1}}, 422),
    "no task": ({"target": "fine"}, 422),
    "a task that is not an object": ({"target": "fine", "task": [1]}, 422),
    "an unknown field": (task(fence=99), 422),
    "a state": (task(state="done"), 422),
    "a tenant": (task(tenant="b"), 422),
    "a time to live": (task(ttl=60), 422),
    "a lease": (task(lease=0), 422),
    "a partition": (task(partition="{x}"), 422),
    "a webhook to the metadata of a cloud": (task(webhook="http://169.254.169.254/"), 422),
    "a webhook to the store": (task(callback_url="http://[::1]:6379/"), 422),
    "a webhook to a file": (task(webhook_url="file:///etc/passwd"), 422),
    "constructor": (task(constructor={"prototype": 1}), 422),
    "an unknown field of the task": ({"target": "fine", "task": {"input": 1, "claim": "x"}}, 422),
    "__proto__": (task(__proto__={"target": "x"}), 422),
    "a priority as text": (task(priority="1"), 422),
    "a priority of true": (task(priority=True), 422),
    "a priority of 1.5": (task(priority=1.5), 422),
    "a priority out of range": (task(priority=101), 422),
    "a priority out of range, below": (task(priority=-101), 422),
    "a delay as text": (task(delay="60"), 422),
    "a delay of true": (task(delay=True), 422),
    "a delay below zero": (task(delay=-1), 422),
    "a delay of ten years and more": (task(delay=10**9), 422),
    "a delay and a time": (task(delay=1, at="2100-01-01T00:00:00Z"), 422),
    "a deadline as text": (task(deadline="60"), 422),
    "a deadline of true": (task(deadline=True), 422),
    "a deadline of nothing": (task(deadline=0), 422),
    "a deadline below zero": (task(deadline=-5), 422),
    "a deadline of ten years and more": (task(deadline=10**9), 422),
    "a time in the past": (task(at="2001-01-01T00:00:00Z"), 422),
    "a time in the year 10000": (task(at="10000-01-01T00:00:00Z"), 422),
    "a time in the year 9999": (task(at="9999-01-01T00:00:00Z"), 422),
    "a time without a zone": (task(at="2100-01-01T00:00:00"), 422),
    "a time as a number": (task(at=4102444800), 422),
    "a time as the text of a number": (task(at="4102444800"), 422),
    "is_group as text": (task(is_group="false"), 422),
    "a target of another type": ({"target": 5, "task": {"input": 1}}, 422),
    "a target with a NUL": (task(target="fine\0"), 422),
    "a target with a newline": (task(target="fine\n"), 422),
    "a target of dunder": (task(target="__class__"), 422),
    "a target of a module": (task(target="pkg.mod:fn"), 422),
    "a target of a path": (task(target="../fine"), 422),
    "a target in a tag": (task(target="{fine}"), 422),
    "a target of 129 characters": (task(target="a" * 129), 422),
    "an empty target": (task(target=""), 422),
    "a target that is not there": (task(target="unheard-of"), 404),
    "a target that Python has": (task(target="os.system"), 404),
    "a group that is not there": (task(target="fine", is_group=True), 404),
    "an input of another type": (task("no number"), 422),
    "an input that lacks a field": (task({}, "study"), 422),
    "an input for an agent without one": (task(5, "idle"), 422),
    "metadata that is not an object": (
        {"target": "fine", "task": {"input": 1, "metadata": []}},
        422,
    ),
    "metadata of 100 KB": (
        {"target": "fine", "task": {"input": 1, "metadata": {"a": "x" * 100_000}}},
        413,
    ),
    "a task id of another type": ({"target": "fine", "task": {"input": 1, "id": 5}}, 422),
}

RUN_IDS = {
    "a path": "..%2F..%2Fetc%2Fpasswd",
    "an encoded path": "%252e%252e%252f",
    "a tag": "a%7Bb%7D",
    "braces": "%7D%7B",
    "an empty tag": "%7B%7D",
    "a star": "a*",
    "a question mark": "a%3F",
    "a class": "%5Ba-z%5D",
    "a backslash": "a%5C",
    "a newline": "a%0D%0A",
    "a tab": "a%09",
    "a NUL": "a%00",
    "U+202E": "a%E2%80%AE",
    "U+2028": "a%E2%80%A8",
    "no UTF-8": "a%FF",
    "129 characters": "a" * 129,
    "5,000 characters": "a" * 5_000,
    "full-width digits": "%EF%BC%91%EF%BC%92",
    "a look-alike": "%D0%B0bc",
    "a decomposed letter": "e%CC%81",
    "a colon first": ":a",
    "a dot first": ".a",
    "SQL": "'%3B%20DROP%20TABLE%20runs",
    "Lua": "%5D%5D..redis.call('FLUSHALL')",
    "RESP": "*1%0D%0A$8%0D%0AFLUSHALL%0D%0A",
}
OF_RUNS = [
    ("GET", ""),
    ("GET", "/status"),
    ("GET", "/result"),
    ("GET", "/events"),
    ("GET", "/journal"),
    ("GET", "/stream"),
    ("POST", "/cancel"),
    ("DELETE", ""),
]


@pytest.mark.parametrize(("content", "status"), BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("path", ["/submit", "/agents/echo/run"])
async def test_a_body_that_cannot_be_read_changes_nothing(
    client: httpx.AsyncClient, space: Space, path: str, content: bytes, status: int
) -> None:
    """Each malformed body gets its status, and the store stays as it was."""
    with unchanged(space):
        check_problem(await client.post(path, content=content, headers=JSON), status)


@pytest.mark.parametrize(("body", "status"), MISFITS.values(), ids=MISFITS.keys())
async def test_a_body_that_does_not_fit_changes_nothing(
    client: httpx.AsyncClient, space: Space, body: dict[str, Any], status: int
) -> None:
    """Each body of a wrong shape gets its status, and the store stays as it was."""
    with unchanged(space):
        check_problem(await client.post("/submit", json=body), status)


@pytest.mark.parametrize("run_id", RUN_IDS.values(), ids=RUN_IDS.keys())
@pytest.mark.parametrize(("method", "end"), OF_RUNS)
async def test_a_run_id_outside_the_grammar_is_refused(
    client: httpx.AsyncClient, space: Space, method: str, end: str, run_id: str
) -> None:
    """On each route of a run the answer is 400."""
    with unchanged(space):
        response = await client.request(method, f"/runs/{run_id}{end}")
        # A slash, decoded, makes another path of it.
        check_problem(response, 404 if "%2F" in run_id else 400)


@pytest.mark.parametrize("run_id", ["a b", "a{b}", "*", "a\n", "a\0", "", "é", "x" * 129, "../x"])
async def test_a_run_id_of_the_clients_is_checked(
    client: httpx.AsyncClient, space: Space, run_id: str
) -> None:
    """A run_id in the body of /submit follows the same grammar."""
    with unchanged(space):
        check_problem(await client.post("/submit", json=task(run_id=run_id)), 400, "bad-request")


async def test_a_run_id_that_is_taken_is_a_conflict(
    client: httpx.AsyncClient, space: Space
) -> None:
    """The answer is 409."""
    await submitted(client, run_id="mine")
    with unchanged(space):
        check_problem(await client.post("/submit", json=task(run_id="mine")), 409, "run-exists")


@pytest.mark.parametrize(("method", "end"), OF_RUNS)
async def test_an_unknown_run_is_not_found(
    client: httpx.AsyncClient, space: Space, method: str, end: str
) -> None:
    """The answer is 404 on each route of a run."""
    with unchanged(space):
        response = await client.request(method, f"/runs/tenantB:run1{end}")
        check_problem(response, 404, "run-not-found")


@pytest.mark.parametrize(
    "query",
    [
        "state=done",
        "state=",
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1e3",
        "limit=0x10",
        "limit=",
        "limit=many",
        "target=a%7Bb%7D",
        "target=*",
        "target=a%0A",
    ],
)
async def test_a_filter_that_breaks_a_rule_is_refused(
    client: httpx.AsyncClient, space: Space, query: str
) -> None:
    """For each bad filter of a listing the answer is 422."""
    with unchanged(space):
        check_problem(await client.get(f"/runs?{query}"), 422, "invalid")


@pytest.mark.parametrize("cursor", ["x", "1:a", "*", "0000000000001:", "0000000000001:a b", "%00"])
async def test_a_cursor_of_a_listing_that_is_none_is_refused(
    client: httpx.AsyncClient, space: Space, cursor: str
) -> None:
    """The answer is 400."""
    with unchanged(space):
        check_problem(await client.get(f"/runs?cursor={cursor}"), 400, "bad-cursor")


@pytest.mark.parametrize("cursor", ["abc", "1-2-3", "$", "%2B", ">", "(1-0", "%201-0", "0-0", "-2"])
@pytest.mark.parametrize("end", ["events", "journal"])
async def test_a_cursor_that_is_none_is_refused(
    client: httpx.AsyncClient, space: Space, end: str, cursor: str
) -> None:
    """For pages of events and of the journal the answer is 400."""
    run_id = await submitted(client)
    with unchanged(space):
        response = await client.get(f"/runs/{run_id}/{end}?after={cursor}")
        check_problem(response, 400, "bad-cursor")


@pytest.mark.parametrize("end", ["events", "journal"])
async def test_a_cursor_of_another_run_is_a_reset(
    client: httpx.AsyncClient, space: Space, end: str
) -> None:
    """The answer is 410 without a cursor to resume from."""
    other = (await client.get(f"/runs/{await submitted(client)}")).json()["cursor"]
    run_id = await submitted(client)
    with unchanged(space):
        response = await client.get(f"/runs/{run_id}/{end}?after={other}")
        assert check_problem(response, 410, "cursor-reset")["resume_cursor"] is None


@pytest.mark.parametrize("end", ["events", "journal"])
async def test_a_cursor_ahead_of_the_end_is_a_reset(
    client: httpx.AsyncClient, space: Space, end: str
) -> None:
    """A seq that the run does not have yet is 410."""
    run_id = await submitted(client)
    epoch, ms, _ = (await client.get(f"/runs/{run_id}")).json()["cursor"].split("-")
    with unchanged(space):
        response = await client.get(f"/runs/{run_id}/{end}?after={epoch}-{ms}-99")
        check_problem(response, 410, "cursor-reset")


@pytest.mark.parametrize("query", ["wait=-1", "wait=nan", "wait=inf", "wait=1e9", "limit=501"])
async def test_a_page_that_breaks_a_rule_is_refused(
    client: httpx.AsyncClient, space: Space, query: str
) -> None:
    """A wait or limit out of range is 422."""
    run_id = await submitted(client)
    with unchanged(space):
        check_problem(await client.get(f"/runs/{run_id}/events?{query}"), 422, "invalid")


@pytest.mark.parametrize(
    "key",
    [
        *("", '""', "x" * 256, f'"{"x" * 256}"', "a b", "a\tb", "a\nb", "\r\n", "\0", "\x7f", "é"),
        *('"a', "a\\" + '"b" "c"'),
    ],
)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/submit", task()),
        ("/agents/fine/run", {"task": {"input": 1}}),
        ("/agents/fine/gather", {"tasks": [{"input": 1}]}),
    ],
)
async def test_an_idempotency_key_that_is_none_is_refused(
    client: httpx.AsyncClient, space: Space, path: str, body: dict[str, Any], key: str
) -> None:
    """An empty or long key, or one with control characters, is 400."""
    with unchanged(space):
        headers = [("Idempotency-Key", key.encode())]
        raw = [(name.encode(), value) for name, value in headers]
        response = await client.post(path, json=body, headers=raw)
        check_problem(response, 400, "bad-request")


@pytest.mark.parametrize("reason", ["5", "true", "[]", '{"a":1}'])
async def test_a_reason_that_is_no_text_is_refused(
    client: httpx.AsyncClient, space: Space, reason: str
) -> None:
    """The reason of a cancel must be a string."""
    run_id = await submitted(client)
    with unchanged(space):
        content = f'{{"reason":{reason}}}'
        response = await client.post(f"/runs/{run_id}/cancel", content=content, headers=JSON)
        check_problem(response, 422, "invalid")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/agents/fine/gather", {"tasks": [{"input": 1}], "max_concurrency": 0}),
        ("/agents/fine/gather", {"tasks": [{"input": 1}], "max_concurrency": 10**9}),
        ("/agents/fine/gather", {"tasks": [{"input": 1}], "max_concurrency": "2"}),
        ("/agents/fine/gather", {"tasks": [{"input": 1}], "max_concurrency": True}),
        ("/agents/fine/gather", {"tasks": [{"input": 1}], "max_concurrency": 1.5}),
        ("/agents/fine/gather", {"tasks": [{"input": 1}] * 1_001}),
        ("/agents/fine/gather", {"tasks": {"input": 1}}),
        ("/agents/fine/run", {"task": {"input": "x"}}),
        ("/agents/fine/run", {"tasks": []}),
    ],
)
async def test_work_that_does_not_fit_its_agent_changes_nothing(
    client: httpx.AsyncClient, space: Space, path: str, body: dict[str, Any]
) -> None:
    """The input is checked before anything is written."""
    with unchanged(space):
        check_problem(await client.post(path, json=body), 422, "invalid")


@pytest.mark.parametrize(
    "path", ["/agents/unknown/run", "/agents/unknown/gather", "/groups/unknown/run"]
)
async def test_an_unknown_agent_or_group_is_not_found(
    client: httpx.AsyncClient, space: Space, path: str
) -> None:
    """The answer is 404."""
    body = {"tasks": []} if path.endswith("gather") else {"task": {"input": 1}}
    with unchanged(space):
        check_problem(await client.post(path, json=body), 404)


async def test_a_problem_repeats_nothing_of_a_value(client: httpx.AsyncClient) -> None:
    """A secret in the wrong field is not shown in the answer."""
    secret = "hunter2" * 50
    body = task(priority=secret) | {secret: 1}
    response = await client.post("/submit", json=body)
    check_problem(response, 422, "invalid")
    assert secret not in response.text
