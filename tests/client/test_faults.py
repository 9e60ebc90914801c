"""Cut connections, lost answers, busy servers, restarts: each thing is done and reported once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, Field

from murmur_streams import Fleet
from murmur_streams.client import AsyncClient, Client
from murmur_streams.core.model import errors
from murmur_streams.core.model.events import RunEvent
from tests.client.conftest import PATIENCE_SECONDS, Gates
from tests.client.pods import Cutter, Pod, at_random, once, pod_of, start_pod
from tests.fleet.working import working

STEPS = 300


async def whole(fleet: Fleet, run_id: str) -> list[RunEvent]:
    return [event async for event in fleet.handle(run_id).stream()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.fault("F34")
async def test_a_stream_cut_at_random_has_each_event_once(
    fleet: Fleet, pod: Pod, worker: None, seed: int
) -> None:
    """The client resumes after each cut."""
    async with (
        Cutter(pod.port, plan=at_random(seed, 12_000)) as cutter,
        AsyncClient(cutter.url) as client,
    ):
        handle = await client.submit("counts", STEPS)
        found = [event async for event in handle.stream()]
        assert found == await whole(fleet, handle.run_id)
        assert cutter.cuts > 0


async def test_many_runs_over_one_connection_that_is_cut_at_random(
    fleet: Fleet, pod: Pod, worker: None
) -> None:
    """Each run has its events once, in order."""
    async with (
        Cutter(pod.port, plan=at_random(7, 12_000)) as cutter,
        AsyncClient(cutter.url) as client,
    ):
        runs = [(await client.submit("counts", 60)).run_id for _ in range(3)]
        found = [event async for event in client.stream_many(runs)]
        assert cutter.cuts > 0
        for run_id in runs:
            own = [event.seq for event in found if event.run_id == run_id]
            assert own == [event.seq for event in await whole(fleet, run_id)]


async def test_the_sync_client_resumes_as_well(fleet: Fleet, pod: Pod, worker: None) -> None:
    """It has each event once over many cuts."""

    def read(url: str) -> tuple[str, list[RunEvent]]:
        with Client(url) as client:
            handle = client.submit("counts", STEPS)
            return handle.run_id, list(handle.stream())

    async with Cutter(pod.port, plan=at_random(11, 12_000)) as cutter:
        run_id, found = await asyncio.to_thread(read, cutter.url)
        assert found == await whole(fleet, run_id)
        assert cutter.cuts > 0


async def test_a_server_that_restarts_in_the_middle_of_a_stream(
    fleet: Fleet, worker: None, gates: Gates
) -> None:
    """The stream goes on with the new process."""
    pod = await start_pod(fleet)
    async with AsyncClient(pod.url) as client:
        handle = await client.submit("gated", "through")
        async with aclosing(handle.stream()) as events:
            found = [await anext(events), await anext(events)]
            await pod.kill()
            rest = asyncio.create_task(_rest(events))
            pod = await start_pod(fleet, port=pod.port)
            gates.opened.set()
            found += await asyncio.wait_for(rest, PATIENCE_SECONDS)
        assert found == await whole(fleet, handle.run_id)
    await pod.kill()


async def test_a_drained_server_sends_its_readers_to_another(
    fleet: Fleet, pod: Pod, worker: None, gates: Gates
) -> None:
    """The stream goes on with the other pod."""
    other = await start_pod(fleet)
    async with Cutter(other.port) as cutter, AsyncClient(cutter.url) as client:
        handle = await client.submit("gated", "through")
        async with aclosing(handle.stream()) as events:
            found = [await anext(events), await anext(events)]
            cutter.ports = [pod.port]
            rest = asyncio.create_task(_rest(events))
            await other.drain()
            gates.opened.set()
            found += await asyncio.wait_for(rest, PATIENCE_SECONDS)
        assert found == await whole(fleet, handle.run_id)


@pytest.mark.slow
@pytest.mark.fault("F37")
async def test_readers_of_three_pods_outlive_a_kill_a_drain_and_cuts(
    fleet: Fleet, worker: None, gates: Gates
) -> None:
    """Each reader gets each event of its run once."""
    pods = [await start_pod(fleet) for _ in range(3)]
    plan = at_random(13, 8_000)
    async with (
        Cutter(*[pod.port for pod in pods], plan=plan) as cutter,
        AsyncClient(cutter.url) as client,
    ):
        long = [await client.submit("gated", "through") for _ in range(4)]
        short = [await client.submit("counts", 60) for _ in range(8)]
        reading = [asyncio.create_task(_rest(handle.stream())) for handle in (*long, *short)]
        for handle in short:
            await handle.result(PATIENCE_SECONDS)
        await pods[0].kill()
        await pods[1].drain()
        cutter.plan = at_random(17, 8_000)
        gates.opened.set()
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            found = await asyncio.gather(*reading)
        for handle, events in zip((*long, *short), found, strict=True):
            assert events == await whole(fleet, handle.run_id)
        assert cutter.cuts > 0
    await pods[2].kill()


async def _rest(events: AsyncIterator[RunEvent]) -> list[RunEvent]:
    return [event async for event in events]


@pytest.mark.fault("F1")
async def test_a_submit_whose_answer_is_lost_makes_one_run(fleet: Fleet, pod: Pod) -> None:
    """The repeated request has the same key."""
    async with (
        Cutter(pod.port, plan=once(b"POST /submit")) as cutter,
        AsyncClient(cutter.url) as client,
    ):
        handle = await client.submit("counts", 1)
        assert cutter.cuts == 1
        listed = await client.list_runs()
    assert [run.run_id for run in listed.runs] == [handle.run_id]
    async with working(fleet):
        assert await fleet.handle(handle.run_id).output(PATIENCE_SECONDS) == 1


class Drawn(BaseModel):
    """An input whose type draws an id for each reading."""

    steps: int
    request: UUID = Field(default_factory=uuid4)


@pytest.mark.fault("F1")
async def test_a_lost_answer_does_not_conflict_with_itself(fleet: Fleet, pod: Pod) -> None:
    """The client's repeat of a submission is the same request, also when the type draws an id."""

    @fleet.agent
    async def drawn(given: Drawn) -> UUID:
        return given.request

    async with (
        Cutter(pod.port, plan=once(b"POST /submit")) as cutter,
        AsyncClient(cutter.url) as client,
    ):
        handle = await client.submit("drawn", {"steps": 1})
        assert cutter.cuts == 1
        listed = await client.list_runs()
    assert [run.run_id for run in listed.runs] == [handle.run_id]


