"""Checks of our stores with the types of ``murmur.runs``: the promises of that interface.

test_interface.py runs this file in a process that has murmur-runtime on its path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis

from murmur_streams import AgentResult, RunEvent, RunEventType, open_store
from murmur_streams.core.model.limits import MAX_ERROR_CHARACTERS
from murmur_streams.core.model.states import RunState
from murmur_streams.interop.murmur_runtime import (
    InMemoryRunStore,
    MurmurRunStore,
    RedisRunStore,
    wrap,
)
from murmur_streams.testing import wait_until
from tests.servers import Space

runs: Any = import_module("murmur.runs")
types: Any = import_module("murmur.types")
errors: Any = import_module("murmur.core.errors")

TARGET = "researcher"
Event, EventType, State = runs.RunEvent, runs.RunEventType, runs.RunState


class Report(BaseModel):
    title: str
    at: datetime = datetime(2026, 1, 2, tzinfo=UTC)


def result(**given: Any) -> Any:
    return types.AgentResult[BaseModel](agent_name=TARGET, task_id="task-1", **given)


def event(kind: str, **given: Any) -> Any:
    return Event(type=EventType(kind), **({"run_id": "r", "agent": TARGET} | given))


@pytest.fixture(params=["memory", "redis", "wrapped", "sqlite", "rocksdb"])
async def store(
    request: pytest.FixtureRequest, space: Space, tmp_path: Path
) -> AsyncIterator[MurmurRunStore]:
    opened: MurmurRunStore
    match request.param:
        case "memory":
            opened = InMemoryRunStore()
        case "redis":
            opened = RedisRunStore(space.url, key_prefix=space.prefix)
        case "sqlite" | "rocksdb":
            opened = wrap(open_store(f"{request.param}://{tmp_path}/runs"))
        case _:
            opened = wrap(open_store(space.url, key_prefix=space.prefix))
    async with opened:
        await opened.create("r", TARGET)
        yield opened


async def streamed(store: MurmurRunStore, run_id: str = "r") -> list[Any]:
    async with asyncio.timeout(20):
        return [each async for each in store.stream(run_id)]


async def read_back(store: MurmurRunStore, given: Any) -> Any:
    await store.set_result("r", given)
    return await store.get_result("r")


async def test_states_and_progress_are_those_of_murmur(store: MurmurRunStore) -> None:
    """The values have murmur's own types."""
    assert await store.get_status("r") == runs.RunStatus(run_id="r", state=State.PENDING)
    await store.set_state("r", State.RUNNING)
    progress = runs.RunProgress(total=5, completed=2, failed=1, running=2)
    await store.update_progress("r", progress)
    status = await store.get_status("r")
    assert status == runs.RunStatus(run_id="r", state=State.RUNNING, progress=progress)
    assert (type(status), type(status.state)) == (runs.RunStatus, State)
    assert type(status.progress) is runs.RunProgress


async def test_an_ended_run_does_not_change_its_state(store: MurmurRunStore) -> None:
    """Nor does it accept a result after a cancel."""
    await store.set_state("r", State.CANCELLED)
    await store.set_state("r", State.COMPLETED)
    await store.set_result("r", result(output=Report(title="late")))
    assert (await store.get_status("r")).state is State.CANCELLED
    assert await store.get_result("r") is None


@pytest.mark.parametrize("run_id", ["nobody", "", "no id of ours", "ünïcode", "a" * 200])
async def test_unknown_ids_are_their_registry_error(store: MurmurRunStore, run_id: str) -> None:
    """Each method raises it, also for ids outside our grammar."""
    calls = [
        store.get_status(run_id),
        store.get_result(run_id),
        store.update_progress(run_id, runs.RunProgress()),
        store.set_state(run_id, State.RUNNING),
        store.set_result(run_id, result(output=Report(title="x"))),
        store.push_event(run_id, event("agent_started")),
        streamed(store, run_id),
    ]
    for call in calls:
        with pytest.raises(errors.RegistryError):
            await call


