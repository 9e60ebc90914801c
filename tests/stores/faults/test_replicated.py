"""``durability="replicated"``: what was acknowledged outlives the primary."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from murmur_streams.core.model.errors import (
    InvalidInputError,
    NotReplicatedError,
    OutcomeUnknownError,
)
from murmur_streams.embedded.sentinel_group import SentinelGroup
from murmur_streams.stores.redis import replication
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.replication import Replicas, ReplicatedLane, online_replicas
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Failover, ServerHandle, fail_over
from tests.running_server import short_folder
from tests.sentinel_service import sentinel_service
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.failovers import Writing
from tests.stores.faults.refusals import refusal
from tests.stores.faults.servers import spare_server
from tests.stores.faults.waiting import wait_until


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
    store = make_store(spare.url(), durability="replicated", retry_seconds=1.0)
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


INFO = {
    "connected_slaves": "3",
    "slave0": "ip=127.0.0.1,port=1,state=online,offset=10,lag=0",
    "slave1": "ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0",
    "slave2": "ip=127.0.0.1,port=3,state=online,offset=2,lag=60",
}


def test_replicas_that_have_no_data_yet_are_not_listed() -> None:
    """Only those online are, with the seconds since their last confirmation."""
    assert online_replicas(INFO) == {"127.0.0.1:1": 0, "127.0.0.1:3": 60}
    assert online_replicas({"connected_slaves": "0"}) == {}


class Service:
    """A primary with replicas: a topology, its agreement and Connections at once."""

    def __init__(self) -> None:
        self.agreement = self
        self.when_moved: Callable[[], None] = lambda: None
        self.term, self.name = 1, "host:9"
        self.agrees = True
        self.asked = 0
        self.lags: dict[int, int] = {1: 0, 2: 0}
        """Seconds by the port of each replica that is online."""

    async def is_agreed(self) -> bool:
        self.asked += 1
        return self.agrees

    async def every_reply(self, _: object) -> list[bytes]:
        rows = [
            f"slave{number}:ip=host,port={port},state=online,offset=1,lag={lag}"
            for number, (port, lag) in enumerate(self.lags.items())
        ]
        return ["\r\n".join([f"connected_slaves:{len(rows)}", *rows]).encode()]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def replicas(service: Service) -> Replicas:
    given: Any = service
    return Replicas(given, given, "host", 1.0)


async def needed(replicas: Replicas) -> int | None:
    await replicas.count()
    return replicas.needed


@pytest.mark.fault("F15", "F16", on="sentinel")
async def test_a_replica_that_has_just_left_counts(
    replicas: Replicas, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been promoted; it counts until it is away for long and the Sentinels agree."""
    assert await needed(replicas) == 2
    del service.lags[2]
    assert await needed(replicas) == 2
    monkeypatch.setattr(replication, "LASTING_SECONDS", -1.0)
    service.agrees, service.lags[1] = False, -2
    assert await needed(replicas) == 2
    service.agrees = True
    assert await needed(replicas) == 1


@pytest.mark.fault("F15", "F16", on="sentinel")
async def test_another_replica_does_not_stand_for_one_that_left(
    replicas: Replicas, service: Service
) -> None:
    """Which replicas count is remembered, and not only how many."""
    service.lags = {1: 0}
    assert await needed(replicas) == 1
    service.lags = {2: 0}
    assert await needed(replicas) == 2


async def test_a_replica_that_is_far_behind_does_not_count(
    replicas: Replicas, service: Service
) -> None:
    """It has confirmed nothing for longer than a failover takes."""
    service.lags[2] = 60
    assert await needed(replicas) == 1


@pytest.mark.fault("F15", "F16", on="sentinel")
async def test_after_a_failover_the_others_count(replicas: Replicas, service: Service) -> None:
    """The new primary's replicas, once most Sentinels name it; those from before count as well."""
    assert await needed(replicas) == 2
    service.term, service.name, service.lags, service.agrees = 2, "host:1", {}, False
    service.when_moved()
    assert await needed(replicas) is None
    service.agrees = True
    assert await needed(replicas) == 1
    service.lags = {2: 0, 3: 0}
    assert await needed(replicas) == 2


