"""Idempotency-Key: the same work is the same run, other work is refused."""

from __future__ import annotations

import asyncio
import copy
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import BaseModel, Field

from murmur_streams import Fleet
from murmur_streams.fleet.submission import idempotent_run_id
from murmur_streams.server import make_app
from murmur_streams.server.auth import Scope
from murmur_streams.server.pod import Pod
from tests.fleet.working import working
from tests.server.serving import Callers, check_problem, client_of, submitted, task, unchanged
from tests.servers import Space

KEY = {"Idempotency-Key": "order-66"}


def whole() -> dict[str, Any]:
    """A body that says all there is to say."""
    body = task(1, priority=3, delay=60, deadline=90)
    body["task"]["metadata"] = {"a": 1, "b": {"c": None}}
    return body


async def test_the_same_request_is_the_same_run(client: httpx.AsyncClient, space: Space) -> None:
    """The second answer is marked as replayed, and nothing is written."""
    first = await client.post("/submit", json=whole(), headers=KEY)
    assert "Idempotent-Replayed" not in first.headers
    with unchanged(space):
        again = await client.post("/submit", json=whole(), headers=KEY)
    assert again.status_code == 200
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_no_client_may_choose_the_id_of_a_key(
    client: httpx.AsyncClient, space: Space
) -> None:
    """Ids that keys make are refused as ``run_id``."""
    taken = idempotent_run_id("", "order-66", None)
    with unchanged(space):
        refused = await client.post("/submit", json=task(run_id=taken))
    check_problem(refused, 422, "invalid")
    assert (await client.post("/submit", json=task(), headers=KEY)).json() == {"run_id": taken}


@pytest.mark.parametrize("key", ['"order-66"', "order-66"])
async def test_quotes_are_no_part_of_a_key(client: httpx.AsyncClient, key: str) -> None:
    """A key in quotes equals the bare one."""
    first = await client.post("/submit", json=task(), headers=KEY)
    again = await client.post("/submit", json=task(), headers={"Idempotency-Key": key})
    assert again.json() == first.json()


async def test_an_escaped_quote_is_part_of_a_key(client: httpx.AsyncClient) -> None:
    """Three such keys are three runs."""
    keys = ['"a\\"b"', '"a\\\\b"', '"ab"']
    answers = [
        await client.post("/submit", json=task(), headers={"Idempotency-Key": key}) for key in keys
    ]
    assert len({answer.json()["run_id"] for answer in answers}) == 3


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("target",), "echo"),
        (("task", "input"), 2),
        (("task", "input"), None),
        (("task", "metadata"), {"a": 2, "b": {"c": None}}),
        (("task", "metadata"), {"a": True, "b": {"c": None}}),
        (("task", "metadata"), None),
        (("priority",), 4),
        (("delay",), 61),
        (("delay",), None),
        (("deadline",), 91),
    ],
)
async def test_other_work_under_the_key_is_refused(
    client: httpx.AsyncClient, space: Space, path: tuple[str, ...], value: Any
) -> None:
    """A change of any member of the request is 422."""
    body = whole()
    body["target"] = "echo" if path != ("target",) else "fine"
    await client.post("/submit", json=body, headers=KEY)
    other = copy.deepcopy(body)
    inner = other if len(path) == 1 else other[path[0]]
    inner[path[-1]] = value
    with unchanged(space):
        response = await client.post("/submit", json=other, headers=KEY)
    check_problem(response, 422, "idempotency-conflict")