async def test_a_duplicate_id_is_their_registry_error(store: MurmurRunStore) -> None:
    """The text says that the run already exists."""
    with pytest.raises(errors.RegistryError, match="already exists"):
        await store.create("r", TARGET)


async def test_a_run_that_was_deleted_is_unknown(store: MurmurRunStore) -> None:
    """Reading it raises RegistryError."""
    await store.set_state("r", State.COMPLETED)
    assert await store.store.delete("r")
    with pytest.raises(errors.RegistryError):
        await store.get_status("r")


async def test_events_come_back_as_they_were_pushed(store: MurmurRunStore) -> None:
    """Type, time and empty fields are the same."""
    moment = datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
    pushed = [
        event("agent_started", timestamp=moment),
        event("agent_completed", agent="part", task_id="t"),
        event("agent_failed", agent="part", error=""),
        event("group_completed", agent=None),
    ]
    await store.set_state("r", State.RUNNING)
    for each in pushed:
        await store.push_event("r", each)
    await store.set_state("r", State.COMPLETED)
    seen = await streamed(store)
    assert seen == pushed
    assert {type(each) for each in seen} == {Event}
    assert {type(each.type) for each in seen} == {EventType}


async def test_a_live_stream_ends_with_the_closing_event(
    store: MurmurRunStore,
) -> None:
    """A live stream ends with the closing event, also when it comes after the state."""
    started, last = event("agent_started"), event("agent_completed")
    await store.set_state("r", State.RUNNING)
    await store.push_event("r", started)
    live = store.stream("r")
    seen = [await anext(live)]
    rest = asyncio.create_task(streamed_rest(live))
    await store.set_state("r", State.COMPLETED)
    await store.push_event("r", last)
    assert seen + await rest == [started, last]
    assert await streamed(store) == [started, last]


async def streamed_rest(live: AsyncIterator[Any]) -> list[Any]:
    async with asyncio.timeout(20):
        return [each async for each in live]


async def test_a_cancelled_run_has_one_last_event(store: MurmurRunStore) -> None:
    """The event that murmur pushes is not doubled by ours."""
    await store.set_state("r", State.CANCELLED)
    await store.push_event("r", event("run_cancelled", agent=None))
    assert [each.type for each in await streamed(store)] == [EventType.RUN_CANCELLED]


async def test_a_replay_is_whole(store: MurmurRunStore) -> None:
    """Six hundred events; their own store reads two hundred."""
    for number in range(600):
        await store.push_event("r", event("agent_started", task_id=str(number)))
    await store.set_state("r", State.COMPLETED)
    await store.push_event("r", event("agent_completed"))
    seen = await streamed(store)
    assert [each.task_id for each in seen[:-1]] == [str(number) for number in range(600)]


async def test_events_that_murmur_does_not_know_are_left_out(store: MurmurRunStore) -> None:
    """Its streams have no outputs, log lines and custom events."""
    await store.push_event("r", event("agent_started"))
    ours = (RunEventType.AGENT_OUTPUT, RunEventType.LOG, RunEventType.CUSTOM)
    for kind in ours:
        await store.store.push_event("r", RunEvent(type=kind, run_id="r", name="n", data=1))
    await store.set_state("r", State.COMPLETED)
    await store.push_event("r", event("agent_completed"))
    seen = [each.type for each in await streamed(store)]
    assert seen == [EventType.AGENT_STARTED, EventType.AGENT_COMPLETED]


async def test_an_event_gets_its_runs_id_and_a_local_time(
    store: MurmurRunStore,
) -> None:
    """An event gets the id of the run that it is pushed to, and a naive time is local time."""
    naive = datetime(2026, 3, 4, 5, 6, 7)  # noqa: DTZ001  # their store takes it
    await store.push_event("r", Event(type="agent_started", run_id="other", timestamp=naive))
    await store.set_state("r", State.CANCELLED)
    first = (await streamed(store))[0]
    assert (first.run_id, first.timestamp) == ("r", naive.astimezone(UTC))


