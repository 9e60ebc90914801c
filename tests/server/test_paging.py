"""Listings, and the pages of a run's events and journal."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunState
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.auth import Scope
from murmur_streams.server.pod import Pod
from tests.fleet.stage import wait_until
from tests.fleet.working import working
from tests.server.serving import (
    Callers,
    Gate,
    check_problem,
    client_of,
    exchange,
    submitted,
    unchanged,
)
from tests.servers import Space


async def pages(client: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """All pages of a listing or a run's events."""
    name = "cursor" if path == "/runs" else "after"
    found: list[dict[str, Any]] = []
    while True:
        page = (await client.get(path, params=query)).json()
        found.append(page)
        if page["next"] is None or page.get("ended") or page["next"] == query.get(name):
            return found
        query[name] = page["next"]


async def written(fleet: Fleet, run_id: str, count: int) -> list[RunEvent]:
    """A run with so many events that has completed."""
    store = await fleet.store()
    await store.create(run_id, "fine")
    events = [
        RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name=str(number), data=number)
        for number in range(count)
    ]
    await store.append(run_id, *events)
    result = AgentResult(output=1, agent_name="fine", task_id=run_id)
    await store.finish(run_id, RunState.COMPLETED, result=result)
    return events


async def test_runs_are_listed_newest_first_each_once(client: httpx.AsyncClient) -> None:
    """Pages of three have each run once."""
    run_ids = [await submitted(client) for _ in range(7)]
    found = await pages(client, "/runs", limit=3)
    assert [len(page["runs"]) for page in found] == [3, 3, 1]
    listed = [run["run_id"] for page in found for run in page["runs"]]
    assert sorted(listed) == sorted(run_ids)
    # Not compared as text: a time of a whole second is written without its fraction.
    runs = [run for page in found for run in page["runs"]]
    times = [datetime.fromisoformat(run["created_at"]) for run in runs]
    assert times == sorted(times, reverse=True)


async def test_a_listing_is_filtered(client: httpx.AsyncClient) -> None:
    """The filter is by state, by target, or by both."""
    fine = await submitted(client)
    echo = await submitted(client, 1, "echo")
    await client.post(f"/runs/{echo}/cancel")
    for query, expected in (
        ({"target": "echo"}, [echo]),
        ({"state": "pending"}, [fine]),
        ({"state": "cancelled", "target": "echo"}, [echo]),
        ({"state": "cancelled", "target": "fine"}, []),
    ):
        page = (await client.get("/runs", params=query)).json()
        assert [run["run_id"] for run in page["runs"]] == expected


async def test_everybody_lists_their_own_runs_and_an_admin_all(
    guarded: httpx.AsyncClient, callers: Callers
) -> None:
    """A caller without a tenant lists the runs without one."""
    scopes = [Scope.SUBMIT, Scope.READ]
    who = {name: callers.add(name, scopes, name) for name in ("a", "b")}
    who["stranger"] = callers.add("stranger", scopes)
    own: dict[str, set[str]] = {name: set() for name in who}
    for number in range(9):
        name = list(who)[number % 3]
        response = await guarded.post(
            "/submit", json={"target": "fine", "task": {"input": 1}}, headers=who[name]
        )
        own[name].add(response.json()["run_id"])
    who["admin"] = callers.add("admin", [Scope.ADMIN])
    own["admin"] = {run_id for run_ids in own.values() for run_id in run_ids}
    for name, headers in who.items():
        guarded.headers.update(headers)
        found = await pages(guarded, "/runs", limit=2)
        listed = [run["run_id"] for page in found for run in page["runs"]]
        assert sorted(listed) == sorted(own[name])
        assert all(len(page["runs"]) <= 2 for page in found)


