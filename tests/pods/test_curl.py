"""The stream as curl sees it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from tests.pods.conftest import Pods
from tests.servers import Space

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


async def curl(*arguments: str) -> str:
    """The output of curl, which must not fail."""
    done = await asyncio.to_thread(
        subprocess.run,
        ["curl", "--silent", "--show-error", "--no-buffer", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


async def test_curl_follows_a_run_to_its_end_and_goes_on_after_an_id(
    space: Space, pods: Pods
) -> None:
    """A second call with Last-Event-ID gets the rest."""
    (port,) = await pods.started(1)
    url = f"http://127.0.0.1:{port}/runs/run/stream"
    async with space.store() as store:
        await store.create("run", "counts")
        following = asyncio.create_task(curl(url))
        for number in range(3):
            event = RunEvent(type=RunEventType.CUSTOM, run_id="run", name="step", data=number)
            await store.append("run", event)
        await store.finish("run", RunState.COMPLETED)
    text = await following
    ids = [line[4:] for line in text.splitlines() if line.startswith("id: ")]
    assert text.count("event: custom") == len(ids) == 3
    again = await curl(url, "--header", f"Last-Event-ID: {ids[0]}")
    assert [line[4:] for line in again.splitlines() if line.startswith("id: ")] == ids[1:]
    status = ("--output", "-", "--write-out", "%{http_code}")
    assert await curl(url, *status, "--header", f"Last-Event-ID: {ids[2]}") == "204"
