"""Stages of worker processes: on the shared server, or on one that the test may break."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from murmur_streams import Fleet
from murmur_streams.embedded import ensure_server, stop_server
from tests.fleet.stage import Stage
from tests.key_audit import audit_folder
from tests.servers import Space


@pytest.fixture
async def fleet(space: Space) -> AsyncIterator[Fleet]:
    """A fleet with one agent, in the test's key space; see ``outcome``."""
    async with Fleet(space.url, key_prefix=space.prefix) as fleet:

        @fleet.agent
        async def fine(number: int) -> int:
            return number + 1

        yield fleet


@pytest.fixture
async def stage(space: Space, tmp_path: Path) -> AsyncIterator[Stage]:
    """Workers on the shared server; the keys they leave are audited."""
    stage = Stage(space.url, space.prefix, tmp_path)
    yield stage
    stage.close()
    await stage.fleet.close()


@pytest.fixture
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a server of the test's own; it ends with the test."""
    folder = tmp_path_factory.mktemp("own") / "data"
    ensure_server(folder)
    yield folder
    try:
        audit_folder(folder)
    finally:
        stop_server(folder)


@pytest.fixture
async def own_stage(own_folder: Path, tmp_path: Path) -> AsyncIterator[Stage]:
    """Workers on a server that the test may kill; the next user starts it again."""
    prefix = f"test-{secrets.token_hex(4)}"
    stage = Stage(f"embedded://{quote(str(own_folder))}", prefix, tmp_path)
    yield stage
    stage.close()
    await stage.fleet.close()
