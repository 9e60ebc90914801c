"""The feed over HTTP: every entry of every run, filtered, resumable, for admins."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.server.auth import Principal, Scope
from murmur_streams.stores.redis.store import RedisRunStore
from tests.server.event_source import Event
from tests.server.wire import RunningPod, get, running_pod, stream
from tests.servers import Space

PATH = "/events/stream"


@pytest.fixture
async def pod(space: Space) -> AsyncIterator[RunningPod]:
    async with running_pod(space) as pod:
        yield pod
        await pod.released()


@pytest.fixture
async def store(pod: RunningPod) -> RedisRunStore:
    return await pod.store()


async def run(store: RedisRunStore, run_id: str, target: str = "t") -> None:
    await store.create(run_id, target)
    await store.append(run_id, RunEvent(type=RunEventType.LOG, run_id=run_id, data=run_id))
    await store.finish(run_id, RunState.COMPLETED)


def payloads(events: list[Event]) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events]


async def test_a_message_is_the_entry(pod: RunningPod, store: RedisRunStore) -> None:
    """Its data has run_id, target, seq, type, at and fields."""
    await run(store, "run-1")
    journal = [entry async for entry in store.journal("run-1")]
    async with await stream(pod.port, PATH) as wire:
        events = await wire.some(len(journal))
    assert [event.type for event in events] == [entry.type for entry in journal]
    for found, entry in zip(payloads(events), journal, strict=True):
        assert found.pop("at").endswith("Z")
        fields = {name: text for name, text in entry.fields.items() if name != "type"}
        assert found == {
            "run_id": "run-1",
            "target": "t",
            "seq": entry.seq,
            "type": entry.type,
            "fields": fields,
        }


async def test_it_follows_live_and_goes_on_after_a_cursor(
    pod: RunningPod, store: RedisRunStore
) -> None:
    """Entries of runs that are created later come, too."""
    async with await stream(pod.port, PATH) as wire:
        await run(store, "run-1")
        (first,) = await wire.some(1)
    async with await stream(pod.port, PATH, first.last_event_id) as wire:
        assert [found["seq"] for found in payloads(await wire.some(2))] == [2, 3]
        await run(store, "run-2")
        assert (await wire.some(1))[0].type == "run.created"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("target=a", ["run-a"] * 3),
        ("target=a&target=b&type=log", ["run-a", "run-b"]),
        ("type=run.created&type=log&target=b", ["run-b", "run-b"]),
    ],
)
async def test_only_what_is_asked_for_comes(
    pod: RunningPod, store: RedisRunStore, query: str, expected: list[str]
) -> None:
    """The filter is by target and type."""
    for name in "abc":
        await run(store, f"run-{name}", name)
    async with await stream(pod.port, f"{PATH}?{query}") as wire:
        assert [found["run_id"] for found in payloads(await wire.some(len(expected)))] == expected


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("type=nothing", 422),
        ("target=a%20b", 422),
        ("after=abc", 400),
        ("after=abc&control=1", 400),
        ("after=feed.0-0.0-0", 410),
        ("after=feed.1-5", 410),
    ],
)
async def test_what_cannot_be_is_refused(
    pod: RunningPod, store: RedisRunStore, query: str, status: int
) -> None:
    """Unknown types, malformed names and cursors."""
    await run(store, "run-1")
    async with await get(pod.port, f"{PATH}?{query}") as wire:
        assert wire.status == status
        assert wire.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("cursor", "name"), [("feed.0-0.0-0", "reset"), ("feed.1-99", "reset")])
async def test_a_cursor_that_does_not_fit_is_a_reset_for_who_asks(
    pod: RunningPod, store: RedisRunStore, cursor: str, name: str
) -> None:
    """With control=1 the feed goes on from its oldest entry."""
    await run(store, "run-1")
    async with await stream(pod.port, f"{PATH}?control=1", cursor) as wire:
        reset, *events = await wire.some(4)
    assert reset.type == name
    assert json.loads(reset.data) == {"resume_cursor": reset.last_event_id or None}
    assert [found["seq"] for found in payloads(events)] == [1, 2, 3]


async def test_a_trimmed_feed_is_a_gap(pod: RunningPod, store: RedisRunStore, space: Space) -> None:
    """The answer is 410 with a cursor to resume from."""
    await run(store, "run-1")
    async with await stream(pod.port, PATH) as wire:
        (first,) = await wire.some(1)
    await run(store, "run-2")
    space.admin.xtrim(space.keys.feed(0), maxlen=2, approximate=False)
    async with await get(pod.port, PATH, {"Last-Event-ID": first.last_event_id}) as wire:
        assert wire.status == 410
        resume = (await wire.json())["resume_cursor"]
    async with await stream(pod.port, f"{PATH}?control=1", first.last_event_id) as wire:
        gap, *events = await wire.some(3)
    assert (gap.type, gap.last_event_id) == ("gap", resume)
    assert json.loads(gap.data) == {"resume_cursor": resume}
    assert [found["seq"] for found in payloads(events)] == [2, 3]


@pytest.mark.parametrize(
    ("scopes", "status"), [({Scope.ADMIN}, 200), ({Scope.READ, Scope.SUBMIT, Scope.CANCEL}, 403)]
)
async def test_only_admins_see_the_runs_of_all(
    space: Space, scopes: set[Scope], status: int
) -> None:
    """Other scopes get 403."""

    async def someone(_: object) -> Principal:
        return Principal("someone", frozenset(scopes))

    async with running_pod(space, authenticator=someone) as pod:
        async with await get(pod.port, PATH) as wire:
            assert wire.status == status
        await pod.released()


async def test_what_somebody_else_wrote_into_the_feed_is_data(
    pod: RunningPod, store: RedisRunStore, space: Space
) -> None:
    """A forged type cannot break a frame."""
    await run(store, "run-1")
    evil = "x\r\n\r\nevent: end\ndata: {}\n\n"
    head = {"run": "run-1", "entry": "1-4", "target": "t"}
    space.admin.xadd(space.keys.feed(0), {**head, "type": evil}, id="99999999999999-4")
    async with await stream(pod.port, PATH) as wire:
        event = (await wire.some(4))[-1]
    assert event.type == "message"
    assert json.loads(event.data)["type"] == evil
