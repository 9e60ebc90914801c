"""One error has one text, wherever a caller reads it."""

from __future__ import annotations

import httpx
import pytest

from murmur_streams import Fleet, RunState
from murmur_streams.client import AsyncClient
from tests.client.pods import pod_of
from tests.fleet.working import working
from tests.server.serving import submitted

WAIT_SECONDS = 30.0


async def both(client: httpx.AsyncClient, run_id: str) -> tuple[dict[str, str], dict[str, str]]:
    run = (await client.get(f"/runs/{run_id}")).json()
    return run, (await client.get(f"/runs/{run_id}/result")).json()


@pytest.mark.parametrize("text", ["why: not", "", "KeyError: 'x'"])
async def test_an_agents_error_is_the_same_in_both(
    fleet: Fleet, client: httpx.AsyncClient, text: str
) -> None:
    """The run and its result have the same message and type, under the same names."""
    async with working(fleet):
        run_id = await submitted(client, text, "broken")
        await fleet.handle(run_id).result(timeout=WAIT_SECONDS)
    run, result = await both(client, run_id)
    assert (run["error"], run["error_type"]) == (result["error"], result["error_type"])
    assert run["error_type"] == "ValueError"


async def test_another_end_has_one_text_as_well(fleet: Fleet, client: httpx.AsyncClient) -> None:
    """A run that failed without an agent's error has the text that its program gave."""
    run_id = await submitted(client)
    await (await fleet.store()).finish(run_id, RunState.FAILED, error="no: money")
    run, result = await both(client, run_id)
    assert run["error"] == result["error"] == "no: money"
    assert run["error_type"] is None


async def test_the_client_reads_the_run_that_the_store_has(fleet: Fleet) -> None:
    """Run.error is the store's text, type and message, over HTTP as well."""
    async with pod_of(fleet) as pod, AsyncClient(pod.url) as client, working(fleet):
        handle = await client.submit("broken", "why")
        await handle.result(WAIT_SECONDS)
        known = await fleet.handle(handle.run_id).snapshot()
        assert (await handle.snapshot()).error == known.error
        assert known.error == "ValueError: secret of the inside why"


async def test_no_traceback_is_sent(fleet: Fleet, client: httpx.AsyncClient) -> None:
    """A traceback shows the inside of a program: it stays with the store."""
    async with working(fleet):
        run_id = await submitted(client, "x", "broken")
        result = await fleet.handle(run_id).result(timeout=WAIT_SECONDS)
    assert "Traceback" in str(getattr(result.error, "traceback", ""))
    for answer in await both(client, run_id):
        assert "Traceback" not in str(answer)