async def test_events_come_in_pages_each_once(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """The last page says that the run has ended."""
    await written(fleet, "r", 25)
    found = await pages(client, "/runs/r/events", limit=10)
    assert [len(page["events"]) for page in found] == [10, 10, 5]
    assert [page["ended"] for page in found] == [False, False, True]
    events = [event for page in found for event in page["events"]]
    assert [event["data"] for event in events] == list(range(25))
    assert [event["seq"] for event in events] == list(range(2, 27))
    last = (await client.get("/runs/r/events", params={"after": found[-1]["next"]})).json()
    assert last == {"events": [], "next": found[-1]["next"], "ended": True}


@pytest.mark.parametrize("start", ["", "-1"])
async def test_an_empty_cursor_is_the_start(
    client: httpx.AsyncClient, fleet: Fleet, start: str
) -> None:
    """An empty cursor and -1 mean the same."""
    await written(fleet, "r", 2)
    for end in ("events", "journal"):
        whole = (await client.get(f"/runs/r/{end}")).json()
        assert (await client.get(f"/runs/r/{end}", params={"after": start})).json() == whole


async def test_a_pod_may_give_smaller_pages(fleet: Fleet) -> None:
    """max_page bounds the limit of a request."""
    await written(fleet, "r", 5)
    async with client_of(make_app(fleet, ServerOptions(max_page=2))) as client:
        for path, name in (("/runs/r/events", "events"), ("/runs/r/journal", "entries")):
            page = (await client.get(path, params={"limit": 500})).json()
            assert len(page[name]) == 2


async def test_late_events_are_only_in_the_journal(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """Events that come after the seal are in no page of events."""
    await written(fleet, "r", 1)
    late = RunEvent(type=RunEventType.CUSTOM, run_id="r", name="late")
    await (await fleet.store()).push_event("r", late)
    page = (await client.get("/runs/r/events")).json()
    assert ([event["name"] for event in page["events"]], page["ended"]) == (["0"], True)
    entries = (await client.get("/runs/r/journal")).json()["entries"]
    assert (entries[-1]["late"], entries[-1]["fields"]["name"]) == (True, "late")
    after = (await client.get("/runs/r/events", params={"after": entries[-1]["cursor"]})).json()
    assert (after["events"], after["ended"]) == ([], True)


async def test_a_journal_comes_in_pages_without_the_fencing_token(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """The pages have all entries, in order."""
    async with working(fleet):
        run_id = await submitted(client)
        await fleet.handle(run_id).result(timeout=30)
    found = await pages(client, f"/runs/{run_id}/journal", limit=2)
    entries = [entry for page in found for entry in page["entries"]]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[0]["type"] == "run.created"
    assert all("claim" not in entry["fields"] for entry in entries)


async def test_a_poll_without_a_wait_answers_at_once(client: httpx.AsyncClient) -> None:
    """Its cursor can be used again."""
    run_id = await submitted(client)
    page = (await client.get(f"/runs/{run_id}/events")).json()
    assert (page["events"], page["ended"]) == ([], False)
    again = (await client.get(f"/runs/{run_id}/events", params={"after": page["next"]})).json()
    assert again == page


async def test_a_long_poll_answers_with_the_next_event_and_the_end(
    client: httpx.AsyncClient, fleet: Fleet, pod: Pod
) -> None:
    """It answers as soon as one of them comes."""
    store = await fleet.store()
    await store.create("r", "fine")
    path, query = "/runs/r/events", {"wait": 60}

    async def poll() -> dict[str, Any]:
        polled = asyncio.create_task(client.get(path, params=query))
        await wait_until(lambda: _is(pod.streams.total() == 1), "the poll waits")
        return {"task": polled}

    waiting = await poll()
    await store.append("r", RunEvent(type=RunEventType.CUSTOM, run_id="r", name="one"))
    page = (await waiting["task"]).json()
    assert ([event["name"] for event in page["events"]], page["ended"]) == (["one"], False)
    query["after"] = page["next"]
    waiting = await poll()
    await store.finish("r", RunState.CANCELLED)
    page = (await waiting["task"]).json()
    assert page["events"][-1]["type"] == "run_cancelled"
    assert page["ended"] is True
    assert pod.streams.total() == 0


async def test_a_long_poll_without_news_answers_in_time(client: httpx.AsyncClient) -> None:
    """The answer is an empty page."""
    run_id = await submitted(client)
    page = (await client.get(f"/runs/{run_id}/events", params={"wait": 0.05})).json()
    assert (page["events"], page["ended"]) == ([], False)


async def test_a_long_poll_ends_when_the_pod_drains(client: httpx.AsyncClient, pod: Pod) -> None:
    """The answer is an empty page."""
    run_id = await submitted(client)
    polled = asyncio.create_task(client.get(f"/runs/{run_id}/events", params={"wait": 60}))
    await wait_until(lambda: _is(pod.streams.total() == 1), "the poll waits")
    pod.drain.set()
    assert (await polled).json()["events"] == []


async def test_a_long_poll_whose_client_is_gone_ends(
    fleet: Fleet, client: httpx.AsyncClient
) -> None:
    """Its place among the open streams is free."""
    run_id = await submitted(client)
    app = make_app(fleet)
    poll = exchange(app, "GET", f"/runs/{run_id}/events")
    poll.scope["query_string"] = b"wait=60"
    served = asyncio.create_task(poll.run())
    poll.body(b"", more=False)
    await wait_until(lambda: _is(app.state.pod.streams.total() == 1), "the poll waits")
    poll.hang_up()
    await served
    assert app.state.pod.streams.total() == 0


async def test_a_long_poll_counts_as_an_open_stream(fleet: Fleet) -> None:
    """Over max_streams it is 429; without a wait it is answered."""
    async with client_of(make_app(fleet, ServerOptions(max_streams=0))) as client:
        run_id = await submitted(client)
        response = await client.get(f"/runs/{run_id}/events", params={"wait": 60})
        check_problem(response, 429, "too-many")
        assert response.headers["Retry-After"]
        assert (await client.get(f"/runs/{run_id}/events")).status_code == 200


async def test_polls_alone_reach_the_end_of_an_unsealed_run(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """A poll seals a run that has ended, as a reader of its stream does."""
    store = await fleet.store()
    await store.create("r", "fine")
    await store.set_state("r", RunState.COMPLETED)

    async def has_ended() -> bool:
        return bool((await client.get("/runs/r/events")).json()["ended"])

    await wait_until(has_ended, "the run's events end")


async def test_trimmed_events_are_a_gap_with_a_way_on(space: Space, gate: Gate) -> None:
    """The answer is 410 with a cursor to resume from."""
    async with (
        Fleet(space.url, key_prefix=space.prefix, max_events=1_000) as fleet,
        client_of(make_app(fleet)) as client,
    ):
        store = await fleet.store()
        await store.create("r", "fine")
        first = (await client.get("/runs/r/journal")).json()["entries"][0]["cursor"]
        event = RunEvent(type=RunEventType.CUSTOM, run_id="r", name="x")
        for _ in range(12):
            await store.append("r", *[event] * 200)
        with unchanged(space):
            response = await client.get("/runs/r/events", params={"after": first})
            resume = check_problem(response, 410, "cursor-gap")["resume_cursor"]
            page = await client.get("/runs/r/events", params={"after": resume})
            assert page.json()["events"]


async def _is(condition: bool) -> bool:
    return condition
