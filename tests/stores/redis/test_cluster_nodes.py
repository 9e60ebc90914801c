"""Which nodes of a cluster a store uses, by what they answer. No server is asked."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ClusterDownError, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.redis.connection import cluster as cluster_module
from murmur_streams.stores.redis.connection.cluster import Cluster
from murmur_streams.stores.redis.connection.maker import Address
from murmur_streams.stores.redis.connection.slots import SlotRange

A, B, C = ("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)
LAST = 16_383
Views = dict[Address, list[SlotRange] | Exception | None]
"""What each node answers; None: nothing, it is frozen."""


def halves(first: Address, epoch: int, second: Address, second_epoch: int) -> list[SlotRange]:
    """A view in which each node has half of the slots."""
    return [SlotRange(0, 8191, first, epoch), SlotRange(8192, LAST, second, second_epoch)]


@pytest.fixture
def views() -> Views:
    both = halves(A, 1, B, 2)
    return {A: both, B: both}


@pytest.fixture
def cluster(views: Views, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster of two nodes with these views."""

    async def view_of(_: Cluster, address: Address) -> list[SlotRange]:
        found = views.get(address, RedisConnectionError("gone"))
        if found is None:
            await asyncio.Event().wait()
        if isinstance(found, Exception):
            raise found
        assert found is not None
        return found

    monkeypatch.setattr(Cluster, "_view_of", view_of)
    monkeypatch.setattr(cluster_module, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(cluster_module, "retry_pause_seconds", lambda _: 0.0)
    return Cluster(RedisCluster(startup_nodes=[ClusterNode(*A), ClusterNode(*B)]), 5.0)


def where(cluster: Cluster, slot: int) -> str:
    """The address of the node of a slot."""
    return cluster.of(slot).address


async def test_each_slot_has_the_node_that_serves_it(cluster: Cluster) -> None:
    """At both ends of each range."""
    await cluster.find()
    assert [where(cluster, slot) for slot in (0, 8191)] == ["127.0.0.1:1"] * 2
    assert [where(cluster, slot) for slot in (8192, LAST)] == ["127.0.0.1:2"] * 2
    assert [pools.address for pools in cluster.pools] == ["127.0.0.1:1", "127.0.0.1:2"]


async def test_a_slot_without_a_node_is_refused(cluster: Cluster, views: Views) -> None:
    """Before the first answer, and where the nodes name no owner."""
    with pytest.raises(ClusterDownError):
        cluster.of(0)
    views[A] = views[B] = [SlotRange(10, 19, A, 1), SlotRange(30, 39, B, 2)]
    await cluster.find()
    for slot in (9, 20, 29, 40, LAST):
        with pytest.raises(ClusterDownError):
            cluster.of(slot)


async def test_a_failover_is_followed_at_the_next_try(cluster: Cluster, views: Views) -> None:
    """The old owner is not used any more, and its connections are closed."""
    await cluster.find()
    closed: list[str] = []
    old = cluster.of(0)

    async def drop_all() -> None:
        closed.append(old.address)

    old.drop_all = drop_all
    views[A], views[B] = None, halves(C, 3, B, 2)
    await cluster.pause_before_retry(0)
    assert where(cluster, 0) == "127.0.0.1:3"
    assert [pools.address for pools in cluster.pools] == ["127.0.0.1:3", "127.0.0.1:2"]
    assert closed == ["127.0.0.1:1"]


@pytest.mark.fault("F15", on="cluster")
async def test_an_old_owner_that_comes_back_does_not_win(cluster: Cluster, views: Views) -> None:
    """It takes itself for the owner until it has heard of the failover; its epoch is lower."""
    await cluster.find()
    views[A], views[B] = None, halves(C, 3, B, 2)
    await cluster.pause_before_retry(0)
    views[A], views[B] = halves(A, 1, B, 2), None
    for attempt in range(3):
        await cluster.pause_before_retry(attempt)
        assert where(cluster, 0) == "127.0.0.1:3"


async def test_a_cluster_that_was_set_up_anew_counts_again(
    cluster: Cluster, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of the nodes have named lower epochs for a while, and not only for a moment."""
    views[A] = views[B] = halves(A, 11, B, 12)
    await cluster.find()
    views[A] = views[B] = halves(B, 1, A, 2)
    await cluster.pause_before_retry(0)
    assert where(cluster, 0) == "127.0.0.1:1"
    monkeypatch.setattr(cluster_module, "ANEW_SECONDS", -1.0)
    await cluster.pause_before_retry(1)
    assert where(cluster, 0) == "127.0.0.1:2"


async def test_the_lower_epochs_of_a_few_do_not_count(
    cluster: Cluster, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the nodes are not most of them, however long they say it."""
    monkeypatch.setattr(cluster_module, "ANEW_SECONDS", -1.0)
    views[A] = views[B] = halves(A, 11, B, 12)
    await cluster.find()
    views[A], views[B] = halves(B, 1, A, 2), None
    for attempt in range(3):
        await cluster.pause_before_retry(attempt)
        assert where(cluster, 0) == "127.0.0.1:1"


async def test_a_node_that_is_frozen_delays_no_answer(cluster: Cluster, views: Views) -> None:
    """The view of another one is enough."""
    views[A] = None
    await cluster.find()
    assert where(cluster, 0) == "127.0.0.1:1"


async def test_replicas_are_asked_when_their_primary_is_gone(
    cluster: Cluster, views: Views
) -> None:
    """No node of the URL answers any more, and the cluster still does."""
    views[A] = [SlotRange(0, LAST, A, 1, (C,))]
    views[B] = RedisConnectionError("gone")
    await cluster.find()
    views[A], views[C] = RedisConnectionError("gone"), [SlotRange(0, LAST, C, 2)]
    await cluster.pause_before_retry(0)
    assert where(cluster, 0) == "127.0.0.1:3"


async def test_a_cluster_that_does_not_answer_is_named(cluster: Cluster, views: Views) -> None:
    """The error has each address that was asked, and why."""
    views[A] = views[B] = RedisConnectionError("refused")
    with pytest.raises(RedisConnectionError, match=r"127\.0\.0\.1:1, 127\.0\.0\.1:2 .*refused"):
        await cluster.find()


async def test_a_server_without_a_cluster_is_refused(cluster: Cluster, views: Views) -> None:
    """The error says which URL to use instead."""
    text = "This instance has cluster support disabled"
    views[A] = views[B] = ResponseError(text)
    with pytest.raises(StoreConfigurationError, match="use redis://"):
        await cluster.find()


async def test_a_missing_right_is_the_error(cluster: Cluster, views: Views) -> None:
    """The server's own words name it."""
    views[A] = NoPermissionError("User crew has no permissions to run the 'cluster|slots' command")
    views[B] = RedisConnectionError("gone")
    with pytest.raises(NoPermissionError, match=r"cluster\|slots"):
        await cluster.find()


async def test_several_callers_ask_once(
    cluster: Cluster, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a failover every call of a store looks for the new owner."""
    asked: list[Address] = []

    async def view_of(_: Cluster, address: Address) -> list[SlotRange]:
        asked.append(address)
        found = views[address]
        assert isinstance(found, list)
        return found

    monkeypatch.setattr(Cluster, "_view_of", view_of)
    await asyncio.gather(*(cluster.pause_before_retry(0) for _ in range(20)))
    assert sorted(asked) == [A, B]
