"""The routes of agents: what they are, and runs whose end the answer waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.states import RunState
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.pod import Pod
from murmur_streams.server.run_requests import Submission, submit
from murmur_streams.stores.redis.store import redis_only
from tests.fleet.working import working
from tests.server.serving import Gate, check_problem, client_of, exchange
from tests.stores.faults.waiting import wait_until

AGENTS = ["broken", "echo", "fine", "greet", "idle", "patient", "study"]


async def test_agents_are_listed_by_name(client: httpx.AsyncClient) -> None:
    """The names are in alphabetical order."""
    assert (await client.get("/agents")).json() == AGENTS


async def test_there_are_no_groups(client: httpx.AsyncClient) -> None:
    """The list is empty, and routes of a group answer 404."""
    assert (await client.get("/groups")).json() == []
    check_problem(await client.get("/groups/crew/topology"), 404, "group-not-registered")
    response = await client.post("/groups/crew/run", json={"task": {"input": 1}})
    check_problem(response, 404, "group-not-registered")


async def test_a_schema_has_an_agents_input_and_output(client: httpx.AsyncClient) -> None:
    """Both are JSON Schemas."""
    body = (await client.get("/agents/study/schema")).json()
    assert body.keys() == {"name", "input_type", "output_type"}
    assert body["name"] == "study"
    assert body["input_type"]["required"] == ["topic"]
    assert body["output_type"] == {"type": "string"}


async def test_an_agent_without_an_input_has_no_schema_of_one(client: httpx.AsyncClient) -> None:
    """Its input type is null."""
    body = (await client.get("/agents/idle/schema")).json()
    assert body == {"name": "idle", "input_type": None, "output_type": {"type": "null"}}


async def test_an_untyped_agent_takes_anything(client: httpx.AsyncClient) -> None:
    """Its input schema is the empty one."""
    assert (await client.get("/agents/echo/schema")).json()["input_type"] == {}


@pytest.mark.parametrize("name", ["unknown", "os.system"])
async def test_an_agent_that_is_not_there_has_no_schema(
    client: httpx.AsyncClient, name: str
) -> None:
    """The answer is 404 and names the agent."""
    document = check_problem(
        await client.get(f"/agents/{name}/schema"), 404, "agent-not-registered"
    )
    assert (document["error"], document["agent"]) == ("RegistryError", name)


async def test_a_name_outside_the_grammar_is_refused(client: httpx.AsyncClient) -> None:
    """The answer is 422."""
    for path in ("/agents/__class__/schema", "/agents/a%7Bb%7D/schema", "/groups/*/topology"):
        check_problem(await client.get(path), 422, "invalid")


async def test_a_run_answers_with_its_outcome(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """With the fields that murmur-runtime has."""
    async with working(fleet):
        response = await client.post("/agents/study/run", json={"task": {"input": '{"topic":"x"}'}})
    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {
        *("agent_name", "task_id", "success", "output", "error", "error_type", "metadata")
    }
    assert (body["success"], body["output"]) == (True, "x 1")


async def test_a_run_that_fails_is_an_answer_too(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """The status is 200; the body has error and type without the traceback."""
    async with working(fleet):
        response = await client.post("/agents/broken/run", json={"task": {"input": "x"}})
    assert response.status_code == 200
    body = response.json()
    assert (body["success"], body["error"]) == (False, "secret of the inside x")
    assert body["error_type"] == "ValueError"
    assert "Traceback" not in response.text


async def test_a_run_that_takes_too_long_is_named_and_goes_on(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """The answer is 504 with the run id, and the run completes later."""
    response = await client.post(
        "/agents/fine/run", json={"task": {"input": 1}}, headers={"Prefer": "wait=1"}
    )
    document = check_problem(response, 504, "timeout")
    handle = fleet.handle(document["run_id"])
    assert (await handle.status()).state is RunState.PENDING
    async with working(fleet):
        assert (await handle.result(timeout=30)).output == 2


async def test_the_pods_own_time_counts_without_a_preference(fleet: Fleet) -> None:
    """After run_seconds the answer is 504."""
    async with client_of(make_app(fleet, ServerOptions(run_seconds=0.2))) as client:
        response = await client.post("/agents/fine/run", json={"task": {"input": 1}})
        check_problem(response, 504, "timeout")


async def test_a_drain_lets_who_waits_go(
    client: httpx.AsyncClient, fleet: Fleet, pod: Pod, gate: Gate
) -> None:
    """A waiting caller gets 503 with the run id; the run goes on."""
    async with working(fleet):
        waiting = asyncio.create_task(
            client.post("/agents/patient/run", json={"task": {"input": 1}})
        )
        await gate.entered.wait()
        pod.drain.set()
        document = check_problem(await waiting, 503, "shutting-down")
        gate.open.set()
        assert (await fleet.handle(document["run_id"]).result(timeout=30)).output == 1
    assert pod.streams.total() == 0


async def test_who_is_gone_leaves_the_run_going(fleet: Fleet, gate: Gate) -> None:
    """A client that hangs up does not end its run."""
    app = make_app(fleet)
    sent = exchange(app, "POST", "/agents/patient/run", [("Content-Type", "application/json")])
    async with working(fleet):
        sent.body(b'{"task":{"input":7}}', more=False)
        served = asyncio.create_task(sent.run())
        await gate.entered.wait()
        sent.hang_up()
        await served
        gate.open.set()
        (run,) = (await (await fleet.store()).list_runs()).runs
        assert (await fleet.handle(run.run_id).result(timeout=30)).output == 7


async def test_a_gathering_answers_in_order(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """Each outcome stands where its task stood."""
    body = {"tasks": [{"input": number} for number in range(12)], "max_concurrency": 3}
    async with working(fleet):
        response = await client.post("/agents/fine/gather", json=body)
    assert [each["output"] for each in response.json()] == list(range(1, 13))


async def test_a_gathering_of_nothing_is_empty(client: httpx.AsyncClient) -> None:
    """No task gives an empty list."""
    assert (await client.post("/agents/fine/gather", json={"tasks": []})).json() == []


async def test_a_gathering_submits_no_more_than_it_may_at_a_time(
    client: httpx.AsyncClient, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """max_concurrency bounds the runs that have not ended."""
    store, begun = await fleet.store(), 0
    at_once: list[int] = []

    async def counted(*args: Any) -> Submission:
        nonlocal begun
        begun += 1
        ended = await store.list_runs(state=RunState.COMPLETED)
        at_once.append(begun - len(ended.runs))
        return await submit(*args)

    monkeypatch.setattr("murmur_streams.server.routes.agents.submit", counted)
    body: dict[str, Any] = {"tasks": [{"input": 1}] * 5, "max_concurrency": 2}
    async with working(fleet):
        response = await client.post("/agents/fine/gather", json=body)
    assert [each["output"] for each in response.json()] == [2] * 5
    assert (len(at_once), max(at_once)) == (5, 2)


async def test_a_gathering_that_ends_early_names_its_runs(
    client: httpx.AsyncClient, fleet: Fleet, pod: Pod
) -> None:
    """The problem has the ids of the submitted runs."""
    store = redis_only(await fleet.store())
    body: dict[str, Any] = {"tasks": [{"input": 1}] * 5, "max_concurrency": 2}
    waiting = asyncio.create_task(client.post("/agents/fine/gather", json=body))
    await wait_until(lambda: store._tails.followers == 2, "two runs are waited for")
    pod.drain.set()
    document = check_problem(await waiting, 503, "shutting-down")
    runs = (await store.list_runs()).runs
    assert sorted(document["run_ids"]) == sorted(run.run_id for run in runs)
    assert len(runs) == 2


async def test_a_gathering_ends_with_the_first_problem(
    client: httpx.AsyncClient, fleet: Fleet, pod: Pod
) -> None:
    """A task that does not fit is the answer, and no wait is left."""
    body = {"tasks": [{"input": 1}, {"input": "x"}, {"input": 2}], "max_concurrency": 3}
    response = await client.post("/agents/fine/gather", json=body)
    assert check_problem(response, 422, "invalid")["detail"].startswith("tasks.1: ")
    assert pod.streams.total() == 0
