"""``durability="replicated"``: what was acknowledged outlives the primary."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from murmur_streams.core.model.errors import InvalidInputError, NotReplicatedError
from murmur_streams.embedded.sentinel_group import SentinelGroup
from murmur_streams.stores.redis.replication import replicas_that_keep_up
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Failover, ServerHandle, fail_over
from tests.running_server import short_folder
from tests.sentinel_service import sentinel_service
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal
from tests.stores.faults.failovers import Writing
from tests.stores.faults.refusals import refusal
from tests.stores.faults.servers import spare_server


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    """A primary with two replicas: one is left to confirm writes after a failover."""
    with short_folder() as folder, sentinel_service(folder, replicas=2) as group:
        yield group


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[ServerHandle]:
    async with spare_server(tmp_path / "replica") as server:
        yield server


@pytest.mark.parametrize("how", ["killed", "frozen", "in order"])
@pytest.mark.fault("F14", "F16", on="sentinel")
async def test_nothing_acknowledged_is_lost(
    how: Failover, group: SentinelGroup, log: pytest.LogCaptureFixture
) -> None:
    """Writes of many tasks, under way all the time: each acknowledged one is there, once."""
    async with RedisRunStore(group.url, durability="replicated") as store:
        await store.create("run", "work")
        writers = [Writing(store, f"{number}-") for number in range(20)]
        for writing in writers:
            await writing.continues()
        old = await fail_over(group, how)
        for writing in writers:
            await writing.continues()
        if how == "frozen":
            old.thaw()
            await writers[0].continues()
        for writing in writers:
            await writing.stop()
        names = await names_in_journal(store, "run")
        assert len(names) == len(set(names))
        acknowledged = {name for writing in writers for name in writing.acknowledged}
        assert acknowledged <= set(names)
        assert (await store.audit("run")).problems == ()
    gc.collect()
    assert "never retrieved" not in log.text


async def test_the_error_says_how_many_replicas_have_a_write(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """The error says that the primary applied it, and how many replicas have it."""
    store = make_store(spare.url(), durability="replicated", retry_seconds=0.1)
    text = await refusal(store.create("run", "work"), NotReplicatedError)
    assert "0 of 1 replicas" in text
    plain = make_store(spare.url())
    assert (await plain.snapshot("run")).version == 1


async def test_a_replica_that_comes_late_confirms_what_waits(
    spare: ServerHandle, make_store: StoreMaker, replica: ServerHandle
) -> None:
    """The write is sent again with its number until a replica has it, and is applied once."""
    store = make_store(spare.url(), durability="replicated")
    creating = asyncio.create_task(store.create("run", "work"))
    plain = make_store(spare.url())
    async with spare.client() as admin:
        await admin.config_set("repl-diskless-sync-delay", "0")
    async with replica.client() as admin:
        await admin.execute_command("REPLICAOF", *(str(part) for part in spare.address))
    await creating
    assert (await plain.snapshot("run")).version == 1


def test_an_unknown_durability_is_refused() -> None:
    """The error explains the two words."""
    with pytest.raises(InvalidInputError, match=r"'primary'.*'replicated'"):
        RedisRunStore("redis://127.0.0.1", durability="safe")  # pyright: ignore[reportArgumentType]  # it is what must fail


@pytest.mark.fault("F16", on="sentinel")
def test_replicas_that_are_far_behind_are_not_waited_for() -> None:
    """Only those online that have confirmed something lately count."""
    info = {
        "connected_slaves": "3",
        "slave0": "ip=127.0.0.1,port=1,state=online,offset=10,lag=0",
        "slave1": "ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0",
        "slave2": "ip=127.0.0.1,port=3,state=online,offset=2,lag=60",
    }
    assert replicas_that_keep_up(info) == 1
    assert replicas_that_keep_up({"connected_slaves": "0"}) == 0