async def test_a_run_id_after_a_lost_answer_is_an_unknown_outcome(fleet: Fleet, pod: Pod) -> None:
    """A repetition could be refused because of the first one."""
    async with (
        Cutter(pod.port, plan=once(b"POST /submit")) as cutter,
        AsyncClient(cutter.url) as client,
    ):
        with pytest.raises(errors.OutcomeUnknownError, match="r-1"):
            await client.submit("counts", 1, run_id="r-1")
        assert (await client.handle("r-1").snapshot()).target == "counts"


async def test_a_delete_whose_answer_is_lost_has_deleted(fleet: Fleet, pod: Pod) -> None:
    """The repeated request finds no run, and that is a success."""
    async with (
        Cutter(pod.port, plan=once(b"DELETE ")) as cutter,
        AsyncClient(cutter.url) as client,
    ):
        handle = await client.submit("counts", 1)
        await handle.delete(force=True)
        assert cutter.cuts == 1
        with pytest.raises(errors.RunNotFoundError):
            await handle.delete(force=True)


async def test_without_a_server_errors_state_whether_work_was_done(fleet: Fleet) -> None:
    """Never sent is StoreUnavailableError, perhaps sent is OutcomeUnknownError."""
    async with pod_of(fleet) as pod:
        url = pod.url
    async with AsyncClient(url, retry_seconds=0.2) as client:
        with pytest.raises(errors.StoreUnavailableError, match=url):
            await client.submit("counts", 1)
        with pytest.raises(errors.StoreUnavailableError, match="ConnectError"):
            await anext(client.handle("r-1").stream())
    async with (
        Cutter(1, plan=lambda _: 0) as nowhere,
        AsyncClient(nowhere.url, retry_seconds=0.2) as client,
    ):
        with pytest.raises(errors.OutcomeUnknownError, match="applied once, or not at all"):
            await client.submit("counts", 1)
        with pytest.raises(errors.StoreUnavailableError):
            await client.handle("r-1").status()


@pytest.mark.fault("F54")
async def test_a_silent_connection_is_left_for_another(
    fleet: Fleet, pod: Pod, worker: None
) -> None:
    """A stream that neither speaks nor ends is what a lost network looks like."""
    silent = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 10\n")
        silent.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as mute:
        port = mute.sockets[0].getsockname()[1]
        async with (
            Cutter(port) as cutter,
            AsyncClient(cutter.url, silence_seconds=0.3) as client,
            AsyncClient(pod.url) as direct,
        ):
            handle = await direct.submit("counts", 3)
            reading = asyncio.create_task(_rest(client.handle(handle.run_id).stream()))
            await silent.wait()
            cutter.ports = [pod.port]
            assert await asyncio.wait_for(reading, PATIENCE_SECONDS) == await whole(
                fleet, handle.run_id
            )