async def test_a_last_event_with_an_endless_error_is_cut_not_refused(store: MurmurRunStore) -> None:
    """The run could not end otherwise."""
    await store.set_state("r", State.FAILED)
    await store.push_event("r", event("agent_failed", error="x\ud800" * 10**6))
    (last,) = await streamed(store)
    assert last.error == ("x?" * 10**6)[:MAX_ERROR_CHARACTERS]


@pytest.mark.parametrize("name", ["two words", "-", "", "ß" * 300, "a/b", "x" * 129])
async def test_an_agent_may_have_any_name(store: MurmurRunStore, name: str) -> None:
    """Names outside our grammar are stored under another target."""
    await store.create("named", name)
    await store.set_state("named", State.RUNNING)
    pushed = [event(kind, agent=name, run_id="named") for kind in ("agent_started", "agent_failed")]
    live = asyncio.create_task(streamed(store, "named"))
    await store.push_event("named", pushed[0])
    await store.set_state("named", State.FAILED)
    await store.push_event("named", pushed[1])
    assert await live == pushed
    assert await streamed(store, "named") == pushed
    assert (await store.store.snapshot("named")).seal is not None


async def test_a_run_that_the_store_failed_says_why(store: MurmurRunStore) -> None:
    """Its stream ends with agent_failed, and the result has a SpawnError."""
    await store.create("lost", "two words")
    await store.set_state("lost", State.RUNNING)
    live = asyncio.create_task(streamed(store, "lost"))
    await store.store.finish("lost", RunState.FAILED, error="owner_lost")
    (last,) = await live
    ended_at = (await store.store.snapshot("lost")).ended_at
    assert last == Event(
        type="agent_failed",
        run_id="lost",
        agent="two words",
        error="owner_lost",
        timestamp=ended_at,
    )
    result = await store.get_result("lost")
    assert (type(result.error), str(result.error)) == (errors.SpawnError, "owner_lost")
    assert (result.agent_name, result.is_ok()) == ("two words", False)


async def test_a_result_is_read_back_with_its_fields_and_metadata(store: MurmurRunStore) -> None:
    """The output is a model with the same JSON."""
    metadata = types.ResultMetadata(
        duration_ms=5, tokens_used=7, cost_usd=0.25, backend="AsyncBackend", trace_id="t"
    )
    assert await store.get_result("r") is None
    given = result(output=Report(title="ü"), metadata=metadata)
    back = await read_back(store, given)
    assert isinstance(back, types.AgentResult)
    assert back.is_ok()
    assert (back.agent_name, back.task_id, back.metadata) == (TARGET, "task-1", metadata)
    assert type(back.metadata) is types.ResultMetadata
    assert isinstance(back.output, BaseModel)
    dumped = back.output.model_dump(mode="json")
    assert dumped == {"title": "ü", "at": "2026-01-02T00:00:00Z"}


async def test_a_group_result_is_read_back_by_name_with_its_failures(store: MurmurRunStore) -> None:
    """Each member has its output or its error."""
    outputs = {
        "good": result(output=Report(title="fine")),
        "bad": result(error=errors.ToolExecutionError("no tool")),
    }
    metadata = types.ResultMetadata(tokens_used=9, backend="group")
    back = await read_back(store, types.GroupResult(outputs=outputs, metadata=metadata))
    assert isinstance(back, types.GroupResult)
    assert back.metadata == metadata
    assert {type(each) for each in back.outputs.values()} <= {
        types.AgentResult,
        types.AgentResult[BaseModel],
    }
    assert back.outputs["good"].output.title == "fine"
    assert type(back.outputs["bad"].error) is errors.ToolExecutionError
    assert str(back.outputs["bad"].error) == "no tool"


KINDS = sorted(set(errors.MurmurError.__subclasses__()) | {errors.MurmurError}, key=str)


@pytest.mark.parametrize("kind", [*KINDS, errors.TopologyError], ids=lambda kind: kind.__name__)
async def test_errors_of_murmur_come_back_as_themselves(store: MurmurRunStore, kind: Any) -> None:
    """Each class of murmur's errors keeps its class and text."""
    back = await read_back(store, result(error=kind("it went wrong: ß")))
    assert (type(back.error), str(back.error)) == (kind, "it went wrong: ß")
    assert not back.is_ok()


