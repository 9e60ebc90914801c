"""Probes and metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from murmur_streams import Fleet
from murmur_streams.fleet.logs import LogThrottle
from murmur_streams.server import make_app, responses
from murmur_streams.server.auth import Principal, Scope
from murmur_streams.server.pod import Pod
from murmur_streams.server.routes import health
from murmur_streams.stores.redis.scripts import LOADED, load_library
from murmur_streams.stores.redis.store import RedisRunStore
from tests.server.serving import Callers, check_problem, client_of, submitted, task, unchanged
from tests.servers import Space, forget_scripts
from tests.stores.faults.refusals import rotate
from tests.stores.faults.servers import spare_server

SAFE = ("appendonly", "yes")
"""The settings of a server about which there is nothing to warn of."""


async def numbers(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """The metrics, by name and the values of their labels."""
    response = await client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@pytest.mark.parametrize("path", ["/health", "/healthz"])
async def test_a_process_that_answers_is_alive(client: httpx.AsyncClient, path: str) -> None:
    """Both paths answer 200."""
    response = await client.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_a_pod_with_a_store_is_ready(client: httpx.AsyncClient) -> None:
    """/readyz answers 200."""
    response = await client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})


async def test_a_pod_that_drains_is_not_ready(client: httpx.AsyncClient, pod: Pod) -> None:
    """/readyz answers 503 with Retry-After."""
    pod.drain.set()
    response = await client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"status": "shutting_down"})
    assert response.headers["Retry-After"]


async def test_a_pod_without_its_store_is_alive_but_not_ready(space: Space) -> None:
    """/healthz stays 200."""
    fleet = Fleet("redis://127.0.0.1:1", key_prefix=space.prefix)
    async with fleet, client_of(make_app(fleet)) as client:
        response = await client.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "store_unreachable"})
        assert (await client.get("/healthz")).status_code == 200


async def test_a_store_that_does_not_answer_in_time_is_not_waited_for(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/readyz answers 503 after its own limit."""
    monkeypatch.setattr(health, "READY_SECONDS", 0)
    assert (await client.get("/readyz")).json() == {"status": "store_unreachable"}


async def test_scripts_that_are_gone_are_loaded_again(
    client: httpx.AsyncClient, space: Space
) -> None:
    """/readyz loads them, as a library on a server with functions."""
    forget_scripts(space.admin)
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    library = load_library()
    assert space.admin.fcall(library.function(LOADED), 0) == b"OK"


async def test_a_pod_is_unready_on_a_server_that_others_filled(
    client: httpx.AsyncClient, space: Space
) -> None:
    """After a FLUSHALL others fixed another number of partitions: the pod writes nothing there."""
    with space.admin.pipeline(transaction=True) as pipeline:
        pipeline.flushall()
        pipeline.hset(space.keys.meta, "schema_version", "1")
        pipeline.hset(space.keys.meta, "partitions", "3")
        pipeline.execute()
    with unchanged(space):
        response = await client.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "store_unreachable"})
        refused = await client.post("/submit", json=task())
        check_problem(refused, 503, "unavailable")


async def test_requests_are_counted_by_the_template_of_their_route(
    client: httpx.AsyncClient,
) -> None:
    """No run id is in a label."""
    run_ids = [await submitted(client) for _ in range(2)]
    for run_id in run_ids:
        await client.get(f"/runs/{run_id}")
    await client.get("/nowhere")
    await client.request("BREW", "/runs")
    found = await numbers(client)
    requests = "murmur_http_requests_total"
    # By method, route and status.
    assert found[requests, "POST", "/submit", "200"] == 2
    assert found[requests, "GET", "/runs/{run_id}", "200"] == 2
    assert found[requests, "GET", "unmatched", "404"] == 1
    assert found[requests, "other", "/runs", "405"] == 1
    assert found["murmur_http_request_seconds_count", "GET", "/runs/{run_id}"] == 2
    assert found["murmur_runs_submitted_total",] == 2
    text = (await client.get("/metrics")).text
    assert not [run_id for run_id in run_ids if run_id in text]


async def test_open_streams_are_counted(client: httpx.AsyncClient, pod: Pod) -> None:
    """The metric of open streams has their number."""
    who = Principal("somebody", frozenset({Scope.READ}))
    with pod.streaming(who), pod.streaming(who):
        assert (await numbers(client))["murmur_open_streams",] == 2
    assert (await numbers(client))["murmur_open_streams",] == 0


async def test_each_app_counts_for_itself(fleet: Fleet, client: httpx.AsyncClient) -> None:
    """Two apps in a process have separate metrics."""
    await submitted(client)
    async with client_of(make_app(fleet)) as other:
        assert (await numbers(other))["murmur_runs_submitted_total",] == 0