async def test_a_time_counts_as_a_delay_does(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """The same moment in another zone is the same request."""
    body = task(at="2100-01-01T00:00:00Z")
    first = await client.post("/submit", json=body, headers=KEY)
    same = task(at="2100-01-01T01:00:00+01:00")
    assert (await client.post("/submit", json=same, headers=KEY)).json() == first.json()
    later = task(at="2100-01-01T00:00:01Z")
    check_problem(await client.post("/submit", json=later, headers=KEY), 422)
    check_problem(await client.post("/submit", json=task(), headers=KEY), 422)
    await fleet.handle(first.json()["run_id"]).cancel()


async def test_request_names_and_member_order_do_not_count(
    client: httpx.AsyncClient,
) -> None:
    """Two requests that differ only there are the same work."""
    body = whole()
    first = await client.post("/submit", json=body, headers=KEY)
    body["request_id"] = "other"
    body["task"] |= {"id": "other", "request_id": "other", "metadata": {"b": {"c": None}, "a": 1}}
    again = await client.post("/submit", json=body, headers=KEY)
    assert again.json() == first.json()


async def test_a_run_that_has_ended_is_still_the_keys(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """The replay has its result."""
    async with working(fleet):
        waiting = KEY | {"Prefer": "wait=30"}
        first = await client.post("/submit", json=task(1), headers=waiting)
        again = await client.post("/submit", json=task(1), headers=waiting)
    assert first.json()["result"]["output"] == 2
    assert again.json() == first.json()


async def test_a_key_is_free_again_when_its_run_is_gone(
    client: httpx.AsyncClient,
) -> None:
    """After a deletion it creates a new run."""
    first = await client.post("/submit", json=task(1), headers=KEY)
    run_id = first.json()["run_id"]
    assert (await client.delete(f"/runs/{run_id}?force=true")).status_code == 204
    again = await client.post("/submit", json=task(2), headers=KEY)
    assert again.status_code == 200
    assert "Idempotent-Replayed" not in again.headers


async def test_many_at_once_on_two_pods_make_one_run(fleet: Fleet) -> None:
    """The others get the same run or 409."""
    async with client_of(make_app(fleet)) as one, client_of(make_app(fleet)) as other:
        answers = await asyncio.gather(
            *(pod.post("/submit", json=task(1), headers=KEY) for pod in (one, other) * 10)
        )
    assert {answer.status_code for answer in answers} <= {200, 409}
    taken = [answer for answer in answers if answer.status_code == 200]
    assert len({answer.json()["run_id"] for answer in taken}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in taken) == 1
    page = await (await fleet.store()).list_runs()
    assert len(page.runs) == 1


async def test_a_key_in_flight_on_this_pod_is_a_conflict(
    client: httpx.AsyncClient, pod: Pod, space: Space
) -> None:
    """409 with Retry-After, and nothing is written."""
    pod.in_flight.add((None, "order-66"))
    with unchanged(space):
        response = await client.post("/submit", json=task(1), headers=KEY)
    check_problem(response, 409, "idempotency-in-flight")
    assert response.headers["Retry-After"] == "1"


async def test_nothing_stays_in_flight(client: httpx.AsyncClient, pod: Pod) -> None:
    """After success and after each refusal the key is free again."""
    await client.post("/submit", json=task(1), headers=KEY)
    await client.post("/submit", json=task(2), headers=KEY)
    await client.post("/submit", json=task("x"), headers={"Idempotency-Key": "other"})
    assert pod.in_flight == set()


async def test_a_key_and_a_run_id_do_not_go_together(
    client: httpx.AsyncClient, space: Space
) -> None:
    """The answer is 422."""
    with unchanged(space):
        response = await client.post("/submit", json=task(run_id="mine"), headers=KEY)
    check_problem(response, 422, "invalid")


async def test_a_key_is_one_of_its_tenant(guarded: httpx.AsyncClient, callers: Callers) -> None:
    """The same key of three callers is three runs."""
    tenants = [callers.add(name, [Scope.SUBMIT], name) for name in ("a", "b")]
    nobodys = callers.add("c", [Scope.SUBMIT])
    answers = [
        await guarded.post("/submit", json=task(1), headers=KEY | who)
        for who in (*tenants, nobodys)
    ]
    assert len({answer.json()["run_id"] for answer in answers}) == 3


async def test_another_tenants_run_is_no_replay_of_a_key(
    guarded: httpx.AsyncClient, callers: Callers, space: Space, fleet: Fleet
) -> None:
    """A run with the key's id that belongs to another tenant is answered with 409."""
    owner = callers.add("a", [Scope.SUBMIT], "a")
    guessed = idempotent_run_id("", KEY["Idempotency-Key"], "a")
    await fleet.submit("fine", 1, run_id=guessed, tenant="b")
    with unchanged(space):
        for number in (1, 2):
            answer = await guarded.post("/submit", json=task(number), headers=KEY | owner)
            check_problem(answer, 409, "run-exists")


async def test_a_gathering_has_a_key_for_each_task(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """A repeated gathering returns the same runs."""
    body = {"tasks": [{"input": 1}, {"input": 1}, {"input": 2}]}
    async with working(fleet):
        first = await client.post("/agents/fine/gather", json=body, headers=KEY)
        again = await client.post("/agents/fine/gather", json=body, headers=KEY)
    assert [each["output"] for each in first.json()] == [2, 2, 3]
    assert again.json() == first.json()
    assert len({each["task_id"] for each in first.json()}) == 3


async def test_without_a_key_each_request_is_a_run(client: httpx.AsyncClient) -> None:
    """Two equal requests are two runs."""
    assert await submitted(client) != await submitted(client)


class Filled(BaseModel):
    """An input that its type fills in, differently each time."""

    topic: str
    tags: set[str] = Field(default_factory=set[str])
    request: UUID = Field(default_factory=uuid4)


async def test_what_a_type_fills_in_does_not_count(fleet: Fleet) -> None:
    """The same body under the same key is the same run, also when the type draws an id."""

    @fleet.agent
    async def filled(question: Filled) -> UUID:
        return question.request

    body = {"target": "filled", "task": {"input": {"topic": "a", "tags": ["x", "y"]}}}
    turned = {"target": "filled", "task": {"input": {"tags": ["x", "y"], "topic": "a"}}}
    async with client_of(make_app(fleet)) as pod, client_of(make_app(fleet)) as other:
        first = await pod.post("/submit", json=body, headers=KEY)
        for client, sent in ((pod, body), (other, body), (other, turned)):
            again = await client.post("/submit", json=sent, headers=KEY)
            assert (again.status_code, again.json()) == (200, first.json())
        body["task"] = {"input": {"topic": "b"}}
        check_problem(await pod.post("/submit", json=body, headers=KEY), 422)