async def test_a_store_that_moved_waits_for_no_old_replica(
    replicas: Replicas, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new primary is asked at once."""
    service.when_moved()
    assert replicas.needed is None
    assert await needed(replicas) == 2
    monkeypatch.setattr(replication, "LOOK_SECONDS", 3_600.0)
    watching = asyncio.create_task(replicas.watch())
    await asyncio.sleep(0)
    service.term, service.name, service.lags = 2, "host:1", {2: 0, 3: 0, 4: 0}
    service.when_moved()
    assert replicas.needed is None
    await wait_until(lambda: replicas.needed == 3, "they are counted again")
    watching.cancel()


async def test_the_first_count_needs_most_sentinels(replicas: Replicas, service: Service) -> None:
    """A program that has just begun may have been led to an old primary."""
    service.agrees = False
    assert await needed(replicas) is None
    service.agrees = True
    assert await needed(replicas) == 2


@pytest.mark.fault("F16")
async def test_writes_wait_for_a_replica_that_has_just_left(
    spare: ServerHandle, make_store: StoreMaker, replica: ServerHandle, tmp_path: Path
) -> None:
    """One replica confirms, the other has been promoted: the write is not acknowledged."""
    async with spare_server(tmp_path / "other") as other:
        async with spare.client() as admin:
            await admin.config_set("repl-diskless-sync-delay", "0")
        for each in (replica, other):
            async with each.client() as admin:
                await admin.execute_command("REPLICAOF", *(str(part) for part in spare.address))
        store = make_store(spare.url(), durability="replicated", retry_seconds=2.0)
        await store.create("run", "work")

        async def both_count() -> bool:
            [counted] = store._writer._lanes._replicas.values()
            return counted.needed == 2

        await wait_until(both_count, "both replicas count")
        await other.promote()
        text = await refusal(store.append("run", note("run", "a")), NotReplicatedError)
        assert "1 of 2 replicas" in text


class Answers:
    """A lane that answers at once."""

    def __init__(self, *answers: object) -> None:
        self._answers = [*answers]

    def call(self, *_: object, notify: Callable[[], None] | None = None) -> asyncio.Future[object]:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[object] = loop.create_future()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            reply.set_exception(answer)
        else:
            reply.set_result(answer)
        if notify is not None:
            loop.call_soon(notify)
        return reply


@pytest.mark.parametrize(
    "text",
    [
        "UNBLOCKED force unblock from blocking operation, instance state changed",
        "ERR WAIT cannot be used with replica instances.",
        "NOPERM this user has no permissions to run the 'wait' command",
    ],
)
@pytest.mark.fault("F14", "F16")
async def test_an_error_of_the_wait_is_not_the_calls(replicas: Replicas, text: str) -> None:
    """The call was executed: whatever the server answers to the WAIT, its outcome is unknown."""
    given: Any = Answers(b"done", ResponseError(text), b"")
    call = ReplicatedLane(given, replicas).call("SET", "key", "value")
    await asyncio.wait([call])
    error = call.exception()
    assert isinstance(error, failures.TooFewReplicasError)
    assert failures.fate_of(error) is failures.Fate.UNKNOWN
    given = Answers(ResponseError("OOM no memory"), ResponseError(text), b"")
    call = ReplicatedLane(given, replicas).call("SET", "key", "value")
    await asyncio.wait([call])
    assert failures.code_of(call.exception() or ValueError()) == "OOM"


@pytest.mark.parametrize(
    ("confirmed", "online", "is_acknowledged"),
    [
        (1, {1: 0}, True),
        (1, {}, True),  # It has confirmed, and has left since.
        (1, {2: 0}, False),
        (1, {1: 0, 2: 0}, False),
        (2, {1: 0, 2: 0}, True),
    ],
)
@pytest.mark.fault("F14", "F15")
async def test_a_replica_that_came_a_moment_ago_stands_for_no_other(
    service: Service,
    replicas: Replicas,
    confirmed: int,
    online: dict[int, int],
    is_acknowledged: bool,
) -> None:
    """WAIT counts replicas without names: the one that counts may have just been promoted."""
    service.lags = {1: 0}
    assert await needed(replicas) == 1
    service.lags = online
    (listed,) = await service.every_reply([])
    given: Any = Answers(b"done", confirmed, listed)
    call = ReplicatedLane(given, replicas).call("SET", "key", "value")
    await asyncio.wait([call])
    assert (call.exception() is None) is is_acknowledged
    assert replicas._has_moved.is_set() is (2 in online)


@pytest.mark.fault("F14", "F16")
async def test_a_write_on_a_demoted_primary_is_not_refused(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """It was executed, and the server became a replica while it waited for its replicas."""
    store = make_store(spare.url(), durability="replicated", retry_seconds=1.0)
    creating = asyncio.create_task(store.create("run", "work"))
    async with spare.client() as admin:

        async def waits() -> bool:
            return int((await admin.info("clients"))["blocked_clients"]) == 1

        await wait_until(waits, "the call waits for replicas")
    await spare.demote()
    await refusal(creating, OutcomeUnknownError)
    await spare.promote()
    assert (await make_store(spare.url()).snapshot("run")).version == 1
