"""Pods as processes, on the server of the test."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pods.balancer import free_ports
from tests.servers import Space
from tests.warm import ROOT, WarmProcess

PATIENCE_SECONDS = 45.0


class Pods:
    """``murmur-streams serve``, several times; what still runs at the end of the test is killed."""

    def __init__(self, space: Space, folder: Path) -> None:
        self._space = space
        self._folder = folder
        self._started: list[WarmProcess] = []

    def start(self, port: int, *arguments: str) -> WarmProcess:
        """Start one, without waiting for it."""
        return self._run(port, "murmur_streams", *serve(port), *arguments)

    def start_hasty(self, port: int) -> WarmProcess:
        """Start one whose streams and waits end at once."""
        return self._run(port, "tests.pods.hasty_pod", str(port))

    def _run(self, port: int, module: str, *arguments: str) -> WarmProcess:
        environ = {name: text for name, text in os.environ.items() if "MURMUR" not in name}
        environ |= {"MURMUR_URL": self._space.url, "MURMUR_KEY_PREFIX": self._space.prefix}
        with Path(os.devnull).open("rb") as nothing, self.log(port).open("ab") as log:
            pod = WarmProcess(
                module, *arguments, cwd=ROOT, env=environ, stdin=nothing, stdout=log, stderr=log
            )
        self._started.append(pod)
        return pod

    def log(self, port: int) -> Path:
        """The log of the pod on this port."""
        return self._folder / f"pod-{port}.log"

    async def ready(self, port: int) -> None:
        """Wait until it takes requests."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            # Only the pod knows: nothing here could set an Event.
            while not await asyncio.to_thread(_is_ready, port):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def started(self, count: int, *arguments: str) -> dict[int, WarmProcess]:
        """So many pods that take requests, by port."""
        pods = {port: self.start(port, *arguments) for port in free_ports(count)}
        for port in pods:
            await self.ready(port)
        return pods

    def close(self) -> None:
        """Kill what still runs."""
        for pod in self._started:
            pod.kill()
            pod.wait()


def serve(port: int) -> tuple[str, ...]:
    """The arguments of the command."""
    return ("serve", "tests.fleet.app:fleet", "--port", str(port))


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def pods(space: Space, tmp_path: Path) -> Iterator[Pods]:
    """Starts pods on the test's server."""
    started = Pods(space, tmp_path)
    yield started
    started.close()
