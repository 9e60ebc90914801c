"""Processes on a server that refuses them: what ends them at the start, and what they wait for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.test_serve import ask, serving
from tests.cli.waiting import next_object, objects, wait_until
from tests.stores.faults.servers import SpareServer, spare_server

PASSWORD = "the-password"
COMMANDS = (("serve", "fleet_app:fleet", "--port", "0"), ("worker", "fleet_app:fleet"))


@pytest.fixture
async def spare(tmp_path: Path) -> AsyncIterator[SpareServer]:
    async with spare_server(tmp_path / "spare", password=PASSWORD) as server:
        yield server


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_refused_credentials_end_the_start(
    line: CommandLine, spare: SpareServer, words: tuple[str, ...]
) -> None:
    """A pod and a worker end at once with exit code 2 and one sentence."""
    refused = line.run(*words, "--json", MURMUR_URL=spare.url(":wrong"))
    assert refused.returncode == 2
    [told] = objects(refused.stderr)
    assert "check the URL's credentials" in told["message"]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
async def test_a_replica_is_waited_for_at_the_start(
    line: CommandLine,
    spare: SpareServer,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pod and a worker that begin on a replica are alive, unready, and then ready."""
    monkeypatch.setenv("MURMUR_URL", spare.url(f":{PASSWORD}"))
    async with spare.client() as admin:
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        if words[0] == "serve":
            process, url = serving(line)
            alive = "/healthz"
        else:
            process = line.start(*words, "--json", "--health-port", "0")
            url, alive = str(next_object(process, "worker")["health"]), "/livez"
        assert ask(url + alive)[0] == 200
        assert ask(f"{url}/readyz")[0] == 503
        await admin.execute_command("REPLICAOF", "NO", "ONE")
        wait_until(lambda: ask(f"{url}/readyz")[0] == 200, "it is ready")
        process.terminate()
        assert process.wait(60) == 0
