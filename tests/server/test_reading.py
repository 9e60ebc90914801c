"""The routes of one run: state, snapshot, result, cancel, delete."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from murmur_streams import Fleet
from murmur_streams.core.model.results import AgentResult, GroupResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.server.pod import Pod
from murmur_streams.stores.redis.store import redis_only
from tests.fleet.working import working
from tests.server.serving import Gate, check_problem, submitted, task, unchanged
from tests.servers import Space

SNAPSHOT = {
    "run_id", "target", "state", "version", "attempt", "progress", "created_at", "started_at",
    "ended_at", "due_at", "deadline_at", "error", "cancel_requested_at", "cancel_reason", "worker",
    "error_type", "host", "priority", "metadata", "tenant", "cursor", "failures", "errors",
    "cancel_delivered_at", "input_size", "result_size", "checkpoint_size",
}  # fmt: skip
OUTCOME = {"agent_name", "task_id", "success", "output", "error", "error_type", "metadata"}


async def ended(fleet: Fleet, target: str, given: object = None) -> Run:
    """A run that a worker has executed."""
    async with working(fleet):
        handle = await fleet.submit(target, given)
        await handle.result(timeout=30)
    return await handle.snapshot()


async def test_a_status_is_what_old_clients_know(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """It has run_id, state and progress."""
    run_id = await submitted(client)
    response = await client.get(f"/runs/{run_id}/status")
    assert response.json() == {"run_id": run_id, "state": "pending", "progress": None}
    store = await fleet.store()
    await store.set_state(run_id, RunState.RUNNING)
    await store.update_progress(run_id, RunProgress(total=3, completed=1))
    response = await client.get(f"/runs/{run_id}/status")
    progress = {"total": 3, "completed": 1, "failed": 0, "running": 0}
    assert response.json() == {"run_id": run_id, "state": "running", "progress": progress}


async def test_a_snapshot_has_everything_but_the_fencing_token(
    client: httpx.AsyncClient, fleet: Fleet, gate: Gate
) -> None:
    """The fencing token would let a reader write as the worker."""
    async with working(fleet):
        run_id = await submitted(client, 5, "patient", deadline=100, priority=2)
        await gate.entered.wait()
        run = await fleet.handle(run_id).snapshot()
        response = await client.get(f"/runs/{run_id}")
        gate.open.set()
    body = response.json()
    assert body.keys() == SNAPSHOT
    assert run.claim is not None
    assert run.claim not in response.text
    assert (body["state"], body["attempt"], body["priority"]) == ("running", 1, 2)
    assert (body["worker"], body["host"], body["metadata"]) == (run.worker, run.host, None)
    assert body["created_at"].endswith("Z")
    assert body["deadline_at"] > body["created_at"]


async def test_a_snapshot_that_is_known_is_not_sent_again(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """If-None-Match gives 304, in each of its forms."""
    run_id = await submitted(client)
    first = await client.get(f"/runs/{run_id}")
    tag = first.headers["ETag"]
    assert tag.startswith('"')
    for known in (tag, f"W/{tag}", f'"other", {tag}', f'W/"a,b",{tag}', "*", f" {tag} "):
        again = await client.get(f"/runs/{run_id}", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag), known
    for other in ('"other"', tag.strip('"'), 'W/"*"', "", "*, *"):
        again = await client.get(f"/runs/{run_id}", headers={"If-None-Match": other})
        assert (again.status_code, again.content) == (200, first.content), other
    await fleet.handle(run_id).cancel()
    changed = await client.get(f"/runs/{run_id}", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


async def test_a_result_is_a_conflict_until_the_run_has_ended(client: httpx.AsyncClient) -> None:
    """The answer is 409."""
    run_id = await submitted(client)
    check_problem(await client.get(f"/runs/{run_id}/result"), 409, "run-not-ended")


async def test_a_result_is_what_old_clients_know(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """With the fields that murmur-runtime has."""
    run = await ended(fleet, "fine", 1)
    body = (await client.get(f"/runs/{run.run_id}/result")).json()
    assert body.keys() == OUTCOME
    assert (body["agent_name"], body["task_id"]) == ("fine", run.run_id)
    assert (body["success"], body["output"], body["error"]) == (True, 2, None)


async def test_an_output_of_nothing_is_a_success(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """The output is null, and so is the error."""
    run = await ended(fleet, "idle")
    body = (await client.get(f"/runs/{run.run_id}/result")).json()
    assert (body["success"], body["output"], body["error"]) == (True, None, None)


async def test_a_failed_runs_result_has_no_traceback(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """It has the message and the type of the error."""
    run = await ended(fleet, "broken", "x")
    response = await client.get(f"/runs/{run.run_id}/result")
    assert response.status_code == 200
    body = response.json()
    assert (body["success"], body["output"]) == (False, None)
    assert body["error"] == "secret of the inside x"
    assert "Traceback" not in response.text


async def test_a_cancelled_run_answers_with_its_error(client: httpx.AsyncClient) -> None:
    """The error has the reason of the cancel."""
    run_id = await submitted(client)
    await client.post(f"/runs/{run_id}/cancel", json={"reason": "enough"})
    response = await client.get(f"/runs/{run_id}/result")
    assert response.status_code == 200
    assert response.json()["success"] is False
    assert response.json()["error"] == f"run '{run_id}' was cancelled: enough"


async def test_a_run_that_failed_without_a_result_has_its_error(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """The error is the text that the run ended with."""
    store = await fleet.store()
    await store.create("bare", "fine")
    await store.finish("bare", RunState.FAILED, error="owner_lost")
    body = (await client.get("/runs/bare/result")).json()
    assert (body["success"], body["error"]) == (False, "owner_lost")


async def test_the_result_of_a_group_has_its_outcomes_by_name(
    client: httpx.AsyncClient, fleet: Fleet
) -> None:
    """Each member has its outcome."""
    store = await fleet.store()
    await store.create("crew", "crew")
    leaves = {
        name: AgentResult(output=output, error=error, agent_name=name, task_id=name)
        for name, output, error in (("a", 1, None), ("b", None, ValueError("no")))
    }
    await store.finish("crew", RunState.COMPLETED, result=GroupResult(outputs=leaves))
    body = (await client.get("/runs/crew/result")).json()
    assert body.keys() == {"group", "outputs", "success", "metadata"}
    assert (body["group"], body["success"]) == (True, False)
    assert body["outputs"]["a"].keys() == OUTCOME
    assert body["outputs"]["b"]["error"] == "no"


async def test_a_damaged_runs_answer_hides_the_damage(
    client: httpx.AsyncClient, space: Space, fleet: Fleet
) -> None:
    """The answer has no stored value."""
    run_id = await submitted(client)
    key = redis_only(await fleet.store())._keys.run(run_id)
    space.admin.hset(key, "version", "what?")
    response = await client.get(f"/runs/{run_id}")
    check_problem(response, 500, "run-damaged")
    assert "what?" not in response.text
    space.admin.hset(key, "version", "1")


async def test_a_waiting_run_is_cancelled_at_once(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """A second cancel gets the same answer."""
    run_id = await submitted(client)
    response = await client.post(f"/runs/{run_id}/cancel")
    assert response.json() == {"state": "cancelled", "how": "pending"}
    again = await client.post(f"/runs/{run_id}/cancel", json={"reason": "twice"})
    assert again.json() == {"state": "cancelled", "how": "pending"}
    assert (await fleet.handle(run_id).snapshot()).cancel_reason is None


async def test_a_run_that_has_completed_stays_so(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """The answer has its state."""
    run = await ended(fleet, "fine", 1)
    response = await client.post(f"/runs/{run.run_id}/cancel", headers={"Prefer": "wait=5"})
    assert response.status_code == 200
    assert response.json() == {"state": "completed"}


async def test_a_running_run_is_cancelled_while_one_waits(
    client: httpx.AsyncClient, fleet: Fleet, gate: Gate
) -> None:
    """With Prefer: wait the answer has the end."""
    async with working(fleet):
        run_id = await submitted(client, 1, "patient")
        await gate.entered.wait()
        response = await client.post(
            f"/runs/{run_id}/cancel", json={"reason": "enough"}, headers={"Prefer": "wait=30"}
        )
    assert response.headers["Preference-Applied"] == "wait=30"
    assert response.json() == {"state": "cancelled", "how": "handler"}
    body = (await client.get(f"/runs/{run_id}")).json()
    assert body["cancel_reason"] == "enough"
    assert body["cancel_requested_at"] is not None


async def test_a_cancel_asks_and_does_not_wait(client: httpx.AsyncClient, fleet: Fleet) -> None:
    """Without it the answer is the state at the request."""
    run_id = await submitted(client)
    await (await fleet.store()).set_state(run_id, RunState.RUNNING)
    response = await client.post(f"/runs/{run_id}/cancel")
    assert response.json() == {"state": "running"}


async def test_what_runs_is_deleted_by_force_alone(client: httpx.AsyncClient, space: Space) -> None:
    """Otherwise 409, and nothing changes."""
    run_id = await submitted(client)
    with unchanged(space):
        check_problem(await client.delete(f"/runs/{run_id}"), 409, "run-not-ended")
        check_problem(await client.delete(f"/runs/{run_id}?force=maybe"), 422, "invalid")
    response = await client.delete(f"/runs/{run_id}?force=true")
    assert (response.status_code, response.content) == (204, b"")
    check_problem(await client.get(f"/runs/{run_id}"), 404, "run-not-found")
    check_problem(await client.delete(f"/runs/{run_id}?force=true"), 404, "run-not-found")


async def test_an_ended_run_is_deleted(client: httpx.AsyncClient) -> None:
    """The answer is 204."""
    run_id = await submitted(client)
    await client.post(f"/runs/{run_id}/cancel")
    assert (await client.delete(f"/runs/{run_id}")).status_code == 204


async def test_a_wait_for_a_deleted_run_ends(
    client: httpx.AsyncClient, fleet: Fleet, pod: Pod, gate: Gate
) -> None:
    """The waiting caller gets 404."""
    async with working(fleet):
        run_id = "gone"
        waiting = asyncio.create_task(
            client.post(
                "/submit", json=task(1, "patient", run_id=run_id), headers={"Prefer": "wait=60"}
            )
        )
        await gate.entered.wait()
        await client.delete(f"/runs/{run_id}?force=true")
        check_problem(await waiting, 404, "run-not-found")
    assert pod.streams.total() == 0


@pytest.mark.parametrize("path", ["", "/status", "/result", "/events", "/journal"])
async def test_reading_changes_nothing(
    client: httpx.AsyncClient, fleet: Fleet, space: Space, path: str
) -> None:
    """No route that reads a run writes to the store."""
    run = await ended(fleet, "fine", 1)
    with unchanged(space):
        response = await client.get(f"/runs/{run.run_id}{path}")
        assert response.status_code == 200
        assert json.loads(response.content)
