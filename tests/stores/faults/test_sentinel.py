"""A service of Sentinels: what programs notice when another server becomes its primary."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from redis.asyncio.sentinel import Sentinel

from murmur_streams import Fleet
from murmur_streams.core.model.errors import StoreConfigurationError, StoreUnavailableError
from murmur_streams.core.model.states import RunState
from murmur_streams.embedded.sentinel_group import SERVICE, SentinelGroup
from murmur_streams.stores.redis.roles import Role, rights_at_sentinels, rights_of
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Failover, fail_over
from tests.fleet.working import working
from tests.running_server import short_folder
from tests.sentinel_service import sentinel_service
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.failovers import Writing
from tests.stores.faults.refusals import SECRET, refusal


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    """Three Sentinels, a primary and a replica; a new service costs less than a mended one."""
    with short_folder() as folder, sentinel_service(folder) as group:
        yield group


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.fault("F14", "F15", on="sentinel")
async def test_writers_and_readers_outlive_their_primary(
    how: Failover, group: SentinelGroup
) -> None:
    """What the replica had received is there, once, and an open stream goes on."""
    async with RedisRunStore(group.url) as store:
        await store.create("run", "work")
        read: list[str | None] = []

        async def follow() -> None:
            read.extend([event.name async for event in store.stream("run")])

        reading = asyncio.create_task(follow())
        writing = Writing(store)
        await writing.continues()
        # What is acknowledged now and not yet with the replica is what the fault may take away.
        with group.primary.client as admin:
            admin.wait(1, 5_000)
        replicated = list(writing.acknowledged)
        old = await fail_over(group, how)
        await writing.continues()
        old.start() if how == "killed" else old.thaw()
        await writing.continues()
        await writing.stop()
        await store.finish("run", RunState.COMPLETED)
        names = await names_in_journal(store, "run")
        assert len(names) == len(set(names))
        assert set(replicated) <= set(names)
        assert (await store.audit("run")).problems == ()
        await asyncio.wait_for(reading, 30)
        assert len(read) == len(set(read))


async def test_an_orderly_failover_ends_no_run(group: SentinelGroup) -> None:
    """The worker of a run goes on, and so does the caller that waits for its output."""
    fleet = Fleet(group.url)
    begun = asyncio.Event()
    may_end = asyncio.Event()

    @fleet.agent
    async def waits(text: str) -> str:
        begun.set()
        await may_end.wait()
        return text

    async with fleet, working(fleet):
        handle = await fleet.submit("waits", "done")
        await begun.wait()
        with group.primary.client as admin:
            admin.wait(1, 5_000)
        output = asyncio.create_task(handle.output(timeout=30))
        await fail_over(group, "in order")
        may_end.set()
        assert await output == "done"


async def test_a_service_that_no_sentinel_monitors_is_refused(
    group: SentinelGroup, make_store: StoreMaker
) -> None:
    """The error says where the name comes from."""
    store = make_store(group.url.replace(f"/{SERVICE}/", "/another/"))
    text = await refusal(store.create("run", "work"), StoreConfigurationError)
    assert "'another'" in text
    assert "sentinel monitor" in text


async def test_sentinels_that_do_not_answer_are_named(make_store: StoreMaker) -> None:
    """The error names each address that was asked."""
    store = make_store("redis+sentinel://127.0.0.1:1,127.0.0.1:2/runs", retry_seconds=0.1)
    text = await refusal(store.create("run", "work"), StoreUnavailableError)
    assert "127.0.0.1:1, 127.0.0.1:2" in text


async def test_one_sentinel_that_is_gone_is_no_hindrance(
    group: SentinelGroup, make_store: StoreMaker
) -> None:
    """The others know the primary."""
    store = make_store(group.url.replace("redis+sentinel://", "redis+sentinel://127.0.0.1:1,"))
    await store.create("run", "work")
    assert await store.append("run", note("run", "a")) == 2


async def test_a_client_of_theirs_is_followed_to_the_primary(group: SentinelGroup) -> None:
    """The client of ``Sentinel.master_for`` names the Sentinels, as a URL does."""
    sentinels = [("127.0.0.1", each.port) for each in group.sentinels]
    client = Sentinel(sentinels).master_for(SERVICE)
    async with client, RedisRunStore(client=client) as store:
        await store.create("run", "work")
        with group.primary.client as admin:
            admin.wait(1, 5_000)
        await fail_over(group, "in order")
        assert await store.append("run", note("run", "a")) == 2


def test_a_client_of_replicas_is_refused() -> None:
    """The error says which client to make."""
    client = Sentinel([("127.0.0.1", 1)]).slave_for(SERVICE)
    with pytest.raises(StoreConfigurationError, match="master_for"):
        RedisRunStore(client=client)


async def test_the_printed_rights_suffice_at_a_service(group: SentinelGroup) -> None:
    """Those of the servers and those of the Sentinels, also through a failover."""
    user = f"crew:{SECRET}"
    at_servers = rights_of(Role.WORKER, "murmur:runs", is_replicated=True).line("crew", SECRET)
    lines = [(each, at_servers) for each in group.servers]
    lines += [(each, rights_at_sentinels().line("crew", SECRET)) for each in group.sentinels]
    for node, line in lines:
        with node.client as admin:
            cast("Any", admin).execute_command(*line.split())
    options = f"?sentinel_username=crew&sentinel_password={SECRET}"
    url = group.url.replace("://", f"://{user}@") + options
    async with RedisRunStore(url, durability="replicated") as store:
        await store.queue(15).prepare(["work"])
        await store.submit("run", "work")
        await fail_over(group, "in order")
        await asyncio.to_thread(group.wait_until_whole)
        assert await store.append("run", note("run", "a")) == 2
        assert [*store.warnings] == ["replicas"]
        for node, _ in lines:
            with node.client as admin:
                assert cast("Any", admin).acl_log() == []


async def test_a_promoted_server_is_not_taken_back(group: SentinelGroup) -> None:
    """A look at the servers that began before a failover changes nothing after it."""
    old = group.primary
    old.freeze()
    looking = asyncio.create_task(asyncio.to_thread(group._are_linked))
    await asyncio.to_thread(group.wait_for_other_primary, old)
    old.thaw()
    await looking
    with group.primary.client as admin:
        assert cast("Any", admin).info("replication")["role"] == "master"


async def test_a_server_that_comes_back_is_a_replica(group: SentinelGroup) -> None:
    """From its start: a replica that still followed it would take over its old copy."""
    old = await fail_over(group, "killed")
    await asyncio.to_thread(group.start_again, old)
    with old.client as admin:
        assert cast("Any", admin).info("replication")["role"] == "slave"
