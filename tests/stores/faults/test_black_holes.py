"""Black holes: packets vanish without a close, and each connection that is deaf is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.states import RunState
from murmur_streams.embedded import EmbeddedServer
from murmur_streams.embedded.sentinel_group import SentinelGroup
from murmur_streams.fleet.worker import loops, worker
from murmur_streams.stores.redis import ends
from murmur_streams.stores.redis.connection import messages
from murmur_streams.stores.redis.live import sources
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Direction, FaultProxy, TcpProxy, commands
from tests.fleet.working import working
from tests.sentinel_service import sentinel_service
from tests.stores.faults.conftest import CALL_SECONDS, StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.waiting import wait_until

BLOCK_SECONDS = 0.3
WAYS = pytest.mark.parametrize("vanish", [*Direction, Direction.BOTH], ids=str)
"""What the client sends, what the server sends, or both."""
LEASE_SECONDS = 1.0


@pytest.fixture(autouse=True)
def short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads that block for a moment only."""
    for module in (sources, ends, loops):
        monkeypatch.setattr(module, "BLOCK_SECONDS", BLOCK_SECONDS)
    monkeypatch.setattr(worker, "IDLE_SECONDS", BLOCK_SECONDS)


@pytest.fixture
async def network(server: EmbeddedServer, nothing_is_left: None) -> AsyncIterator[TcpProxy]:
    """A network between programs and the server."""
    async with TcpProxy(str(server.socket_path)) as proxy:
        yield proxy


def url_of(network: TcpProxy) -> str:
    return f"redis://127.0.0.1:{network.port}"


@pytest.mark.fault("F51")
@WAYS
async def test_a_subscriber_goes_on(
    vanish: Direction, network: TcpProxy, straight: RedisRunStore, make_store: StoreMaker
) -> None:
    """A stream gets what was written in a black hole, on a new connection."""
    store = make_store(url_of(network))
    await store.create("run", "work")
    stream = aiter(store.stream("run"))
    await straight.append("run", note("run", "before"))
    assert (await anext(stream)).name == "before"
    network.black_hole(vanish)
    await straight.append("run", note("run", "in it"))
    assert (await asyncio.wait_for(anext(stream), 30)).name == "in it"
    await straight.finish("run", RunState.COMPLETED)
    assert [event.name async for event in stream] == []


@pytest.mark.fault("F51")
@WAYS
async def test_a_reader_of_the_feed_goes_on(
    vanish: Direction, network: TcpProxy, straight: RedisRunStore, make_store: StoreMaker
) -> None:
    """A feed gets what was written in a black hole, on a new connection."""
    store = make_store(url_of(network))
    await store.create("run", "work")
    feed = store.feed()
    assert (await anext(feed)).run_id == "run"
    network.black_hole(vanish)
    await straight.append("run", note("run", "in it"))
    found = await asyncio.wait_for(anext(feed), 30)
    assert found.entry.fields["name"] == "in it"
    await feed.aclose()


@pytest.mark.fault("F51")
@WAYS
async def test_a_caller_that_waits_for_an_end_gets_it(
    vanish: Direction, network: TcpProxy, server: EmbeddedServer
) -> None:
    """The output of a run that ended in a black hole."""
    options: dict[str, Any] = {"key_prefix": "faults:ends", "call_seconds": CALL_SECONDS}
    async with Fleet(server.url, **options) as there, Fleet(url_of(network), **options) as here:
        may_end = asyncio.Event()

        @there.agent
        async def waits(number: int) -> int:
            await may_end.wait()
            return number

        async with working(there):
            handle = await here.submit("waits", 7)
            output = asyncio.create_task(handle.output(timeout=30))
            run = there.handle(handle.run_id)

            async def runs() -> bool:
                return (await run.status()).state is RunState.RUNNING

            await wait_until(runs, "it is executed")
            network.black_hole(vanish)
            may_end.set()
            assert await output == 7


