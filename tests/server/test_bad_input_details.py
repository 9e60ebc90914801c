"""The catalogue of bad input, where it is not one body's or one run's: each changes nothing."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.states import RunState
from murmur_streams.server import ServerOptions, make_app
from tests.fleet.working import working
from tests.server.serving import (
    check_problem,
    client_of,
    submitted,
    task,
    unchanged,
)
from tests.server.test_bad_input import JSON, OF_RUNS, RUN_IDS
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

FRAGMENTS = {
    "SQL": "'; DROP TABLE runs",
    "Lua": "]]..redis.call('FLUSHALL')",
    "RESP": "*1\r\n$8\r\nFLUSHALL\r\n",
    "YAML": "!!python/object/apply:os.system [id]",
    "a pickle": "cos\nsystem\n(S'id'\ntR.",
    "control characters": "a\0b\x1b[31m\u202e\u2028",
    "a prototype": "__proto__",
}
OF_STREAMS = ["/runs/known/stream", "/stream?run=known", "/events/stream"]


@pytest.mark.parametrize("run_id", RUN_IDS.values(), ids=RUN_IDS.keys())
@pytest.mark.parametrize("query", ["run={}", "run=known&run={}"])
async def test_a_run_id_outside_the_grammar_is_in_no_stream_of_several(
    client: httpx.AsyncClient, space: Space, query: str, run_id: str
) -> None:
    """Also beside a good one, the answer is 400."""
    await submitted(client, run_id="known")
    with unchanged(space):
        check_problem(await client.get(f"/stream?{query.format(run_id)}"), 400, "bad-request")


@pytest.mark.parametrize(("method", "end"), OF_RUNS)
async def test_a_run_id_of_10_000_characters_is_too_long_a_url(
    client: httpx.AsyncClient, space: Space, method: str, end: str
) -> None:
    """The answer is 414."""
    with unchanged(space):
        response = await client.request(method, f"/runs/{'a' * 10_000}{end}")
        check_problem(response, 414, "url-too-long")


CURSORS = ["abc", "1-2-3", "$", "+", ">", "*", "(1-0", " 1-0", "0-0", "-2", "1-0\r\nX: 1", "\0"]


@pytest.mark.parametrize("cursor", CURSORS)
@pytest.mark.parametrize("how", ["Last-Event-ID", "after"])
@pytest.mark.parametrize("path", ["/runs/known/stream", "/stream?run=known", "/events/stream"])
@pytest.mark.parametrize("control", ["0", "1"])
async def test_a_stream_after_a_cursor_that_is_none_is_refused(
    client: httpx.AsyncClient, space: Space, path: str, how: str, control: str, cursor: str
) -> None:
    """Each kind of stream answers 400, for the header and for the query."""
    await submitted(client, run_id="known")
    headers = [(how.encode(), cursor.encode())] if how != "after" else []
    query = {"control": control} | ({"after": cursor} if how == "after" else {})
    url = httpx.URL(path)
    with unchanged(space):
        response = await client.get(url.copy_merge_params(query), headers=headers)
        check_problem(response, 400, "bad-cursor")


NAMES = {
    "dunder": "__class__",
    "a module": "pkg.mod:fn",
    "a tag": "a%7Bb%7D",
    "a star": "*",
    "a NUL": "fine%00",
    "a newline": "fine%0D%0A",
    "U+202E": "fine%E2%80%AE",
    "129 characters": "a" * 129,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/agents/{}/schema"),
        ("POST", "/agents/{}/run"),
        ("POST", "/agents/{}/gather"),
        ("GET", "/groups/{}/topology"),
        ("POST", "/groups/{}/run"),
    ],
)
async def test_a_name_outside_the_grammar_is_looked_up_nowhere(
    client: httpx.AsyncClient, space: Space, method: str, path: str, name: str
) -> None:
    """For agents and groups the answer is 422."""
    body: dict[str, Any] = {"tasks": []} if path.endswith("gather") else {"task": {"input": 1}}
    more: dict[str, Any] = {"json": body} if method == "POST" else {}
    with unchanged(space):
        check_problem(await client.request(method, path.format(name), **more), 422, "invalid")


@pytest.mark.parametrize("text", FRAGMENTS.values(), ids=FRAGMENTS.keys())
async def test_a_fragment_of_another_language_is_data_in_any_field(
    client: httpx.AsyncClient, fleet: Fleet, text: str
) -> None:
    """SQL, Lua, HTML and the like come back as they were sent."""
    await submitted(client, run_id="known")
    body = task({text: [text]}, "echo", run_id="odd", request_id=text)
    body["task"] |= {"id": text, "request_id": text, "metadata": {text: {text: text}}}
    async with working(fleet):
        answer = await client.post("/submit", json=body, headers={"Prefer": "wait=30"})
    assert answer.json()["result"]["output"] == {text: [text]}
    assert (await client.get("/runs/odd")).json()["metadata"] == {text: {text: text}}
    held = await submitted(client, delay=60)
    assert (await client.post(f"/runs/{held}/cancel", json={"reason": text})).status_code == 200
    assert (await client.get(f"/runs/{held}")).json()["cancel_reason"] == text
    assert (await client.get("/runs/known")).status_code == 200


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("0.1", "0.1"),
        ("1e-7", "1e-07"),
        ("-0", "-0.0"),
        ("-0.0", "-0.0"),
        ("1.0", "1.0"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551616", "18446744073709551616"),
        ("true", "true"),
        ("[[],{},null]", "[[], {}, null]"),
    ],
)
async def test_a_number_keeps_its_value_and_its_kind(
    client: httpx.AsyncClient, fleet: Fleet, sent: str, answered: str
) -> None:
    """Large integers and floats are the same in the answer."""
    content = f'{{"target":"echo","run_id":"r","task":{{"input":{sent}}}}}'
    async with working(fleet):
        headers = JSON | {"Prefer": "wait=30"}
        answer = await client.post("/submit", content=content, headers=headers)
    for found in (answer.json()["result"], (await client.get("/runs/r/result")).json()):
        assert json.dumps(found["output"]) == answered


@pytest.mark.parametrize("host", ["evil", "evil.example:1", "a{b}", "*"])
@pytest.mark.parametrize("path", ["/runs", "/runs/known", "/openapi.json", "/runs/", "/nowhere"])
async def test_a_host_of_the_clients_is_not_believed(
    client: httpx.AsyncClient, space: Space, path: str, host: str
) -> None:
    """Forged host headers change nothing in an answer."""
    await submitted(client, run_id="known")
    names = ["Host", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-Proto", "Forwarded"]
    with unchanged(space):
        own = await client.get(path, headers={"X-Request-Id": "same"})
        spoofed = await client.get(
            path, headers=dict.fromkeys(names, host) | {"X-Request-Id": "same"}
        )
    assert own.status_code == (404 if path in {"/runs/", "/nowhere"} else 200)
    assert spoofed.status_code == own.status_code
    assert (spoofed.content, spoofed.headers) == (own.content, own.headers)


@pytest.mark.parametrize("accept", ["application/json", "text/html", "text/event-stream;q=0"])
@pytest.mark.parametrize("path", OF_STREAMS)
async def test_who_takes_no_event_stream_gets_none(
    client: httpx.AsyncClient, space: Space, path: str, accept: str
) -> None:
    """An Accept header that excludes event streams gets 406."""
    await submitted(client, run_id="known")
    with unchanged(space):
        check_problem(await client.get(path, headers={"Accept": accept}), 406, "not-acceptable")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(("GET", path, None) for path in OF_STREAMS),
        ("GET", "/runs/known/events?wait=60", None),
        ("POST", "/agents/fine/run", {"task": {"input": 1}}),
        ("POST", "/agents/fine/gather", {"tasks": [{"input": 1}]}),
    ],
)
@pytest.mark.parametrize("option", ["max_streams", "max_streams_per_caller"])
@pytest.mark.fault("F8")
async def test_too_many_streams_answer_with_retry_after(
    fleet: Fleet, space: Space, option: str, method: str, path: str, body: Any
) -> None:
    """The limits of open streams also apply to requests that wait."""
    full: dict[str, Any] = {option: 0}
    async with client_of(make_app(fleet, ServerOptions(**full))) as client:
        await submitted(client, run_id="known")
        more: dict[str, Any] = {} if body is None else {"json": body}
        with unchanged(space):
            answer = await client.request(method, path, **more)
    check_problem(answer, 429, "too-many")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(("method", "end"), OF_RUNS)
async def test_an_expired_run_is_not_found(
    client: httpx.AsyncClient, space: Space, method: str, end: str
) -> None:
    """The answer is 404 on each route of a run."""
    async with space.store(ttl_seconds=0.05) as short_lived:
        await short_lived.create("known", "fine")
        await short_lived.finish("known", RunState.COMPLETED)

    async def is_gone() -> bool:
        return not space.admin.exists(*space.keys.of_run("known"))

    await wait_until(is_gone, "the run has expired")
    with unchanged(space):
        check_problem(await client.request(method, f"/runs/known{end}"), 404, "run-not-found")
    async with space.store() as store:
        await store.sweep()


@pytest.mark.parametrize("state", [*RunState])
@pytest.mark.parametrize("reason", [None, "again"])
async def test_a_cancel_of_what_is_cancelled_or_over_changes_nothing(
    client: httpx.AsyncClient, fleet: Fleet, space: Space, state: RunState, reason: str | None
) -> None:
    """The second cancel gets the same state and writes nothing."""
    run_id, store = await submitted(client), await fleet.store()
    if state is RunState.RUNNING:
        await store.set_state(run_id, state)
    elif state.is_terminal:
        await store.finish(run_id, state)
    first = await client.post(f"/runs/{run_id}/cancel", json={"reason": "first"})
    before = space.dump_without_records()
    again = await client.post(f"/runs/{run_id}/cancel", json={"reason": reason})
    assert space.dump_without_records() == before
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()


async def test_an_error_of_five_megabytes_is_cut(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """No answer about the failed run is large."""
    store = await fleet.store()

    @fleet.agent
    async def verbose() -> None:
        raise ValueError("x" * 5_000_000)

    async with working(fleet):
        run_id = await submitted(client, None, "verbose")
        await fleet.handle(run_id).result(timeout=30)
    assert (await store.snapshot(run_id)).state is RunState.FAILED
    for end in ("", "/result", "/events", "/journal"):
        answer = await client.get(f"/runs/{run_id}{end}")
        assert answer.status_code == 200
        assert "xxx" in answer.text
        assert len(answer.content) < 100_000


@pytest.mark.leaves("*")
@pytest.mark.parametrize(("kind", "status"), [("run", 409), ("journal", 503), ("feed", 503)])
async def test_a_key_of_another_type_is_refused_before_writes(
    client: httpx.AsyncClient,
    space: Space,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    status: int,
) -> None:
    """The key of a run holds a value of another program."""
    keys = space.keys
    key = keys.feed(0) if kind == "feed" else getattr(keys, kind)("mine")
    space.admin.set(key, "somebody's own")
    with unchanged(space):
        answer = await client.post("/submit", json=task(run_id="mine"))
    check_problem(answer, status)
    assert space.prefix not in answer.text
    assert "WRONGTYPE" not in answer.text
    logged = [record for record in caplog.records if record.name == "murmur_streams.server"]
    assert [record.levelname for record in logged] == ([] if status == 409 else ["ERROR"])


@pytest.mark.leaves("*")
@pytest.mark.parametrize("index", ["index", "index:state:pending", "index:target:fine", "overdue"])
async def test_an_index_of_another_type_is_refused_before_writes(
    client: httpx.AsyncClient, space: Space, index: str
) -> None:
    """The key of an index holds a value of another program."""
    space.admin.set(f"{space.keys.base(0)}:{index}", "somebody's own")
    with unchanged(space):
        answer = await client.post("/submit", json=task(), headers={"Idempotency-Key": "k"})
    check_problem(answer, 503, "unavailable")
    space.admin.delete(f"{space.keys.base(0)}:{index}")
    again = await client.post("/submit", json=task(), headers={"Idempotency-Key": "k"})
    assert "Idempotent-Replayed" not in again.headers
    assert again.status_code == 200


async def test_a_queue_of_another_type_gets_its_run_when_it_is_mended(
    client: httpx.AsyncClient, space: Space, fleet: Fleet
) -> None:
    """The run is executed after the foreign key is removed."""
    queue = space.keys.queue("fine", 0)
    space.admin.set(queue, "somebody's own")
    run_id = await submitted(client)
    space.admin.delete(queue)
    async with working(fleet):
        assert (await fleet.handle(run_id).result(timeout=60)).output == 2
