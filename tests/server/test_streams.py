"""The stream of one run over HTTP: what comes, when it begins and ends, and what is refused."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator

import pytest

from murmur_streams.core.model.entries import Cursor
from murmur_streams.core.model.errors import StoreRewoundError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from tests.server.event_source import Event
from tests.server.wire import RunningPod, Wire, get, running_pod, stream
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

RUN = "run-1"
PATH = f"/runs/{RUN}/stream"
RESUME = "Last-Event-ID"


@pytest.fixture
async def pod(space: Space) -> AsyncIterator[RunningPod]:
    async with running_pod(space) as pod:
        yield pod
        await pod.released()


@pytest.fixture
async def store(pod: RunningPod) -> RedisRunStore:
    return await pod.store()


def log(data: object = None, run_id: str = RUN) -> RunEvent:
    return RunEvent(type=RunEventType.LOG, run_id=run_id, data=data)  # pyright: ignore[reportArgumentType]


async def ended_run(store: RedisRunStore, count: int = 3) -> None:
    await store.create(RUN, "t")
    await store.append(RUN, *(log(number) for number in range(count)))
    await store.finish(RUN, RunState.COMPLETED)


def numbers(events: list[Event]) -> list[object]:
    return [json.loads(event.data)["data"] for event in events if event.type == "log"]


async def test_a_stream_begins_before_its_first_event(
    pod: RunningPod, store: RedisRunStore
) -> None:
    """Headers and the retry time come at once."""
    await store.create(RUN, "t")
    async with await stream(pod.port, PATH) as wire:
        assert wire.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert wire.headers["cache-control"] == "no-store"
        assert wire.headers["x-accel-buffering"] == "no"
        assert "content-length" not in wire.headers
        assert wire.source.feed(await wire.chunk()) == []
        assert 500 <= (wire.source.reconnection_ms or 0) <= 1_500


async def test_events_come_live_and_the_stream_ends_with_the_run(
    pod: RunningPod, store: RedisRunStore
) -> None:
    """Each event arrives while the run is still going."""
    await store.create(RUN, "t")
    async with await stream(pod.port, PATH) as wire:
        for number in range(5):
            await store.append(RUN, log(number))
            assert numbers(await wire.some(1)) == [number]
        await store.finish(RUN, RunState.COMPLETED)
        assert await wire.rest() == []
        assert wire.is_over


async def test_a_message_is_the_event_with_its_type_and_cursor(
    pod: RunningPod, store: RedisRunStore
) -> None:
    """The data decodes to the event."""
    await ended_run(store)
    expected = [event async for event in store.stream(RUN)]
    async with await stream(pod.port, PATH) as wire:
        found = await wire.rest()
    assert [(event.type, event.last_event_id) for event in found] == [
        (str(event.type), event.id) for event in expected
    ]
    assert [RunEvent.model_validate_json(event.data) for event in found] == expected


HOSTILE = [
    "\n\nevent: done\ndata: x\n\n",
    "\r\r\r",
    "\r\n\r\n",
    "data: x\nid: 0\nretry: 0",
    "\0\ufeff\u2028\u2029\u0085\x0b\x0c\x1c",
    "a" * 200_000,
    "ä😀\U0010ffff",
    {"\r\nid": ["\n", {"": None}], "__proto__": {}, "x": [[], {}, 2**53 + 1, -0.0, 1e-7, 0.1]},
]


@pytest.mark.parametrize("field", ["agent", "task_id", "error", "name", "data"])
async def test_no_payload_breaks_a_frame(pod: RunningPod, store: RedisRunStore, field: str) -> None:
    """Newlines and the like in any field come back unchanged."""
    payloads = [each for each in HOSTILE if field == "data" or isinstance(each, str)]
    await store.create(RUN, "t")
    await store.append(RUN, *(log().model_copy(update={field: each}) for each in payloads))
    await store.finish(RUN, RunState.COMPLETED)
    async with await stream(pod.port, PATH) as wire:
        found = await wire.rest()
    read = [json.loads(event.data)[field] for event in found]
    assert json.dumps(read) == json.dumps(payloads)
    assert {event.type for event in found} == {"log"}


@pytest.mark.fault("F34")
async def test_cuts_at_random_bytes_lose_and_repeat_no_event(space: Space) -> None:
    """The client resumes on any pod."""
    rng, count = random.Random(5), 400
    async with running_pod(space) as first, running_pod(space) as second:
        store = await first.store()
        await store.create(RUN, "t")

        async def write() -> None:
            for number in range(count):
                await store.append(RUN, log(number))
            await store.finish(RUN, RunState.COMPLETED)

        writing, found, cuts = asyncio.create_task(write()), list[Event](), 0
        while True:
            last = found[-1].last_event_id if found else ""
            async with await get(rng.choice([first, second]).port, PATH, {RESUME: last}) as wire:
                if wire.status == 204:
                    break
                wire.source.last_event_id = last
                cuts += await read_some(wire, found, rng.randrange(1, 20_000))
        await writing
        assert numbers(found) == list(range(count))
        assert cuts > 3
        await first.released()
        await second.released()


async def read_some(wire: Wire, found: list[Event], most: int) -> bool:
    """Read so many bytes and not one more; whether there were so many."""
    while most > 0:
        data = await wire.chunk()
        if not data:
            return False
        found += wire.source.feed(data[:most])
        most -= len(data)
    return True


@pytest.mark.parametrize("how", ["header", "after"])
async def test_a_stream_goes_on_after_a_cursor(
    pod: RunningPod, store: RedisRunStore, how: str
) -> None:
    """From Last-Event-ID, which counts more than the query, or from after."""
    await ended_run(store)
    cursors = [event.id async for event in store.stream(RUN)]
    if how == "header":
        wire = await stream(pod.port, f"{PATH}?after=nonsense", cursors[0])
    else:
        wire = await get(pod.port, f"{PATH}?after={cursors[0]}")
    async with wire:
        assert numbers(await wire.rest()) == [1, 2]


@pytest.mark.parametrize("given", ["", "-1"])
@pytest.mark.parametrize("how", ["header", "after"])
async def test_nothing_and_minus_one_are_the_start(
    pod: RunningPod, store: RedisRunStore, how: str, given: str
) -> None:
    """This holds for the header and for the query."""
    await ended_run(store)
    headers = {RESUME: given} if how == "header" else {}
    path = PATH if how == "header" else f"{PATH}?after={given}"
    async with await get(pod.port, path, headers) as wire:
        assert numbers(await wire.rest()) == [0, 1, 2]


@pytest.mark.parametrize("control", ["", "?control=1"])
async def test_an_ended_run_with_nothing_more_answers_204(
    pod: RunningPod, store: RedisRunStore, control: str
) -> None:
    """The answer is the same with control=1."""
    await ended_run(store)
    last = [event.id async for event in store.stream(RUN)][-1] or ""
    async with await get(pod.port, PATH + control, {RESUME: last}) as wire:
        assert wire.status == 204
        assert "content-type" not in wire.headers


MALFORMED = [
    *("abc", "1-2-3", "$", "+", ">", "(1-0", "1-0", "-2", "0", "\xff", "x" * 5_000),
    *("00000000-1-1-1", "00000000-1-1 ,00000000-1-1", "0000000G-1-1", "\u0660" * 8 + "-1-1"),
    *("feed.0-0", "runs.-"),
]


@pytest.mark.parametrize("cursor", MALFORMED)
@pytest.mark.parametrize("control", ["", "?control=1"])
async def test_a_malformed_cursor_is_refused(
    pod: RunningPod, store: RedisRunStore, control: str, cursor: str
) -> None:
    """The answer is 400 before the first byte of a stream."""
    await store.create(RUN, "t")
    header = cursor.encode().decode("latin-1")
    async with await get(pod.port, PATH + control, {RESUME: header}) as wire:
        assert wire.status == 400
        assert wire.headers["content-type"] == "application/problem+json"


async def test_two_cursors_are_refused(pod: RunningPod, store: RedisRunStore) -> None:
    """Two headers or two parameters are 400."""
    await store.create(RUN, "t")
    two_headers = {RESUME: "-1", "last-event-id": "-1"}
    two_queries = f"{PATH}?after=-1&after=-1"
    for path, headers, status in ((PATH, two_headers, 400), (two_queries, {}, 422)):
        async with await get(pod.port, path, headers) as wire:
            assert wire.status == status


@pytest.mark.parametrize(
    ("run_id", "status"),
    [("unknown", 404), ("a%20b", 400), ("a%7Bb%7D", 400), ("*", 400), ("x" * 129, 400), ("ä", 400)],
)
async def test_what_is_no_run_is_refused_before_any_byte(
    pod: RunningPod, run_id: str, status: int
) -> None:
    """404 for an unknown run, 400 for a malformed id."""
    path = f"/runs/{run_id}/stream".encode().decode("latin-1").replace("Ã¤", "%C3%A4")
    async with await get(pod.port, path) as wire:
        assert wire.status == status
        assert wire.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("control", ["", "?control=1"])
@pytest.mark.fault("F22")
async def test_an_expired_run_is_unknown(
    pod: RunningPod, store: RedisRunStore, space: Space, control: str
) -> None:
    """The answer is 404."""
    async with space.store(ttl_seconds=0.05) as short_lived:
        await ended_run(short_lived)

    async def is_unknown() -> bool:
        async with await get(pod.port, PATH + control) as wire:
            return wire.status == 404

    await wait_until(is_unknown, "the run has expired")
    await store.sweep()


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/event-stream", 200),
        ("*/*", 200),
        ("text/*", 200),
        ("TEXT/Event-Stream ; q=0.5", 200),
        ("application/json, text/event-stream;q=0.1", 200),
        ("application/json", 406),
        ("text/html", 406),
        ("text/event-stream;q=0", 406),
        ("*/*, text/event-stream;q=0.0", 406),
        ("text/event-stream-not", 406),
    ],
)
async def test_a_client_that_accepts_no_event_stream_gets_406(
    pod: RunningPod, store: RedisRunStore, accept: str, status: int
) -> None:
    """Its Accept header excludes text/event-stream."""
    await store.create(RUN, "t")
    async with await get(pod.port, PATH, {"Accept": accept}) as wire:
        assert wire.status == status


def other_epoch(cursor: Cursor) -> Cursor:
    return Cursor(f"{int(cursor.epoch, 16) ^ 1:08x}", cursor.ms, cursor.seq)


def ahead(cursor: Cursor) -> Cursor:
    return Cursor(cursor.epoch, cursor.ms, cursor.seq + 50)


def rewound(cursor: Cursor) -> Cursor:
    return Cursor(cursor.epoch, cursor.ms + 1, cursor.seq)


@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize("wrong", [other_epoch, ahead, rewound])
async def test_a_cursor_of_another_journal_is_410_or_a_reset(
    pod: RunningPod, store: RedisRunStore, wrong: object, has_ended: bool
) -> None:
    """With control=1 it is a message, and the stream goes on."""
    await store.create(RUN, "t")
    await store.append(RUN, *(log(number) for number in range(3)))
    last = [entry.cursor async for entry in store.journal(RUN)][-2]
    if has_ended:
        await store.finish(RUN, RunState.COMPLETED)
    assert callable(wrong)
    given = str(wrong(Cursor.parse(last)))
    async with await get(pod.port, PATH, {RESUME: given}) as wire:
        assert wire.status == 410
        resume = (await wire.json())["resume_cursor"]
    assert resume is None or wrong is not other_epoch
    start = 0 if resume is None else Cursor.parse(resume).seq
    journal = [entry async for entry in store.journal(RUN)]
    logs = [entry for entry in journal if entry.type == "log" and entry.seq > start]
    left = [json.loads(entry.fields["data"]) for entry in logs]
    async with await stream(pod.port, f"{PATH}?control=1", given) as wire:
        reset, *events = await wire.some(1 + len(left))
        assert (reset.type, reset.last_event_id) == ("reset", resume or "")
        assert json.loads(reset.data) == {"resume_cursor": resume}
        assert numbers(events) == left


@pytest.mark.parametrize("has_ended", [False, True])
async def test_a_cursor_whose_next_entries_are_trimmed_is_410_or_a_gap(
    pod: RunningPod, store: RedisRunStore, space: Space, has_ended: bool
) -> None:
    """The answer has the cursor to resume from."""
    await store.create(RUN, "t")
    await store.append(RUN, *(log(number) for number in range(8)))
    if has_ended:
        await store.finish(RUN, RunState.COMPLETED)
    first, *_ = [entry.cursor async for entry in store.journal(RUN)]
    space.admin.xtrim(space.keys.journal(RUN), maxlen=4, approximate=False)
    async with await get(pod.port, PATH, {RESUME: first}) as wire:
        assert wire.status == 410
        resume = (await wire.json())["resume_cursor"]
    async with await stream(pod.port, PATH, resume) as wire:
        remaining = await wire.some(3 if has_ended else 4)
    async with await stream(pod.port, f"{PATH}?control=1", first) as wire:
        gap, *events = await wire.some(1 + len(remaining))
        assert (gap.type, gap.last_event_id) == ("gap", resume)
        assert json.loads(gap.data) == {"resume_cursor": resume}
        assert events == remaining


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED])
async def test_control_adds_the_end_as_a_message(
    pod: RunningPod, store: RedisRunStore, state: RunState
) -> None:
    """Only a stream with ``?control=1`` has the message ``end``, with the state of the run."""
    await store.create(RUN, "t")
    await store.append(RUN, log(0))
    async with (
        await stream(pod.port, f"{PATH}?control=1") as answered,
        await stream(pod.port, PATH) as plain,
    ):
        await store.finish(RUN, state)
        *events, end = await answered.rest()
        assert await plain.rest() == events
        assert (end.type, json.loads(end.data)) == ("end", {"state": str(state)})
        assert end.last_event_id == events[-1].last_event_id


async def test_a_deleted_run_ends_with_no_state(pod: RunningPod, store: RedisRunStore) -> None:
    """The message end has the state null."""
    await store.create(RUN, "t")
    async with await stream(pod.port, f"{PATH}?control=1") as wire:
        await wait_until(lambda: store._tails.followers == 1, "the stream follows")
        await store.delete(RUN, force=True)
        assert [(event.type, event.data) for event in await wire.rest()] == [
            ("end", '{"state":null}')
        ]


@pytest.mark.parametrize("control", ["", "?control=1"])
async def test_a_lost_journal_closes_the_stream_or_resets_it(
    pod: RunningPod, store: RedisRunStore, space: Space, control: str
) -> None:
    """With ``?control=1`` it is the message ``reset``."""
    await store.create(RUN, "t")
    await store.append(RUN, log(0))
    async with await stream(pod.port, PATH + control) as wire:
        assert numbers(await wire.some(1)) == [0]
        await wait_until(lambda: store._tails.followers == 1, "the stream follows")
        space.admin.flushall()
        await store.create(RUN, "t")
        with pytest.raises(StoreRewoundError):
            await store.append(RUN, log(1))
        await store.append(RUN, log(1))
        if control:
            reset, event = await wire.some(2)
            assert (reset.type, reset.data) == ("reset", '{"resume_cursor":null}')
            assert numbers([event]) == [1]
        else:
            assert await wire.rest() == []
            assert wire.is_over
            assert (wire.source.reconnection_ms or 0) >= 1_000


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE"])
async def test_streams_are_only_got(pod: RunningPod, store: RedisRunStore, method: str) -> None:
    """Other methods are 405."""
    await store.create(RUN, "t")
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.port)
    writer.write(f"{method} {PATH} HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n".encode())
    wire = Wire(reader, writer)
    await wire.read_head()
    wire.cut()
    assert wire.status == 405
    assert "GET" in wire.headers["allow"]
