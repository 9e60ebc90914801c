"""How a stream ends before its run does: whatever it is, everything is released."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import Request
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.server.auth import BearerTokens, Principal, Scope
from murmur_streams.server.protocol import LimitedProtocol
from murmur_streams.server.stream_messages import MessageStream
from murmur_streams.server.stream_response import EventStream
from murmur_streams.stores.redis.live.sources import Followed
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.wire.problems import UNAUTHORIZED, ProblemError
from tests.server.wire import (
    PATIENCE_SECONDS,
    RunningPod,
    Wire,
    get,
    running_pod,
    send_request,
    stream,
)
from tests.servers import Space
from tests.stores.faults.waiting import wait_until

RUN = "run-1"
PATH = f"/runs/{RUN}/stream"
FAST = 0.05
NEVER = 3_600.0
BIG = "x" * 100_000


def log(data: str) -> RunEvent:
    return RunEvent(type=RunEventType.LOG, run_id=RUN, data=data)


async def following(pod: RunningPod, count: int) -> None:
    store = await pod.store()
    await wait_until(lambda: store._tails.followers == count, f"{count} streams follow")


async def test_a_quiet_stream_has_heartbeats(space: Space) -> None:
    """Comments, between which events still come."""
    async with running_pod(space, heartbeat_seconds=FAST) as pod:
        store = await pod.store()
        await store.create(RUN, "t")
        async with await stream(pod.port, PATH) as wire:
            while wire.source.comments < 3:
                assert wire.source.feed(await wire.chunk()) == []
            await store.append(RUN, log("after"))
            assert (await wire.some(1))[0].type == "log"
        await pod.released()


async def test_a_client_that_goes_is_noticed_though_nothing_is_sent(space: Space) -> None:
    """The connection may be cut, closed or half closed."""
    async with running_pod(space, heartbeat_seconds=NEVER) as pod:
        await (await pod.store()).create(RUN, "t")
        cut, closed, half = [await stream(pod.port, PATH) for _ in range(3)]
        await following(pod, 3)
        cut.cut()
        await following(pod, 2)
        closed.writer.close()
        await following(pod, 1)
        half.writer.write_eof()
        await pod.released()
        half.cut()


async def test_a_client_that_goes_before_the_first_byte_is_released(space: Space) -> None:
    """Twenty of them leave nothing."""
    async with running_pod(space) as pod:
        await (await pod.store()).create(RUN, "t")
        for _ in range(20):
            (await send_request(pod.port, PATH)).cut()
        async with await stream(pod.port, PATH) as last:
            assert last.status == 200
        await pod.released()


async def read_of(store: RedisRunStore) -> list[str | None]:
    return [event.id async for event in store.stream(RUN)]


@pytest.mark.fault("F35")
async def test_a_reader_that_takes_nothing_is_let_go_and_can_resume(space: Space) -> None:
    """It misses nothing after the reconnect."""
    count = 200
    async with running_pod(space, send_seconds=0.5, heartbeat_seconds=NEVER) as pod:
        store = await pod.store()
        await store.create(RUN, "t")
        stuck = await send_request(pod.port, PATH, receive_bytes=4_096)
        await stuck.read_head()
        await following(pod, 1)
        connection = next(iter(pod.server.server_state.connections))
        for _ in range(count):
            await store.append(RUN, log(BIG))
        held = connection.transport.get_write_buffer_size()
        await store.finish(RUN, RunState.COMPLETED)
        # Of 20 MB, what uvicorn lets wait and one message.
        assert held < 64 * 1024 + 2 * len(BIG)
        await pod.released()
        await wait_until(
            lambda: not pod.server.server_state.connections, "the connection is given up"
        )
        found = await events_until_lost(stuck)
        assert 0 < len(found) < count
        async with (
            running_pod(space) as other,
            await stream(other.port, PATH, found[-1]) as wire,
        ):
            found += [event.last_event_id for event in await wire.rest()]
        assert found == await read_of(store)


async def events_until_lost(wire: Wire) -> list[str]:
    """The ids that still arrive on a connection that was given up."""
    found: list[str] = []
    try:
        while (event := await wire.event()) is not None:
            found.append(event.last_event_id)
    except (ConnectionError, asyncio.IncompleteReadError):
        wire.cut()
    return found


@pytest.mark.fault("F35")
async def test_a_slow_reader_gets_everything(space: Space) -> None:
    """It is not cut off as long as it reads at all."""
    count = 50
    async with running_pod(space, send_seconds=PATIENCE_SECONDS) as pod:
        store = await pod.store()
        await store.create(RUN, "t")
        slow = await send_request(pod.port, PATH, receive_bytes=4_096)
        await slow.read_head()
        for _ in range(count):
            await store.append(RUN, log(BIG))
        await store.finish(RUN, RunState.COMPLETED)
        assert [event.last_event_id for event in await slow.rest()] == await read_of(store)
        slow.cut()
        await pod.released()


@pytest.mark.parametrize("path", [PATH, f"/stream?run={RUN}", "/events/stream"])
async def test_a_drain_lets_all_go_at_once_with_different_waits(space: Space, path: str) -> None:
    """Each reader gets another time after which to reconnect."""
    async with running_pod(space, heartbeat_seconds=NEVER, retry_ms=1_000) as pod:
        store = await pod.store()
        await store.create(RUN, "t")
        wires = [await stream(pod.port, path) for _ in range(10)]
        await wait_until(lambda: pod.pod.streams.total() == len(wires), "all are open")
        pod.pod.drain.set()
        for wire in wires:
            await wire.rest()
            assert wire.is_over
            wire.cut()
        waits = [wire.source.reconnection_ms or 0 for wire in wires]
        assert all(1_000 <= wait <= 5_000 for wait in waits)
        assert len(set(waits)) > 1
        await pod.released()
        async with await get(pod.port, path) as refused:
            assert refused.status == 503
            assert "retry-after" in refused.headers


@pytest.mark.fault("F54")
async def test_a_stream_that_takes_nothing_does_not_hold_a_drain_up(space: Space) -> None:
    """It is cut off."""
    async with running_pod(space, send_seconds=1.0, heartbeat_seconds=NEVER) as pod:
        store = await pod.store()
        await store.create(RUN, "t")
        stuck = await send_request(pod.port, PATH, receive_bytes=4_096)
        await stuck.read_head()
        await following(pod, 1)
        connection = next(iter(pod.server.server_state.connections))
        while not cast("LimitedProtocol", connection).flow.write_paused:
            await store.append(RUN, log(BIG))
        pod.pod.drain.set()
        await pod.released()
        await wait_until(
            lambda: not pod.server.server_state.connections, "the connection is given up"
        )
        stuck.cut()


async def test_a_stream_ends_with_its_time_and_goes_on_where_it_was(space: Space) -> None:
    """After stream_seconds the client reconnects with its cursor."""
    async with running_pod(space, stream_seconds=0.5, heartbeat_seconds=NEVER) as pod:
        store = await pod.store()
        await store.create(RUN, "t")
        await store.append(RUN, log("before"))
        async with await stream(pod.port, PATH) as wire:
            events = await wire.rest()
            assert [json.loads(event.data)["data"] for event in events] == ["before"]
            assert wire.is_over
            assert wire.source.reconnection_ms is not None
        await pod.released()
        await store.append(RUN, log("between"))
        async with await stream(pod.port, PATH, events[-1].last_event_id) as wire:
            again = await wire.rest()
            assert [json.loads(event.data)["data"] for event in again] == ["between"]


async def test_a_stream_ends_with_its_readers_credentials(space: Space) -> None:
    """It ends at the time at which they expire."""

    async def soon_over(_: object) -> Principal:
        return Principal("someone", frozenset(Scope), expires_at=time.time() + 0.3)

    async with running_pod(space, authenticator=soon_over, heartbeat_seconds=NEVER) as pod:
        await (await pod.store()).create(RUN, "t")
        async with await stream(pod.port, PATH) as wire:
            assert await wire.rest() == []
            assert wire.is_over
        await pod.released()


@pytest.mark.parametrize("path", [PATH, f"/stream?run={RUN}", "/events/stream"])
@pytest.mark.parametrize("unwound", [True, False])
async def test_a_token_that_is_withdrawn_ends_its_open_stream(
    space: Space, tmp_path: Path, path: str, unwound: bool
) -> None:
    """A stream with another token goes on."""
    file, lost, valid = tmp_path / "tokens.toml", "lost-token-0123456789", "valid-token-0123456789"
    record = '[[tokens]]\nname = "{0}"\ntoken = "{0}"\nscopes = ["admin"]\n'
    file.write_text(record.format(lost) + record.format(valid))
    asks: dict[str, Any] = {"authenticator": BearerTokens.of_file(file), "unwound": unwound}
    async with running_pod(space, heartbeat_seconds=FAST, **asks) as pod:
        await (await pod.store()).create(RUN, "t")
        bearers = [{"Authorization": f"Bearer {token}"} for token in (lost, valid)]
        withdrawn, other = [await get(pod.port, path, headers) for headers in bearers]
        while withdrawn.source.comments < 2:
            withdrawn.source.feed(await withdrawn.chunk())
        withdrawn.source.reconnection_ms = None
        file.write_text(record.format(valid))
        while data := await withdrawn.chunk():
            withdrawn.source.feed(data)
        assert withdrawn.is_over
        assert withdrawn.source.reconnection_ms is not None
        async with await get(pod.port, path, bearers[0]) as refused:
            assert refused.status == 401
        beats = other.source.comments
        while other.source.comments < beats + 3:
            other.source.feed(await other.chunk())
        other.cut()
        withdrawn.cut()
        await pod.released()


async def test_a_withdrawn_token_ends_a_stream_that_is_never_quiet(space: Space) -> None:
    """Credentials are checked though events keep coming."""
    known = {b"good"}

    async def asked(headers: list[tuple[bytes, bytes]]) -> Principal:
        if dict(headers).get(b"authorization") not in known:
            raise ProblemError(UNAUTHORIZED)
        return Principal("someone", frozenset({Scope.READ}))

    async with running_pod(space, authenticator=asked, heartbeat_seconds=1.0) as pod:
        store = await pod.store()
        await store.create(RUN, "t")
        async with await get(pod.port, PATH, {"Authorization": "good"}) as wire:
            known.clear()
            while not wire.is_over:
                await store.append(RUN, log("x"))
                wire.source.feed(await wire.chunk())
            assert wire.source.comments == 0
        await pod.released()


async def test_who_cannot_be_asked_after_is_not_thrown_out(
    space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing check of credentials leaves the stream open."""
    asked = 0

    async def once(_: object) -> Principal:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise OSError("no directory")
        return Principal("someone", frozenset({Scope.READ}))

    async with running_pod(space, authenticator=once, heartbeat_seconds=FAST) as pod:
        await (await pod.store()).create(RUN, "t")
        async with await stream(pod.port, PATH) as wire:
            while wire.source.comments < 2:
                wire.source.feed(await wire.chunk())
        await pod.released()
    assert asked > 2
    assert "cannot be checked" in caplog.text


