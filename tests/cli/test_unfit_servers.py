"""Processes on a server that refuses them: what ends them at the start, and what they wait for."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from murmur_streams.testing.faults import ServerHandle
from tests.cli.conftest import CommandLine
from tests.cli.test_serve import ask, serving
from tests.cli.waiting import next_object, objects, wait_until
from tests.stores.faults.servers import spare_server

PASSWORD = "the-password"
COMMANDS = (("serve", "fleet_app:fleet", "--port", "0"), ("worker", "fleet_app:fleet"))


@pytest.fixture
async def spare(tmp_path: Path) -> AsyncIterator[ServerHandle]:
    async with spare_server(tmp_path / "spare", password=PASSWORD) as server:
        yield server


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: argv[0])
def test_refused_credentials_end_the_start(
    line: CommandLine, spare: ServerHandle, argv: tuple[str, ...]
) -> None:
    """A pod and a worker end at once with exit code 2 and one sentence."""
    refused = line.run(*argv, "--json", MURMUR_URL=spare.url(":wrong"))
    assert refused.returncode == 2
    [reported] = objects(refused.stderr)
    assert "check the URL's credentials" in reported["message"]


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: argv[0])
async def test_a_replica_is_waited_for_at_the_start(
    line: CommandLine,
    spare: ServerHandle,
    argv: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pod and a worker that begin on a replica are alive, unready, and then ready."""
    monkeypatch.setenv("MURMUR_URL", spare.url(f":{PASSWORD}"))
    async with spare.client() as admin:
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        if argv[0] == "serve":
            process, url = serving(line)
            alive = "/healthz"
        else:
            process = line.start(*argv, "--json", "--health-port", "0")
            url, alive = str(next_object(process, "worker")["health"]), "/livez"
        assert ask(url + alive)[0] == 200
        assert ask(f"{url}/readyz")[0] == 503
        await admin.execute_command("REPLICAOF", "NO", "ONE")
        wait_until(lambda: ask(f"{url}/readyz")[0] == 200, "it is ready")
        process.terminate()
        assert process.wait(60) == 0


def metrics(url: str) -> list[tuple[str, float]]:
    """The metrics of a worker: name with its labels, and value."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310  # our own
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
        return [(" ".join([each.name, *each.labels.values()]), each.value) for each in samples]


@pytest.mark.parametrize("more", [(), ("--processes", "2")], ids=["alone", "two"])
async def test_a_worker_reports_an_eviction_policy(
    line: CommandLine, spare: ServerHandle, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its probes stay good, with a warning, and its metric is 1."""
    monkeypatch.setenv("MURMUR_URL", spare.url(f":{PASSWORD}"))
    async with spare.client() as admin:
        await admin.config_set("maxmemory-policy", "volatile-lru")
        process = line.start("worker", "fleet_app:fleet", "--json", "--health-port", "0", *more)
        url = str(next_object(process, "health")["health"])
        wait_until(lambda: ask(f"{url}/readyz")[0] == 200, "the worker is ready")
        assert "maxmemory-policy noeviction" in json.dumps(ask(f"{url}/readyz")[1])
        found = metrics(url)
        assert ("murmur_store_may_evict", 1) in found
        assert ("murmur_store_warning eviction", 1) in found
        assert ("murmur_store_warning replicas", 0) in found
        assert ("murmur_store_rewinds_total", 0) in found
        assert "warning: " in line.run("workers").stderr
        process.terminate()
        assert process.wait(60) == 0
