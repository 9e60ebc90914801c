"""Programs that import a fleet use its client; the others take a URL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from murmur_streams.embedded import ensure_server
from tests.cli.conftest import CommandLine

APP = """
import os

from redis.asyncio import Redis

from murmur_streams import Fleet

fleet = Fleet(client=Redis.from_url(os.environ["GIVEN_URL"]))


@fleet.agent
def double(number: int) -> int:
    return 2 * number
"""


def test_a_worker_uses_the_client_of_its_fleet(
    line: CommandLine, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever MURMUR_URL says, as with a URL in the fleet's code."""
    url = ensure_server(data_dir).url
    (tmp_path / "given_app.py").write_text(APP)
    monkeypatch.setenv("GIVEN_URL", url)
    monkeypatch.setenv("MURMUR_URL", "redis://127.0.0.1:1")
    worker = line.start("worker", "given_app:fleet", "--json", cwd=tmp_path)
    assert worker.stdout is not None
    assert json.loads(worker.stdout.readline())["targets"] == ["double"]
    line.run("submit", "double", "21", "--run-id", "run", "--url", url)
    ended = line.run("result", "run", "--wait", "--url", url)
    assert (ended.returncode, ended.stdout) == (0, "42\n")