async def by_name(headers: list[tuple[bytes, bytes]]) -> Principal:
    token = dict(headers).get(b"authorization", b"").decode()
    return Principal(token, frozenset({Scope.READ}), tenant=token.partition("@")[2] or None)


async def test_one_callers_streams_are_limited_until_one_ends(space: Space) -> None:
    """The next stream is 429 until then."""
    limits: dict[str, Any] = {"max_streams_per_caller": 2, "max_streams": 3}
    async with running_pod(space, authenticator=by_name, **limits) as pod:
        await (await pod.store()).create(RUN, "t")
        one, two = {"Authorization": "one"}, {"Authorization": "two"}
        wires = [await get(pod.port, PATH, one) for _ in range(2)]
        async with await get(pod.port, PATH, one) as refused:
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) > 0
        wires.append(await get(pod.port, PATH, two))
        async with await get(pod.port, PATH, two) as refused:
            assert refused.status == 429
        wires[0].cut()
        await wait_until(lambda: pod.pod.streams.total() == 2, "one stream has ended")
        wires.append(await get(pod.port, PATH, one))
        assert wires[-1].status == 200
        for wire in wires:
            wire.cut()
        await pod.released()


@pytest.mark.parametrize("path", [PATH, f"/stream?run={RUN}"])
async def test_another_tenants_run_is_as_unknown_as_none(space: Space, path: str) -> None:
    """The answer equals that for a missing run."""
    async with running_pod(space, authenticator=by_name) as pod:
        await (await pod.store()).create(RUN, "t", tenant="a")
        async with await get(pod.port, path, {"Authorization": "one@b"}) as foreign:
            assert foreign.status == 404
            document = await foreign.json()
        unknown_path = path.replace(RUN, "run-2")
        async with await get(pod.port, unknown_path, {"Authorization": "one@b"}) as unknown:
            assert unknown.status == 404
            other = await unknown.json()
        assert {**document, "request_id": "", "detail": "", "message": ""} == {
            **other,
            "request_id": "",
            "detail": "",
            "message": "",
        }
        assert document["detail"].replace(RUN, "run-2") == other["detail"]
        async with await get(pod.port, path, {"Authorization": "one@a"}) as own:
            assert own.status == 200


