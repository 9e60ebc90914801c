"""The program of docs/interop.md runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from murmur_streams.interop.murmur_runtime import _target
from tests.interop.conftest import ROOT, environment
from tests.key_audit import audit_keys
from tests.servers import Space

PAGE = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")
CLIENT = """
import asyncio, httpx
from app import app, store

async def main():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        task = {"target": "writer", "task": {"input": "x"}}
        run_id = (await client.post("/submit", json=task)).json()["run_id"]
        print((await client.get(f"/runs/{run_id}/stream")).text)
        print((await client.get(f"/runs/{run_id}/result")).json()["output"])
    await store.close()

asyncio.run(main())
"""


@pytest.mark.slow
def test_the_program_of_the_page_serves_on_our_store(space: Space, tmp_path: Path) -> None:
    """Its runs are in Redis."""
    (block,) = re.findall(r"^```python\n(# app\.py\n.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "app.py").write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        cwd=tmp_path,
        env=environment() | {"REDIS_URL": space.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^event: (\w+)", done.stdout, re.MULTILINE) == [
        "agent_started",
        "agent_completed",
    ]
    assert "{'title': 'a'}" in done.stdout
    # The page has a prefix of its own.
    assert audit_keys(space.admin) == []
    space.admin.flushall()


def test_the_name_that_the_page_shows_is_the_one_that_is_stored() -> None:
    """The example is a name with a space."""
    assert f"`two words` as `{_target('two words')}`" in PAGE
