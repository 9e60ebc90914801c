"""On a cluster, scripts wake idle workers by messages: one gets each, and one that is gone none."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest

from murmur_streams.core.model.work import TargetRule
from murmur_streams.embedded.cluster_group import ClusterGroup
from murmur_streams.stores.redis.store import RedisRunStore, server_of
from tests.cluster_service import cluster_service
from tests.running_server import short_folder
from tests.server_choice import chosen

pytestmark = pytest.mark.skipif(
    chosen().removesuffix("-without-functions") == "redis-6.2",
    reason="a node of a cluster is 7.0 or newer",
)
Subscribe = Callable[[str], "Inbox"]


class Inbox:
    """What is received on one channel."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    def messages(self) -> list[str]:
        """Those that have come since the last look."""
        self._subscription.ping()
        found: list[str] = []
        # What was published before the PING comes before its reply.
        while (message := self._subscription.get_message(timeout=10))["type"] != "pong":
            if message["type"] == "smessage":
                found.append(message["data"].decode())
        return found

    def end(self) -> None:
        """As when the worker's connection is lost."""
        self._subscription.close()


@pytest.fixture(scope="module")
def group() -> Iterator[ClusterGroup]:
    """One node that serves all slots."""
    with short_folder() as folder, cluster_service(folder, primaries=1, replicas=0) as group:
        yield group


@pytest.fixture
async def store(group: ClusterGroup) -> AsyncIterator[RedisRunStore]:
    """A store of one partition; the node is emptied at the end."""
    async with RedisRunStore(group.url, partitions=1) as store:
        yield store
    with group.nodes[0].client as admin:
        admin.flushall()


@pytest.fixture
def subscribe(group: ClusterGroup) -> Iterator[Subscribe]:
    """Subscribe to a channel."""
    with contextlib.ExitStack() as opened:
        admin = opened.enter_context(group.nodes[0].client)

        def subscribe(channel: str) -> Inbox:
            subscription = cast("Any", admin).pubsub()
            opened.callback(subscription.close)
            subscription.ssubscribe(channel)
            assert subscription.get_message(timeout=10)["type"] == "ssubscribe"
            return Inbox(subscription)

        yield subscribe


@pytest.fixture
def listen(store: RedisRunStore, subscribe: Subscribe) -> Subscribe:
    """Subscribe to the hints of a worker."""
    return lambda worker: subscribe(server_of(store).keys.hints(worker, 0))


async def waits(store: RedisRunStore, worker: str, *targets: str) -> bool:
    """Enter the worker in the sets of these targets; whether runs wait already.

    Of two workers that enter in one millisecond, the one with the greater name is woken first.
    """
    answer = await server_of(store).partition_script("idle", 0, worker, *targets)
    assert answer[0] == "OK"
    return answer[1] == "1"


async def test_a_new_run_wakes_one_idle_worker(store: RedisRunStore, listen: Subscribe) -> None:
    """The one that came last; its name is not in the set any more."""
    first, last = listen("1st"), listen("2nd")
    for worker in ("1st", "2nd"):
        assert not await waits(store, worker, "work", "other")
    await store.submit("run-1", "work")
    assert (first.messages(), last.messages()) == ([], ["work"])
    await store.submit("run-2", "work")
    assert (first.messages(), last.messages()) == (["work"], [])
    await store.submit("run-3", "work")
    assert (first.messages(), last.messages()) == ([], [])
    await store.submit("run-4", "other")
    assert (first.messages(), last.messages()) == ([], ["other"])


async def test_a_worker_that_is_gone_is_passed_over(
    store: RedisRunStore, listen: Subscribe
) -> None:
    """Nothing listens to its channel: the next name in the set is tried."""
    here, gone = listen("1st"), listen("2nd")
    await waits(store, "1st", "work")
    await waits(store, "2nd", "work")
    gone.end()
    await waits(store, "3rd", "work")
    await store.submit("run", "work")
    assert here.messages() == ["work"]


async def test_a_worker_that_comes_later_learns_of_the_run(
    store: RedisRunStore, listen: Subscribe
) -> None:
    """The run was submitted while no worker was in the set."""
    inbox = listen("late")
    await store.submit("run", "work")
    assert not await waits(store, "late", "other")
    assert await waits(store, "late", "other", "work")
    assert inbox.messages() == []


async def test_a_hint_is_passed_on_while_there_is_work(
    store: RedisRunStore, listen: Subscribe
) -> None:
    """The worker that got it has no free slot; without a run nothing is sent."""
    other, busy = listen("1st"), listen("2nd")
    await waits(store, "1st", "work")
    await waits(store, "2nd", "work")
    await server_of(store).partition_script("pass_on", 0, "nothing-waits")
    assert (busy.messages(), other.messages()) == ([], [])
    await store.submit("run", "work")
    assert busy.messages() == ["work"]
    await server_of(store).partition_script("pass_on", 0, "work")
    assert (busy.messages(), other.messages()) == ([], ["work"])


async def test_the_set_of_idle_workers_expires(store: RedisRunStore, group: ClusterGroup) -> None:
    """Workers that were killed leave nothing behind."""
    await waits(store, "killed", "work")
    with group.nodes[0].client as admin:
        [name] = cast("list[bytes]", admin.keys("*:idle:*"))
        assert 0 < admin.pttl(name) <= 60_000


async def test_a_cancel_is_a_message_to_the_worker(
    store: RedisRunStore, subscribe: Subscribe
) -> None:
    """With the run and the claim that it is for."""
    inbox = subscribe(server_of(store).keys.control("crew", 0))
    await store.submit("run", "work")
    claimed = await store.queue(lease_seconds=60).claim("crew", [TargetRule("work", 3)], 1)
    [claim] = claimed.claims
    await store.request_cancel("run")
    assert inbox.messages() == [f"cancel run {claim.token}"]