async def test_a_store_that_is_closed_ends_its_streams(space: Space) -> None:
    """The stream is released."""
    async with running_pod(space, heartbeat_seconds=NEVER) as pod:
        await (await pod.store()).create(RUN, "t")
        async with await stream(pod.port, PATH) as wire:
            await following(pod, 1)
            await pod.fleet.close()
            assert await wire.rest() == []
            assert wire.is_over
        await wait_until(lambda: not pod.pod.streams, "the stream is released")


def alive(*kinds: type) -> list[object]:
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


async def test_open_streams_hold_no_request_and_closed_ones_nothing(space: Space) -> None:
    """No object of a request stays alive."""
    async with running_pod(space, heartbeat_seconds=NEVER) as pod:
        await (await pod.store()).create(RUN, "t")
        wires = [await stream(pod.port, PATH) for _ in range(10)]
        await following(pod, 10)
        assert alive(Request) == []
        assert len(alive(MessageStream)) == 10
        for wire in wires:
            wire.cut()
        await pod.released()
        await wait_until(lambda: not pod.server.server_state.tasks, "the requests are over")
        assert alive(MessageStream, Followed, EventStream, RequestResponseCycle) == []


async def test_a_stream_works_in_an_app_that_does_not_unwind(space: Space) -> None:
    """Servers that drop a request without cancelling it are supported."""
    async with running_pod(space, unwound=False, heartbeat_seconds=NEVER) as pod:
        store = await pod.store()
        await store.create(RUN, "t")
        async with await stream(pod.port, PATH) as wire:
            await store.append(RUN, log("x"))
            await wire.some(1)
        await pod.released()


async def test_a_body_that_does_not_come_ends_the_stream(space: Space) -> None:
    """A GET that announces a body and sends none is ended."""
    async with running_pod(space, body_seconds=FAST, heartbeat_seconds=NEVER) as pod:
        await (await pod.store()).create(RUN, "t")
        wire = await send_request(pod.port, PATH, {"Content-Length": "5"})
        await wire.read_head()
        assert wire.status == 200
        assert await wire.rest() == []
        wire.cut()
        await pod.released()
