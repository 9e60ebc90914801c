"""The AgentServer of murmur-runtime, as it is published, on our store: over HTTP, from outside."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.testing import wait_until
from tests.interop.conftest import AgentServer, Serve
from tests.servers import Space

RUNS = 300
AT_ONCE = 20
SHORT_SECONDS = 0.5


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


@pytest.mark.slow
async def test_no_stream_lacks_its_last_event_or_repeats_one(
    serve: Serve,
) -> None:
    """No live stream of many runs lacks its last event or yields one twice."""
    (server,) = serve("ours")
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[str, ...]:
        async with slots:
            run_id = await server.submit("speaker", str(number))
            return tuple(types(await server.stream(run_id)))

    seen = Counter(await asyncio.gather(*map(one, range(RUNS))))
    assert seen == {("agent_started", "agent_completed"): RUNS}


async def test_two_servers_on_one_redis_know_each_others_runs(serve: Serve, tmp_path: Path) -> None:
    """One executes, the other streams and reads."""
    one, other = serve("ours", "ours")
    go = tmp_path / "go"
    run_id = await one.submit("waiter", str(go))
    events = other.events(run_id)
    assert (await anext(events))["type"] == "agent_started"
    assert (await other.get(f"/runs/{run_id}/status"))["state"] == "running"
    early = await other.client.get(f"/runs/{run_id}/result")
    assert early.status_code == 409
    go.touch()
    assert types([event async for event in events]) == ["agent_completed"]
    status = await other.get(f"/runs/{run_id}/status")
    assert status == {"run_id": run_id, "state": "completed", "progress": None}
    result = await other.get(f"/runs/{run_id}/result")
    assert (result["success"], result["output"]) == (True, {"title": "found", "pages": 3})
    assert result == await one.get(f"/runs/{run_id}/result")
    assert types(await one.stream(run_id)) == ["agent_started", "agent_completed"]


async def test_a_run_can_be_cancelled_on_another_server(
    serve: Serve, space: Space, tmp_path: Path
) -> None:
    """A run of one server is cancelled through another server, and stays cancelled."""
    one, other = serve("ours", "ours")
    go = tmp_path / "go"
    run_id = await one.submit("waiter", str(go))
    events = one.events(run_id)
    seen = [await anext(events)]
    answer = await other.client.post(f"/runs/{run_id}/cancel")
    assert answer.json() == {"state": "cancelled"}
    seen += [event async for event in events]
    assert types(seen) == ["agent_started", "run_cancelled"]
    go.touch()
    async with space.store() as store:

        async def said_late() -> bool:
            return [entry.type async for entry in store.journal(run_id)][-1] == "agent_completed"

        await wait_until(said_late, "the executing server reports its end")
        assert await store.get_result(run_id) is None
    for server in (one, other):
        assert (await server.get(f"/runs/{run_id}/status"))["state"] == "cancelled"
        assert types(await server.stream(run_id)) == ["agent_started", "run_cancelled"]


async def test_the_runs_of_a_killed_server_fail_in_their_streams(
    serve: Serve, tmp_path: Path
) -> None:
    """The runs of a killed server fail, and their streams end with that failure."""
    doomed, other = serve("ours", "ours", lease_seconds=SHORT_SECONDS)
    run_ids = [await doomed.submit("waiter", str(tmp_path / "never")) for _ in range(3)]
    streams = [other.events(run_id) for run_id in run_ids]
    for events in streams:
        assert (await anext(events))["type"] == "agent_started"
    doomed.kill()
    for run_id, events in zip(run_ids, streams, strict=True):
        last = [event async for event in events]
        assert [(each["type"], each["agent"], each["error"]) for each in last] == [
            ("agent_failed", "waiter", "owner_lost")
        ]
        assert (await other.get(f"/runs/{run_id}/status"))["state"] == "failed"
        result = await other.get(f"/runs/{run_id}/result")
        assert (result["success"], result["error"]) == (False, "owner_lost")
        assert (await other.stream(run_id))[1:] == last


async def test_a_server_keeps_its_runs_alive_for_many_leases(
    serve: Serve, space: Space, tmp_path: Path
) -> None:
    """A long run is not failed as lost."""
    one, other = serve("ours", "ours", lease_seconds=SHORT_SECONDS)
    go = tmp_path / "go"
    run_id = await one.submit("waiter", str(go))
    await other.get(f"/runs/{run_id}/status")
    deadlines: set[float | None] = set()

    def often_renewed() -> bool:
        deadlines.add(space.admin.zscore(space.keys.owners(0), run_id))
        return len(deadlines - {None}) > 6

    await wait_until(often_renewed, "the owner moves its deadline on")
    go.touch()
    assert types(await other.stream(run_id)) == ["agent_started", "agent_completed"]


CASES = {
    "tester": "completed",
    "a name: any text": "completed",
    "failing": "failed",
    "pair": "completed",
    "uneven": "failed",
    "broken": "failed",
}
"""Agents and groups, and how their runs end."""
GROUPS = {"pair", "uneven", "broken"}
DRAWN = {"run_id", "task_id", "request_id", "trace_id", "timestamp", "duration_ms", "message"}
"""The members whose values differ each time."""


@pytest.mark.leaves("theirs:*")
@pytest.mark.parametrize("target", CASES)
async def test_every_server_replies_as_with_murmurs_own_store(serve: Serve, target: str) -> None:
    """Every server replies about a run exactly as it does with murmur's own store."""
    one, other, theirs = serve("ours", "ours", "theirs")
    ours = await story(one, target)
    assert ours["status"]["state"] == CASES[target]
    assert await replies_of(other, ours["run_id"]) == ours
    assert alike(ours) == alike(await story(theirs, target))


