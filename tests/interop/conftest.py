"""Processes with murmur-runtime on their path: it is not in the environment of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Space

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(sys.prefix) / "interop"
"""Where `make` puts murmur-runtime and what it needs."""
LEASE_SECONDS = 3600.0
PATIENCE_SECONDS = 60.0


@dataclass(slots=True)
class AgentServer:
    """A process that serves agents over HTTP."""

    client: httpx.AsyncClient
    maker: ServerMaker
    number: str
    lives: bool = True

    def kill(self) -> None:
        """SIGKILL, once."""
        if self.lives:
            self.maker.order("kill", self.number)
        self.lives = False

    async def submit(self, target: str, text: str = "", *, is_group: bool = False) -> str:
        """Submit a task; the run's id."""
        body = {"target": target, "is_group": is_group, "task": {"input": text}}
        answer = await self.client.post("/submit", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["run_id"]

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def stream(self, run_id: str) -> list[dict[str, Any]]:
        """Read a run's stream to its end."""
        return [event async for event in self.events(run_id)]

    async def events(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        async with self.client.stream("GET", f"/runs/{run_id}/stream") as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))


Serve = Callable[..., list[AgentServer]]


def environment() -> dict[str, str]:
    """With murmur-runtime, before the packages of the tests' own environment."""
    if not (PACKAGES / "murmur").is_dir():
        pytest.skip(f"no murmur-runtime in {PACKAGES}: make {PACKAGES.parent.name}/.stamp-interop")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    return inherited | {"PYTHONPATH": os.pathsep.join((str(PACKAGES), str(ROOT)))}


class ServerMaker:
    """The process that makes servers by copying itself: murmur takes long to import."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.interop.agent_server"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, text=True
        )

    def order(self, *arguments: object) -> list[str]:
        """Give an order and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*arguments, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline().split()
        assert answer, "it has ended"
        return answer

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def maker() -> Iterator[ServerMaker]:
    made = ServerMaker()
    yield made
    made.close()


@pytest.fixture
async def serve(space: Space, maker: ServerMaker) -> AsyncIterator[Serve]:
    """Starts AgentServers on one Redis, each with our store or with murmur's own."""
    started: list[AgentServer] = []

    def begin(*whose: str, lease_seconds: float = LEASE_SECONDS) -> list[AgentServer]:
        return [start(each, lease_seconds) for each in whose]

    def start(whose: str, lease_seconds: float) -> AgentServer:
        prefix = space.prefix if whose == "ours" else whose
        number, port = maker.order("serve", space.url, prefix, lease_seconds, whose)
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False
        )
        started.append(AgentServer(client, maker, number))
        return started[-1]

    yield begin
    for server in started:
        await server.client.aclose()
        server.kill()
