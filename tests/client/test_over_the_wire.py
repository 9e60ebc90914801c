"""The client against a real server, as the fleet's own handle would behave."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from murmur_streams import Fleet
from murmur_streams.client import AsyncClient, Client
from murmur_streams.core.model import errors
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult, ResultMetadata
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import redis_only
from tests.client.conftest import PATIENCE_SECONDS, Gates
from tests.client.pods import Pod

pytestmark = pytest.mark.usefixtures("worker")


async def events_of(fleet: Fleet, run_id: str) -> list[RunEvent]:
    return [event async for event in fleet.handle(run_id).stream()]


async def test_a_run_goes_from_submit_to_output(client: AsyncClient, fleet: Fleet) -> None:
    """The snapshot equals that of the fleet."""
    handle = await client.submit("counts", 3, metadata={"for": "ann"}, priority=7)
    assert await handle.output(PATIENCE_SECONDS) == 3
    assert (await handle.status()).state is RunState.COMPLETED
    run = await handle.snapshot()
    known = await fleet.handle(handle.run_id).snapshot()
    for name in ("target", "epoch", "state", "version", "last_ms", "created_ms", "started_ms"):
        assert getattr(run, name) == getattr(known, name), name
    for name in ("ended_ms", "attempt", "worker", "host", "priority", "metadata", "tenant"):
        assert getattr(run, name) == getattr(known, name), name


async def test_the_stream_is_the_librarys(client: AsyncClient, fleet: Fleet) -> None:
    """It has the same events, also after a cursor."""
    handle = await client.submit("counts", 5)
    found = [event async for event in handle.stream()]
    assert found == await events_of(fleet, handle.run_id)
    rest = [event async for event in handle.stream(after=found[2].id)]
    assert rest == found[3:]
    assert [event async for event in handle.stream(after=found[-1].id)] == []


async def test_pages_of_events_are_the_stream(client: AsyncClient, fleet: Fleet) -> None:
    """Reading page by page, with a wait, gives the events of the stream."""
    handle = await client.submit("counts", 5)
    await handle.result(PATIENCE_SECONDS)
    found: list[RunEvent] = []
    page = await handle.events(limit=2)
    while True:
        found += page.events
        assert len(page.events) <= 2
        if page.has_ended:
            break
        page = await handle.events(after=page.cursor, limit=2, wait=1)
    assert found == await events_of(fleet, handle.run_id)


async def test_errors_are_data_in_results_and_raised_by_output(client: AsyncClient) -> None:
    """The client behaves as a handle of the fleet."""
    handle = await client.submit("boom", "why?")
    result = await handle.result(PATIENCE_SECONDS)
    assert isinstance(result.error, errors.RemoteAgentError)
    assert result.error.message == "why?"
    with pytest.raises(errors.RunFailedError, match="why"):
        await handle.output()


async def test_a_cancelled_run_has_the_errors_of_the_library(client: AsyncClient) -> None:
    """The cancellation has its three times."""
    handle = await client.submit("gated", "x")
    async with aclosing(handle.stream()) as events:
        async for event in events:
            if event.name == "begun":
                break
    cancellation = await handle.cancel(reason="wrong customer", wait=PATIENCE_SECONDS)
    assert (cancellation.state, cancellation.how) == (RunState.CANCELLED, "handler")
    assert cancellation.requested is not None
    assert cancellation.stopped is not None
    with pytest.raises(errors.RunCancelledError, match="wrong customer"):
        await handle.output()
    result = await handle.result()
    assert isinstance(result.error, errors.RunCancelledError)
    assert result.error.run_id == handle.run_id
    again = await handle.cancel(wait=True)
    assert again.state is RunState.CANCELLED


async def test_a_cancel_that_is_not_waited_for_comes_back_at_once(
    client: AsyncClient, gates: Gates
) -> None:
    """It returns the state at the request."""
    handle = await client.submit("gated", "x", delay=3600)
    cancellation = await handle.cancel()
    assert (cancellation.state, cancellation.how) == (RunState.CANCELLED, "pending")
    assert cancellation.delivered is None


async def test_a_result_that_is_late_leaves_the_run_alone(
    client: AsyncClient, gates: Gates
) -> None:
    """``result`` with a timeout raises TimeoutError and changes nothing."""
    handle = await client.submit("gated", "through")
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.2 seconds"):
        await handle.result(0.2)
    waiting = asyncio.create_task(handle.output(PATIENCE_SECONDS))
    gates.opened.set()
    assert await waiting == "through"


async def test_a_submit_may_wait_for_the_end(client: AsyncClient) -> None:
    """One request submits and waits."""
    handle = await client.submit("counts", 1, wait=PATIENCE_SECONDS)
    assert (await handle.status()).state is RunState.COMPLETED


async def test_the_same_key_is_the_same_run(client: AsyncClient) -> None:
    """Other work under it raises IdempotencyConflictError."""
    first = await client.submit("counts", 1, idempotency_key='order "7"'.replace(" ", "-"))
    again = await client.submit("counts", 1, idempotency_key='order-"7"')
    assert first.run_id == again.run_id
    with pytest.raises(errors.IdempotencyConflictError) as caught:
        await client.submit("counts", 2, idempotency_key='order-"7"')
    assert (caught.value.target, caught.value.key) == ("counts", 'order-"7"')
    await first.result(PATIENCE_SECONDS)


async def test_each_submit_without_a_key_is_a_run(client: AsyncClient) -> None:
    """The client's own keys are random."""
    runs = {(await client.submit("counts", 0)).run_id for _ in range(3)}
    assert len(runs) == 3


