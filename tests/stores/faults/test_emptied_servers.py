"""A server that was emptied under live programs is never filled with two numbers of partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import TargetRule
from murmur_streams.embedded import EmbeddedServer
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.partitions import forget_numbers, raise_partitions
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import ServerHandle
from tests.key_audit import audit_keys, dump_keys
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.refusals import opening, refusal
from tests.stores.faults.waiting import wait_until

MANY = 4
WRITERS = 8
FLUSHES = 20


def one_of_each(partitions: int) -> list[str]:
    """A run id of each partition."""
    keys, found = Keys("any", partitions), dict[int, str]()
    for number in range(1_000):
        found.setdefault(keys.partition(f"r-{number}"), f"r-{number}")
    return [found[number] for number in range(partitions)]


async def numbers_in(admin: Redis, store: RedisRunStore) -> set[str]:
    """The numbers of partitions that the key space names, in its meta and in its partitions."""
    rows = [key async for key in admin.scan_iter(f"{store._keys.prefix}:*meta")]
    return {str(await admin.hget(row, "partitions")) for row in rows}


async def submit(store: RedisRunStore) -> None:
    await store.submit("after", "work")


async def create(store: RedisRunStore) -> None:
    await store.create("after", "work")


async def pause(store: RedisRunStore) -> None:
    await store.pause("work")


async def resume(store: RedisRunStore) -> None:
    await store.resume("work")


async def claim(store: RedisRunStore) -> None:
    await store.queue(lease_seconds=60).claim("w", [TargetRule("work", 3)], 10)


FILLING: dict[str, Callable[[RedisRunStore], Awaitable[None]]] = {
    "submit": submit,
    "create": create,
    "pause": pause,
    "resume": resume,
    "claim": claim,
}
"""Calls that can write into an empty partition, or take runs that others wrote into it."""

every_filling = pytest.mark.parametrize("name", FILLING)


@every_filling
async def test_a_live_program_writes_meta_again(
    name: str, admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """After FLUSHALL the next write puts meta there first, so that no other number fits."""
    live = make_store(server.url)
    await live.submit("before", "work")
    await admin.flushall()
    await FILLING[name](live)
    assert await admin.hgetall(live._keys.meta) == {"schema_version": "1", "partitions": "1"}
    text = await refusal(opening(make_store(server.url, partitions=MANY)), StoreConfigurationError)
    assert "partitions=1" in text


@every_filling
@pytest.mark.parametrize("has_runs", [False, True], ids=["empty", "filled"])
async def test_a_live_program_with_another_number_is_refused(
    name: str, has_runs: bool, admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """A program that started after FLUSHALL fixed the number: older ones write nothing more."""
    live = make_store(server.url)
    await live.submit("before", "work")
    await admin.flushall()
    newer = make_store(server.url, partitions=MANY)
    for run_id in one_of_each(MANY) if has_runs else []:
        await newer.submit(run_id, "work")
    await newer.ping()
    with BlockingRedis.from_url(server.url) as client:
        before = dump_keys(client)
        text = await refusal(FILLING[name](live), StoreConfigurationError)
        assert dump_keys(client) == before
    assert "partitions=4" in text
    assert "opened with 1" in text


async def test_a_restore_with_another_number_puts_nothing_aside(
    admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """A restore writes the journal aside first; that page is refused like the run itself."""
    live = make_store(server.url)
    await live.submit("moved", "work")
    archive = await live.archive("moved")
    await admin.flushall()
    await make_store(server.url, partitions=MANY).ping()
    with BlockingRedis.from_url(server.url) as client:
        before = dump_keys(client)
        text = await refusal(live.restore(archive), StoreConfigurationError)
        assert dump_keys(client) == before
    assert "partitions=4" in text


async def test_a_requeue_with_another_number_keeps_the_letter(
    admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """The older program finds the letter in the partition that both know, and may not take it."""
    live = make_store(server.url)
    await live.ping()
    await admin.flushall()
    newer = make_store(server.url, partitions=MANY)
    run_id = one_of_each(MANY)[0]
    await newer.submit(run_id, "work")
    await newer.finish(run_id, RunState.FAILED, dead="why")
    text = await refusal(live.dead_letters().requeue(run_id), StoreConfigurationError)
    assert "partitions=4" in text
    assert (await newer.dead_letters().get(run_id)).run_id == run_id


async def test_a_restore_on_an_emptied_server_writes_meta_again(
    admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """Moving runs back in is a write like every other."""
    live = make_store(server.url)
    await live.submit("moved", "work")
    archive = await live.archive("moved")
    await admin.flushall()
    assert await live.restore(archive)
    assert await numbers_in(admin, live) == {"1"}


async def test_a_server_restarted_empty_is_not_filled_with_two_numbers(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """Like FLUSHALL, but the scripts and connections are gone too."""
    live = make_store(spare.url())
    await live.submit("before", "work")
    await spare.kill()
    await spare.start()
    newer = make_store(spare.url(), partitions=MANY)
    for run_id in one_of_each(MANY):
        await newer.submit(run_id, "work")
    assert "partitions=4" in await refusal(submit(live), StoreConfigurationError)
    assert (await newer.list_runs()).cursor is None
    assert len((await newer.list_runs()).runs) == MANY


async def test_a_deleted_meta_does_not_let_another_number_in(
    admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """The partitions keep the number too, so a meta that was deleted by hand comes back right."""
    live = make_store(server.url)
    await live.submit("before", "work")
    await admin.delete(live._keys.meta)
    text = await refusal(opening(make_store(server.url, partitions=MANY)), StoreConfigurationError)
    assert "partitions=1" in text
    assert not await admin.exists(live._keys.meta)
    await make_store(server.url).submit("after", "work")
    assert await numbers_in(admin, live) == {"1"}


async def test_runs_of_an_earlier_version_need_one_confirmation(
    admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """Where only meta holds the number, as earlier versions left it, the first write adds it."""
    live = make_store(server.url)
    await live.submit("before", "work")
    await admin.delete(live._keys.partition_meta(0))
    await live.submit("after", "work")
    assert await admin.hgetall(live._keys.partition_meta(0)) == {"partitions": "1"}
    assert [run.run_id for run in (await live.list_runs()).runs] == ["after", "before"]


async def test_a_ping_writes_meta_again_or_refuses(
    admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """A pod is asked whether it is ready every few seconds: it notices before its next write."""
    live = make_store(server.url)
    await live.ping()
    await admin.flushall()
    await live.ping()
    assert await numbers_in(admin, live) == {"1"}
    await admin.flushall()
    await make_store(server.url, partitions=MANY).ping()
    assert "partitions=4" in await refusal(live.ping(), StoreConfigurationError)


async def test_numbers_that_were_forgotten_stop_a_program(
    admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """One that has missed all of a raise is refused, if it was opened with the old number."""
    left, raising = make_store(server.url, partitions=1), make_store(server.url)
    await left.submit("gone", "work")
    await left.delete("gone", force=True)
    await raise_partitions(raising, MANY)
    await forget_numbers(raising)
    assert "partitions=4" in await refusal(submit(left), StoreConfigurationError)
    newer = make_store(server.url, partitions=MANY)
    for run_id in one_of_each(MANY):
        await newer.submit(run_id, "work")
    assert await numbers_in(admin, newer) == {"4"}


async def test_writes_keep_their_order_over_a_confirmation(
    admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """A write that is called after a create, without awaiting it, is applied after it."""
    live = make_store(server.url)
    await live.create("before", "work")
    await admin.flushall()
    _, version = await asyncio.gather(
        live.create("run", "work"), live.append("run", note("run", "a"))
    )
    assert version == 2
    assert await names_in_journal(live, "run") == ["a"]


@pytest.mark.fault("F12")
async def test_emptying_under_load_leaves_the_runs_of_one_number(
    admin: Redis, server: EmbeddedServer, make_store: StoreMaker
) -> None:
    """Writers of two numbers race after FLUSHALL: the first one decides, the others are refused."""
    stores = [make_store(server.url, partitions=number) for number in (1, MANY) for _ in range(2)]
    stopping, refused = asyncio.Event(), list[str]()

    async def write(store: RedisRunStore, name: str) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            try:
                await store.submit(f"{name}-{number}", "work")
            except StoreConfigurationError as error:
                refused.append(str(error))
                await asyncio.sleep(0)

    writers = [
        asyncio.create_task(write(store, f"w{index}-{number}"))
        for index, store in enumerate(stores)
        for number in range(WRITERS)
    ]
    for _ in range(FLUSHES):
        await admin.flushall()

        async def has_runs() -> bool:
            return any([key async for key in admin.scan_iter("*:run:*", count=1_000)])

        await wait_until(has_runs, "runs are written again")
    stopping.set()
    await asyncio.gather(*writers)
    assert len(await numbers_in(admin, stores[0])) == 1
    assert refused
    with BlockingRedis.from_url(server.url) as client:
        assert audit_keys(client) == []