async def story(server: AgentServer, target: str) -> dict[str, Any]:
    """Have a run executed; everything that the server reports of it."""
    run_id = await server.submit(target, "a text", is_group=target in GROUPS)

    async def is_over() -> bool:
        # Live, a stream of their store may lack the last event.
        return len(await server.stream(run_id)) == 2

    await wait_until(is_over, "the run has ended")
    return await replies_of(server, run_id)


async def replies_of(server: AgentServer, run_id: str) -> dict[str, Any]:
    result = await server.client.get(f"/runs/{run_id}/result")
    return {
        "run_id": run_id,
        "status": await server.get(f"/runs/{run_id}/status"),
        "result": (result.status_code, {**result.json(), "request_id": None}),
        "events": await server.stream(run_id),
    }


def alike(value: Any) -> Any:
    """The same without what is drawn anew for each run."""
    if isinstance(value, dict):
        return {name: alike(each) for name, each in value.items() if name not in DRAWN}
    if isinstance(value, (list, tuple)):
        return [alike(each) for each in value]
    return value


async def test_runs_that_are_not_there_are_answered_as_ever(serve: Serve) -> None:
    """The answers are the 404 of murmur-runtime."""
    (server,) = serve("ours")
    for run_id in ("no-such-run", "no%20id%20of%20ours"):
        await refused(server, run_id)


async def refused(server: AgentServer, run_id: str) -> None:
    for verb, what in (("GET", "status"), ("GET", "result"), ("GET", "stream"), ("POST", "cancel")):
        answer = await server.client.request(verb, f"/runs/{run_id}/{what}")
        assert (answer.status_code, answer.json()["error"]) == (404, "RegistryError")


async def test_a_deleted_run_is_not_there(serve: Serve, space: Space) -> None:
    """Each route answers as for an unknown run."""
    (server,) = serve("ours")
    run_id = (await story(server, "tester"))["run_id"]
    assert (await server.get(f"/runs/{run_id}/result"))["output"] == {"title": "tested", "pages": 7}
    async with space.store() as store:
        assert await store.delete(run_id)
    await refused(server, run_id)