@pytest.mark.fault("F50")
@WAYS
async def test_a_worker_that_waits_gets_work(
    vanish: Direction, network: TcpProxy, server: EmbeddedServer
) -> None:
    """Runs that are submitted in a black hole are executed, also one that its claim took away."""
    options: dict[str, Any] = {"key_prefix": "faults:work", "call_seconds": CALL_SECONDS}
    async with Fleet(server.url, **options) as there, Fleet(url_of(network), **options) as here:

        @here.agent
        async def fine(number: int) -> int:
            return number + 1

        async with working(here, lease_seconds=LEASE_SECONDS):
            assert await (await there.submit("fine", 1)).output(timeout=30) == 2
            network.black_hole(vanish)
            handles = [await there.submit("fine", number) for number in range(5)]
            assert [await each.output(timeout=30) for each in handles] == [1, 2, 3, 4, 5]
            for each in handles:
                assert (await (await there.store()).audit(each.run_id)).ok


@pytest.mark.fault("F52")
@WAYS
async def test_a_run_in_a_black_hole_keeps_its_lease(
    vanish: Direction, network: TcpProxy, server: EmbeddedServer
) -> None:
    """Heartbeats and writes go on over new connections, before the lease is over."""
    options: dict[str, Any] = {"key_prefix": "faults:held", "call_seconds": CALL_SECONDS}
    async with Fleet(server.url, **options) as there, Fleet(url_of(network), **options) as here:
        may_go_on = asyncio.Event()

        @here.agent
        async def writes(run: RunContext) -> int:
            await run.emit("before", 0)
            await may_go_on.wait()
            await run.emit("in it", 1)
            return run.attempt

        async with working(here, lease_seconds=10 * LEASE_SECONDS):
            handle = await there.submit("writes")
            events = handle.stream()
            while (await anext(events)).name != "before":
                pass
            network.black_hole(vanish)
            may_go_on.set()
            assert [event.name async for event in events if event.name] == ["in it"]
            assert await handle.output(timeout=30) == 1


@pytest.mark.fault("F52")
@WAYS
async def test_writes_in_a_black_hole_count_once(
    vanish: Direction, network: TcpProxy, straight: RedisRunStore, make_store: StoreMaker
) -> None:
    """Each write is answered, over a new connection, and is there once."""
    store = make_store(url_of(network))
    await store.create("run", "work")
    names = [f"{number}" for number in range(20)]
    for half in (names[:10], names[10:]):
        writes = [store.append("run", note("run", name)) for name in half]
        network.black_hole(vanish)
        versions = await asyncio.gather(*writes)
        assert len(set(versions)) == len(half)
    assert sorted(await names_in_journal(straight, "run")) == sorted(names)


@pytest.mark.fault("F52")
async def test_one_deaf_connection_costs_one_wait(store: RedisRunStore, proxy: FaultProxy) -> None:
    """The connections beside it, which may be deaf as well, are not tried one after the other."""
    await store.create("run", "work")
    # So many reads at once that the store has as many connections as it ever has.
    await asyncio.gather(*(store.snapshot("run") for _ in range(20)))
    sent = [0]
    is_read = commands("HGETALL", "HMGET")

    def answer(parts: list[bytes]) -> None:
        sent[0] += is_read(parts)

    proxy.answer = answer
    proxy.black_hole(Direction.TO_CLIENT)
    assert (await store.snapshot("run")).run_id == "run"
    assert sent[0] == 2


@pytest.fixture
def group(tmp_path: Path, nothing_is_left: None):
    with sentinel_service(tmp_path / "group") as group:
        yield group


@pytest.mark.fault("F53", on="sentinel")
async def test_deaf_sentinels_are_listened_to_again(
    group: SentinelGroup, make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store subscribes again to Sentinels whose reports vanish."""
    monkeypatch.setattr(messages, "SILENT_SECONDS", BLOCK_SECONDS)
    async with (
        TcpProxy(("127.0.0.1", group.sentinels[0].port)) as first,
        TcpProxy(("127.0.0.1", group.sentinels[1].port)) as second,
    ):
        url = f"redis+sentinel://127.0.0.1:{first.port},127.0.0.1:{second.port}/runs"
        store = make_store(url)
        await store.create("run", "work")
        await wait_until(lambda: first.connections == second.connections == 1, "it listens")
        for proxy in (first, second):
            proxy.black_hole()
        await wait_until(
            lambda: first.half_open > 0 and second.half_open > 0, "the deaf connections are left"
        )
        await wait_until(lambda: first.connections == second.connections == 1, "it listens again")
        await store.close()