async def test_refusals_are_the_librarys(client: AsyncClient) -> None:
    """Classes and attributes are those of the fleet's errors."""
    with pytest.raises(errors.AgentNotRegisteredError):
        await client.submit("unknown")
    with pytest.raises(errors.InvalidInputError):
        await client.submit("counts", "no number")
    await client.submit("counts", 0, run_id="r-1")
    with pytest.raises(errors.RunExistsError) as taken:
        await client.submit("counts", 0, run_id="r-1")
    assert taken.value.run_id == "r-1"
    unknown = client.handle("no-such-run")
    for call in (unknown.status, unknown.snapshot, unknown.result, unknown.cancel, unknown.delete):
        with pytest.raises(errors.RunNotFoundError) as missing:
            await call()
        assert missing.value.run_id == "no-such-run"
    with pytest.raises(errors.RunNotFoundError):
        await anext(unknown.stream())
    with pytest.raises(errors.InvalidCursorError):
        await anext(client.handle("r-1").stream(after="no-cursor"))


async def test_a_run_that_has_not_ended_is_deleted_by_force_only(client: AsyncClient) -> None:
    """Without force it raises RunNotTerminalError."""
    handle = await client.submit("counts", 1, delay=timedelta(hours=1))
    with pytest.raises(errors.RunNotTerminalError):
        await handle.delete()
    await handle.delete(force=True)
    with pytest.raises(errors.RunNotFoundError):
        await handle.status()


async def test_runs_are_listed_page_by_page(client: AsyncClient) -> None:
    """The list is newest first, and can be filtered."""
    at = datetime.now(UTC) + timedelta(hours=1)
    made = [(await client.submit("counts", 1, at=at)).run_id for _ in range(3)]
    page = await client.list_runs(target="counts", state=RunState.PENDING, limit=2)
    rest = await client.list_runs(target="counts", limit=2, cursor=page.cursor)
    assert [run.run_id for run in (*page.runs, *rest.runs)] == made[::-1]
    assert rest.cursor is None
    assert page.runs[0].due_ms == round(at.timestamp() * 1000) or page.runs[0].due_ms is not None
    assert (await client.list_runs(target="boom")).runs == ()
    assert await client.agents() == ["boom", "counts", "gated"]


async def test_a_gap_is_raised_with_the_cursor_to_go_on_from(
    client: AsyncClient, fleet: Fleet
) -> None:
    """Streams, pages and journals raise the same error."""
    handle = await client.submit("counts", 10)
    await handle.result(PATIENCE_SECONDS)
    first = await anext(handle.stream())
    store = redis_only(await fleet.store())
    journal = store._keys.journal(handle.run_id)
    await store._server.read("XTRIM", journal, "MAXLEN", 8)
    known = [event async for event in handle.stream()]
    with pytest.raises(errors.CursorGapError) as gap:
        await anext(handle.stream(after=first.id))
    assert gap.value.resume_cursor is not None
    rest = [event async for event in handle.stream(after=gap.value.resume_cursor)]
    assert rest == known


async def test_a_cursor_of_another_run_is_a_reset(client: AsyncClient) -> None:
    """It raises CursorResetError."""
    one, other = await client.submit("counts", 1), await client.submit("counts", 1)
    event = await anext(one.stream())
    with pytest.raises(errors.CursorResetError):
        await anext(other.stream(after=event.id))