async def test_metrics_need_the_scope_to_read_where_there_are_tokens(
    guarded: httpx.AsyncClient, callers: Callers
) -> None:
    """The probes need none."""
    check_problem(await guarded.get("/metrics"), 401)
    submitter = callers.add("submitter", [Scope.SUBMIT])
    check_problem(await guarded.get("/metrics", headers=submitter), 403)
    reader = callers.add("reader", [Scope.READ])
    assert (await guarded.get("/metrics", headers=reader)).status_code == 200
    for path in ("/health", "/healthz", "/readyz"):
        assert (await guarded.get(path)).status_code == 200


async def test_an_eviction_policy_is_a_warning_and_a_metric(tmp_path: Path) -> None:
    """A pod on a server that begins to evict runs stays ready, and says what to mend."""
    async with spare_server(tmp_path / "spare", *SAFE) as server, server.client() as admin:
        fleet = Fleet(server.url(), key_prefix="test-eviction")
        async with fleet, client_of(make_app(fleet)) as client:
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            assert (await numbers(client))["murmur_store_may_evict",] == 0
            await admin.config_set("maxmemory-policy", "allkeys-lru")
            await look_now(fleet)
            response = await client.get("/readyz")
            assert (response.status_code, response.json()["status"]) == (200, "ready")
            assert "set maxmemory-policy noeviction" in response.json()["warning"]
            found = await numbers(client)
            assert found["murmur_store_may_evict",] == 1
            assert found["murmur_store_warning", "eviction"] == 1
            assert found["murmur_store_warning", "persistence"] == 0


async def test_a_loss_is_a_metric(tmp_path: Path) -> None:
    """A pod counts how often its server was found to have lost writes."""
    async with spare_server(tmp_path / "spare") as server, server.client() as admin:
        fleet = Fleet(server.url(), key_prefix="test-losses")
        async with fleet, client_of(make_app(fleet)) as client:
            store = await fleet.store()
            for count in (0, 1):
                await store.submit(f"run-{count}", "work")
                assert (await numbers(client))["murmur_store_rewinds_total",] == count
                await admin.flushall()


async def look_now(fleet: Fleet) -> None:
    """Do what the store does once a minute."""
    store = await fleet.store()
    assert isinstance(store, RedisRunStore)
    await store._server.nodes.all[0].preparation.check.while_used((), may_ask=True)


async def test_refused_credentials_are_503_at_once_and_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the password is refused the pod is unready and each request fails at once."""
    async with spare_server(tmp_path / "spare", *SAFE) as server, server.client() as admin:
        fleet = Fleet(server.url("app:one"), key_prefix="test-credentials")
        await rotate(admin, "one")
        async with fleet, client_of(make_app(fleet)) as client:
            fleet.agent(nothing)
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            await rotate(admin, "two")
            async with asyncio.timeout(10):
                for _ in range(3):
                    response = await client.get("/readyz")
                    assert (response.status_code, response.json()) == (503, UNREACHABLE)
                    check_problem(await client.get("/runs/r-1"), 503, "unavailable")
                    body = {"target": "nothing", "task": {"input": None}}
                    check_problem(await client.post("/submit", json=body), 503, "unavailable")
            said = [
                record.getMessage()
                for record in caplog.records
                if record.getMessage().startswith("the pod is not ready")
            ]
            assert len(said) == 1
            assert "refused the user name or password" in said[0]
            await rotate(admin, "one")
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            await submitted(client, None, "nothing")


UNREACHABLE = {"status": "store_unreachable"}
REFUSING = {
    "a replica": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "is a replica"),
    "full": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "out of memory"),
    "too few replicas": (
        "CONFIG SET min-replicas-to-write 1",
        "CONFIG SET min-replicas-to-write 0",
        "NOREPLICAS",
    ),
}


@pytest.mark.parametrize("name", REFUSING)
async def test_a_pod_is_unready_while_writes_are_refused(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers reads alone is not one to send submissions to; the log says why."""
    monkeypatch.setattr(
        responses, "_outage_log", LogThrottle(responses.logger, "requests end with 503")
    )
    begin, end, why = REFUSING[name]
    async with spare_server(tmp_path / "spare", *SAFE) as server, server.client() as admin:
        fleet = Fleet(server.url(), key_prefix="test-refusing", retry_seconds=0.2)
        async with fleet, client_of(make_app(fleet)) as client:
            fleet.agent(nothing)
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            await admin.execute_command(*begin.split())
            for _ in range(3):
                response = await client.get("/readyz")
                assert (response.status_code, response.json()) == (503, UNREACHABLE)
                body = {"target": "nothing", "task": {"input": None}}
                check_problem(await client.post("/submit", json=body), 503, "unavailable")
            for beginning in ("the pod is not ready", "requests end with 503"):
                said = [text for text in caplog.messages if text.startswith(beginning)]
                assert len(said) == 1
                assert why in said[0]
            await admin.execute_command(*end.split())
            assert (await client.get("/readyz")).json() == {"status": "ready"}


async def nothing() -> None:
    """An agent."""