@pytest.mark.parametrize("text", ["no value", ""])
async def test_other_errors_come_back_with_their_text_alone(
    store: MurmurRunStore, text: str
) -> None:
    """The class may be unknown to the reader."""
    back = await read_back(store, result(error=ValueError(text)))
    assert str(back.error) == text
    assert type(back.error) in {RuntimeError, ValueError}


async def test_a_result_that_is_no_json_is_refused(store: MurmurRunStore) -> None:
    """NaN, for example; nothing is stored."""

    class Measured(BaseModel):
        length: float

    with pytest.raises(ValueError, match="nan"):
        await store.set_result("r", result(output=Measured(length=float("nan"))))
    assert await store.get_result("r") is None


async def test_results_of_programs_of_ours_are_read_as_models(store: MurmurRunStore) -> None:
    """Text, lists, dicts and numbers become models that dump to them."""
    for number, output in enumerate(["a text", [1, 2], {"a": 1}, 7]):
        await store.create(f"ours-{number}", TARGET)
        ours = AgentResult[Any](output=output, agent_name=TARGET, task_id="t")
        await store.store.set_result(f"ours-{number}", ours)
        back = await store.get_result(f"ours-{number}")
        assert isinstance(back.output, BaseModel)
        assert back.output.model_dump() == output


async def test_closing_twice_is_closing_once(space: Space) -> None:
    """The second close raises nothing."""
    for store in (RedisRunStore(space.url, key_prefix=space.prefix), InMemoryRunStore()):
        await store.create("once", TARGET)
        await store.close()
        await store.close()


async def test_a_client_of_the_callers_stays_open(space: Space) -> None:
    """The store does not close it."""
    client = Redis.from_url(space.server_url)
    store = RedisRunStore(client=client, key_prefix=space.prefix)
    assert store.client is client
    await store.create("once", TARGET)
    await store.close()
    assert await client.exists(space.keys.run("once"))
    await client.aclose()


def test_exactly_one_of_url_and_client_is_given(space: Space) -> None:
    """None or both raise ValueError."""
    for url, client in ((None, None), (space.url, Redis.from_url(space.server_url))):
        with pytest.raises(ValueError, match="exactly one"):
            RedisRunStore(url, client=client)


async def test_failing_lost_runs_can_be_switched_off(
    space: Space,
) -> None:
    """By default a store fails the runs of dead servers; an option switches that off."""
    async with RedisRunStore(space.url, key_prefix=space.prefix) as store:
        await store.create("kept", TARGET)
        await store.set_state("kept", State.RUNNING)
        assert space.admin.zcard(space.keys.owners(0)) == 1
    async with RedisRunStore(space.url, key_prefix=space.prefix, owner_lease_seconds=None) as store:
        await store.create("free", TARGET)
        await store.set_state("free", State.RUNNING)
        assert space.admin.zcard(space.keys.owners(0)) == 1


async def test_the_runs_of_a_closed_store_fail_for_another(space: Space) -> None:
    """A closed store counts as a lost owner."""
    lease: dict[str, Any] = {"key_prefix": space.prefix, "owner_lease_seconds": 0.2}
    async with RedisRunStore(space.url, **lease) as gone:
        await gone.create("r", TARGET)
        await gone.set_state("r", State.RUNNING)
    async with RedisRunStore(space.url, **lease) as store:

        async def is_failed() -> bool:
            return (await store.get_status("r")).state is State.FAILED

        await wait_until(is_failed, "the lease is over")
        assert [each.error for each in await streamed(store)] == ["owner_lost"]


def test_ids_are_drawn_as_from_the_store_that_it_replaces() -> None:
    """The store has new_run_id, as that of murmur-runtime has."""
    assert InMemoryRunStore.new_run_id() != InMemoryRunStore.new_run_id()
