"""POST /submit: what old clients send and get, and what is asked for besides."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from murmur_streams import Fleet
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.pod import Pod
from tests.fleet.working import working
from tests.server.serving import Gate, check_problem, client_of, submitted, task, unchanged
from tests.servers import Space

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_submission_of_an_old_client_works_as_before(
    client: httpx.AsyncClient,
) -> None:
    """The request is that of a client of murmur-runtime."""
    body = {
        "target": "greet",
        "is_group": False,
        "task": {"id": "t", "request_id": "r", "input": "you", "metadata": {"a": "b"}},
        "request_id": "r2",
    }
    response = await client.post("/submit", json=body)
    assert response.status_code == 200
    assert response.json().keys() == {"run_id"}
    assert "Preference-Applied" not in response.headers


@pytest.mark.parametrize(
    ("target", "given", "stored"),
    [
        ("study", '{"topic": "x", "depth": 2}', {"topic": "x", "depth": 2}),
        ("study", {"topic": "x"}, {"topic": "x", "depth": 1}),
        ("fine", "41", 41),
        ("fine", 41, 41),
        ("greet", '{"topic": "x"}', '{"topic": "x"}'),
        ("echo", '{"topic": "x"}', '{"topic": "x"}'),
        ("idle", "", None),
        ("idle", None, None),
        ("broken", None, None),
    ],
)
async def test_text_is_decoded_for_an_agent_whose_input_is_no_text(
    client: httpx.AsyncClient, fleet: Fleet, target: str, given: Any, stored: Any
) -> None:
    """Old clients send JSON as a string."""
    run_id = await submitted(client, given, target)
    assert await (await fleet.store()).get_input(run_id) == stored


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        {},
        [[], {}, None, ""],
        0.1,
        1e-7,
        2**53 + 1,
        2**64,
        "a\0b\u2028\u202e\r\n",
        {"__proto__": {"constructor": 1}, "": [False]},
        "'; DROP TABLE runs",
        "]]..redis.call('FLUSHALL')",
        "*1\r\n$8\r\nFLUSHALL\r\n",
        "cos\nsystem\n(S'id'\ntR.",
    ],
)
async def test_any_json_comes_back_as_it_was_sent(
    client: httpx.AsyncClient, fleet: Fleet, given: Any
) -> None:
    """The output of an echo equals its input."""
    async with working(fleet):
        response = await client.post(
            "/submit", json=task(given, "echo"), headers={"Prefer": "wait=30"}
        )
    assert response.json()["result"]["output"] == given


async def test_a_run_has_every_member_of_its_submission(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """It has metadata, delay, priority and deadline."""
    body = task(1, run_id="mine:1", delay=60, priority=-5, deadline=120.5)
    body["task"]["metadata"] = {"any": [1, None]}
    response = await client.post(
        "/submit", json=body, headers={"traceparent": TRACE, "tracestate": "a=1"}
    )
    assert response.json() == {"run_id": "mine:1"}
    run = await fleet.handle("mine:1").snapshot()
    assert (run.priority, run.deadline_span_ms, run.metadata) == (-5, 120_500, {"any": [1, None]})
    assert run.due_ms == run.created_ms + 60_000
    assert run.trace == {"traceparent": TRACE, "tracestate": "a=1"}


async def test_a_time_is_taken_with_its_zone(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """Fractions of a second count, too."""
    run_id = await submitted(client, at="2100-01-01T01:00:00.5+01:00")
    assert (await fleet.handle(run_id).snapshot()).due_ms == 4_102_444_800_500


async def test_a_fleet_without_agents_submits_to_any_name(space: Space) -> None:
    """A pod need not know the agents."""
    async with (
        Fleet(space.url, key_prefix=space.prefix) as fleet,
        client_of(make_app(fleet)) as client,
    ):
        run_id = await submitted(client, 1, "elsewhere")
        assert (await fleet.handle(run_id).snapshot()).target == "elsewhere"


async def test_prefer_wait_answers_with_the_result(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """The answer has Preference-Applied."""
    async with working(fleet):
        response = await client.post("/submit", json=task(1), headers={"Prefer": "wait=30"})
    assert response.headers["Preference-Applied"] == "wait=30"
    answer = response.json()
    assert answer["state"] == "completed"
    assert answer["result"]["output"] == 2
    assert answer["result"]["task_id"] == answer["run_id"]


async def test_prefer_wait_answers_with_the_state_after_its_time(
    client: httpx.AsyncClient,
) -> None:
    """The run goes on."""
    response = await client.post("/submit", json=task(1), headers={"Prefer": "wait=0"})
    assert response.headers["Preference-Applied"] == "wait=0"
    assert response.json().keys() == {"run_id", "state"}
    assert response.json()["state"] == "pending"


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        (["wait=0"], "wait=0"),
        (["WAIT = 0"], "wait=0"),
        (['wait="0"'], "wait=0"),
        (["respond-async, wait=0"], "wait=0"),
        (['handling=lenient; a="b,c"; d , wait=0; x=1'], "wait=0"),
        (["respond-async", "wait=0"], "wait=0"),
        (["wait=0, wait=7"], "wait=0"),
        (["wait=000"], "wait=0"),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=many"], None),
        (["wait=٣"], None),
        (["=5, wait=0"], None),
        (['"wait=0'], None),
        (["await=0"], None),
        ([""], None),
    ],
)
async def test_preferences_are_read_to_the_letter(
    client: httpx.AsyncClient, prefer: list[str], applied: str | None
) -> None:
    """Case, spaces, quotes and repeated headers follow the standard."""
    headers = [(b"Prefer", each.encode()) for each in prefer]
    response = await client.post("/submit", json=task(1), headers=headers)
    assert response.status_code == 200
    assert response.headers.get("Preference-Applied") == applied
    assert ("state" in response.json()) == (applied is not None)


async def test_a_wait_is_cut_to_what_the_pod_grants(fleet: Fleet) -> None:
    """Preference-Applied has the granted time."""
    async with client_of(make_app(fleet, ServerOptions(max_wait_seconds=0))) as client:
        for asked in ("3600", "9" * 5_000):
            response = await client.post(
                "/submit", json=task(1), headers={"Prefer": f"wait={asked}"}
            )
            assert response.headers["Preference-Applied"] == "wait=0"


async def test_a_wait_ends_when_the_pod_drains(
    client: httpx.AsyncClient, fleet: Fleet, pod: Pod, gate: Gate
) -> None:
    """The answer has the state at that moment."""
    async with working(fleet):
        waiting = asyncio.create_task(
            client.post("/submit", json=task(1, "patient"), headers={"Prefer": "wait=60"})
        )
        await gate.entered.wait()
        pod.drain.set()
        response = await waiting
        assert response.json()["state"] == "running"
        gate.open.set()
    assert pod.streams.total() == 0


async def test_who_waits_counts_as_an_open_stream(fleet: Fleet, gate: Gate) -> None:
    """Over max_streams the run is accepted and the wait is not."""
    app = make_app(fleet, ServerOptions(max_streams=1))
    async with client_of(app) as client, working(fleet):
        first = asyncio.create_task(
            client.post("/submit", json=task(1, "patient"), headers={"Prefer": "wait=60"})
        )
        await gate.entered.wait()
        # Taken all the same: only the wait is not granted.
        second = await client.post("/submit", json=task(1), headers={"Prefer": "wait=60"})
        assert second.json()["state"] in {"pending", "running", "completed"}
        check_problem(
            await client.post("/agents/fine/run", json={"task": {"input": 1}}), 429, "too-many"
        )
        assert not first.done()
        gate.open.set()
        assert (await first).json()["result"]["output"] == 1


async def test_an_outage_is_answered_without_its_cause(space: Space) -> None:
    """The answer does not have the address of the store."""
    fleet = Fleet("redis://127.0.0.1:1", key_prefix=space.prefix, retry_seconds=0)
    async with fleet, client_of(make_app(fleet)) as client:
        response = await client.post("/submit", json=task(1, "any"))
        check_problem(response, 503, "unavailable")
        assert response.headers["Retry-After"]
        assert "127.0.0.1" not in response.text


async def test_a_drained_pod_takes_nothing(
    client: httpx.AsyncClient, pod: Pod, space: Space
) -> None:
    """503 with Retry-After, and nothing is written."""
    pod.drain.set()
    with unchanged(space):
        response = await client.post("/submit", json=task(1))
    document = check_problem(response, 503, "shutting-down")
    assert document["error"] == "ServerShuttingDown"
    assert response.headers["Retry-After"] == "5"