async def test_many_runs_in_one_stream_and_resumed(client: AsyncClient, fleet: Fleet) -> None:
    """The stream resumes after any of its messages."""
    runs = [(await client.submit("counts", steps)).run_id for steps in (1, 3, 5)]
    found = [event async for event in client.stream_many(runs)]
    for run_id in runs:
        own = [event.seq for event in found if event.run_id == run_id]
        assert own == [event.seq for event in await events_of(fleet, run_id)]
    rest = [event async for event in client.stream_many(runs, after=found[3].id)]
    assert sorted((event.run_id, event.seq) for event in rest) == sorted(
        (event.run_id, event.seq) for event in found[4:]
    )


async def test_the_feed_has_the_entries_of_all_runs(client: AsyncClient, fleet: Fleet) -> None:
    """The feed can be filtered by target and type."""
    handle = await client.submit("counts", 2)
    await handle.result(PATIENCE_SECONDS)
    found: list[Any] = []
    async with aclosing(client.feed(targets=["counts"], types=["custom"])) as entries:
        async for entry in entries:
            found.append(entry)
            if len(found) == 2:
                break
    assert [entry.entry.fields["name"] for entry in found] == ["step", "step"]
    assert {(entry.run_id, entry.target) for entry in found} == {(handle.run_id, "counts")}
    async with aclosing(client.feed(after=found[0].cursor, types=["custom"])) as entries:
        assert (await anext(entries)).entry.seq == found[1].entry.seq


async def test_the_journal_is_read_to_its_last_entries(client: AsyncClient, fleet: Fleet) -> None:
    """The last three equal those of the store."""
    handle = await client.submit("counts", 4)
    await handle.result(PATIENCE_SECONDS)
    store = await fleet.store()
    known = [entry async for entry in store.journal(handle.run_id)]
    last = await handle.last_entries(3)
    assert [entry.id for entry in last] == [entry.id for entry in known[-3:]]
    assert [entry.epoch for entry in last] == [known[0].epoch] * 3


async def test_the_sync_client_does_the_same(pod: Pod, fleet: Fleet) -> None:
    """Each call of the asynchronous client has its blocking form."""

    def use() -> tuple[Any, ...]:
        with Client(pod.url) as client:
            handle = client.submit("counts", 3, idempotency_key="k")
            found = list(handle.stream())
            many = list(client.stream_many([handle.run_id]))
            with pytest.raises(errors.RunNotFoundError):
                client.handle("unknown").status()
            page = handle.events(wait=1)
            cancellation = handle.cancel(wait=1)
            listed = client.list_runs()
            return handle, found, many, page, cancellation, listed, handle.output(), client.agents()

    handle, found, many, page, cancellation, listed, output, agents = await asyncio.to_thread(use)
    assert found == await events_of(fleet, handle.run_id)
    assert [event.seq for event in many] == [event.seq for event in found]
    assert list(page.events) == found
    assert cancellation.state is RunState.COMPLETED
    assert [run.run_id for run in listed.runs] == [handle.run_id]
    assert output == 3
    assert "counts" in agents


async def test_a_result_without_an_output_is_no_error(client: AsyncClient, fleet: Fleet) -> None:
    """Output and error are both None."""
    store = await fleet.store()
    await store.create("r-1", "by-hand")
    left = AgentResult[Any](
        agent_name="by-hand", task_id="t", metadata=ResultMetadata(tokens_used=7)
    )
    await store.finish("r-1", RunState.COMPLETED, result=left)
    result = await client.handle("r-1").result(PATIENCE_SECONDS)
    assert (result.error, result.output, result.metadata.tokens_used) == (None, None, 7)


async def test_every_type_of_event_comes_back(client: AsyncClient, fleet: Fleet) -> None:
    """Newlines and large numbers in an event are unchanged."""
    store = await fleet.store()
    await store.create("r-1", "by-hand")
    for kind in (RunEventType.LOG, RunEventType.CUSTOM, RunEventType.AGENT_OUTPUT):
        data = {"text": "a\r\nb\0c\u2028d", "n": 2**53 + 1}
        await store.push_event(
            "r-1", RunEvent(type=kind, run_id="r-1", name="n\r\nid: 1", data=data)
        )
    await store.finish("r-1", RunState.COMPLETED)
    found = [event async for event in client.handle("r-1").stream()]
    assert found == await events_of(fleet, "r-1")
