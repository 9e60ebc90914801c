"""A run whose stored data was damaged: each route answers with one problem document of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from murmur_streams import Fleet, RunEvent, RunEventType, RunState
from murmur_streams.core.model.results import AgentResult
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import redis_only
from tests.server.serving import check_problem, client_of, submitted
from tests.servers import Space

ROUTES = (
    *(("GET", "/runs/{0}"), ("GET", "/runs/{0}/status"), ("GET", "/runs/{0}/result")),
    *(
        ("GET", "/runs/{0}/events"),
        ("GET", "/runs/{0}/events?wait=5"),
        ("GET", "/runs/{0}/journal"),
    ),
    *(
        ("GET", "/runs/{0}/stream"),
        ("GET", "/runs/{0}/stream?control=1"),
        ("GET", "/stream?run={0}"),
    ),
    *(("POST", "/runs/{0}/ticket"), ("POST", "/runs/{0}/cancel"), ("DELETE", "/runs/{0}")),
)
Damage = Callable[[Any, str, Keys], object]
OF_THE_RUN: dict[str, Damage] = {
    "state": lambda admin, run, _: admin.hset(run, "state", "nonsense"),
    "version": lambda admin, run, _: admin.hset(run, "version", "nonsense"),
    "no moment": lambda admin, run, _: admin.hdel(run, "created_ms"),
}


@pytest.fixture
async def keys(fleet: Fleet) -> Keys:
    return redis_only(await fleet.store())._keys


async def add_event(fleet: Fleet, run_id: str, name: str) -> None:
    event = RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name=name, data={"a": 1})
    await (await fleet.store()).append(run_id, event)


def damage_last_event(space: Space, keys: Keys, run_id: str) -> None:
    """Write another entry instead of the last one, whose data is not JSON."""
    admin: Any = space.admin
    journal = keys.journal(run_id)
    entry_id, fields = admin.xrevrange(journal, count=1)[0]
    admin.xdel(journal, entry_id)
    # An id cannot be used again while it is the stream's last one.
    rows = admin.xrange(journal)
    admin.delete(journal)
    for each, fields_of_entry in [*rows, (entry_id, {**fields, b"data": b"{nonsense"})]:
        admin.xadd(journal, fields_of_entry, id=each)


def remove(space: Space, keys: Keys, run_id: str) -> None:
    """Leave nothing behind that the audit of keys would have to explain."""
    for key in space.admin.scan_iter(f"{space.prefix}*"):
        space.admin.delete(key)


@pytest.mark.parametrize("what", OF_THE_RUN)
async def test_every_route_says_what_to_do(
    client: httpx.AsyncClient,
    space: Space,
    keys: Keys,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    """The document names the commands that help; the log has one line for each request."""
    run_id = await submitted(client)
    OF_THE_RUN[what](space.admin, keys.run(run_id), keys)
    for method, path in ROUTES:
        caplog.clear()
        with caplog.at_level(logging.INFO, "murmur_streams.server"):
            response = await client.request(method, path.format(run_id))
        document = check_problem(response, 500, "run-damaged")
        assert document["detail"] == (
            f"what is stored of run {run_id!r} is damaged; `murmur-streams audit {run_id}` shows "
            f"where, and `murmur-streams rebuild {run_id}` makes it anew from its journal"
        )
        assert (document["run_id"], document["can_rebuild"]) == (run_id, True)
        assert "nonsense" not in response.text
        check_one_line(caplog, run_id)
    listed = await client.get("/runs")
    assert listed.json() == {"runs": [], "next": None}
    remove(space, keys, run_id)


def check_one_line(caplog: pytest.LogCaptureFixture, run_id: str) -> None:
    [record] = [each for each in caplog.records if each.name == "murmur_streams.server"]
    assert record.levelname == "ERROR"
    assert record.exc_info is None
    assert run_id in record.getMessage()
    assert "\n" not in record.getMessage()


async def test_a_damaged_result_is_a_damaged_run(
    client: httpx.AsyncClient,
    fleet: Fleet,
    space: Space,
    keys: Keys,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run itself can be read; its result says that the journal cannot mend it."""
    run_id = await submitted(client)
    store = await fleet.store()
    await store.set_state(run_id, RunState.RUNNING)
    result = AgentResult[int](output=1, agent_name="fine", task_id=run_id)
    await store.finish(run_id, RunState.COMPLETED, result=result)
    space.admin.set(keys.result(run_id), '{"output": ', keepttl=True)
    with caplog.at_level(logging.INFO, "murmur_streams.server"):
        response = await client.get(f"/runs/{run_id}/result")
    document = check_problem(response, 500, "run-damaged")
    assert document["detail"].endswith("import it from an export, or delete it by force")
    assert document["can_rebuild"] is False
    check_one_line(caplog, run_id)
    assert (await client.get(f"/runs/{run_id}")).status_code == 200


async def test_damaged_metadata_is_a_damaged_run(
    client: httpx.AsyncClient, space: Space, keys: Keys
) -> None:
    """A value that only the snapshot decodes is damage of the run too; a listing leaves it out."""
    run_id, other = await submitted(client), await submitted(client)
    space.admin.hset(keys.run(run_id), "metadata_json", "{nonsense")
    check_problem(await client.get(f"/runs/{run_id}"), 500, "run-damaged")
    listed = (await client.get("/runs")).json()["runs"]
    assert [run["run_id"] for run in listed] == [other]
    space.admin.hset(keys.run(run_id), "created_ms", 10**17)
    space.admin.hdel(keys.run(run_id), "metadata_json")
    check_problem(await client.get(f"/runs/{run_id}"), 500, "run-damaged")
    remove(space, keys, run_id)


async def test_a_damaged_event_ends_a_page_and_a_stream(
    app: FastAPI,
    fleet: Fleet,
    space: Space,
    keys: Keys,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The stream sends what comes before it; opened again after that, it is refused."""
    async with client_of(app) as client:
        run_id = await submitted(client)
        await add_event(fleet, run_id, "good")
        await add_event(fleet, run_id, "bad")
        damage_last_event(space, keys, run_id)
        check_problem(await client.get(f"/runs/{run_id}/events"), 500, "run-damaged")
        with caplog.at_level(logging.INFO, "murmur_streams.server"):
            caplog.clear()
            cut = await client.get(f"/runs/{run_id}/stream")
        assert cut.status_code == 200
        assert '"name":"good"' in cut.text
        check_one_line(caplog, run_id)
        last = [row[4:] for row in cut.text.splitlines() if row.startswith("id: ")][-1]
        again = await client.get(f"/runs/{run_id}/stream", headers={"Last-Event-ID": last})
        check_problem(again, 500, "run-damaged")
        remove(space, keys, run_id)


@pytest.mark.parametrize("path", ["/runs/{0}/stream?control=1", "/stream?run={0}&control=1"])
async def test_control_adds_damage_as_a_message(
    client: httpx.AsyncClient, fleet: Fleet, space: Space, keys: Keys, path: str
) -> None:
    """With control=1 the last message is `damaged`, with the text of the problem document."""
    run_id = await submitted(client)
    await add_event(fleet, run_id, "good")
    await add_event(fleet, run_id, "bad")
    damage_last_event(space, keys, run_id)
    answer = await client.get(path.format(run_id))
    last = answer.text.rstrip().split("\n\n")[-1].splitlines()
    assert last[0] == "event: damaged"
    data = json.loads(next(row for row in last if row.startswith("data: "))[6:])
    assert (data["run_id"], data["can_rebuild"]) == (run_id, False)
    assert "murmur-streams audit" in data["detail"]
    remove(space, keys, run_id)
