"""Every store keeps the same contract."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fakeredis import FakeAsyncRedis, FakeRedis, FakeServer

from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore
from murmur_streams.stores.local.sqlite.store import SQLiteRunStore
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing import StoreContract, StoreFactory
from murmur_streams.testing.archives import ArchiveContract
from murmur_streams.testing.events import EventContract
from murmur_streams.testing.feeds import FeedContract
from murmur_streams.testing.fixtures import ContractFixtures
from murmur_streams.testing.lifecycle import LifecycleContract
from murmur_streams.testing.listing import ListingContract
from murmur_streams.testing.refusals import RefusalContract
from murmur_streams.testing.removal import RemovalContract
from murmur_streams.testing.results import ResultContract
from murmur_streams.testing.seals import SealContract
from murmur_streams.testing.streams import CursorContract, StreamContract
from tests.key_audit import audit_keys, dump_keys
from tests.servers import Space


def dump_sqlite(path: Path) -> list[str]:
    """All rows of all tables."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


class TestInMemory(StoreContract):
    shares_runs = False

    @pytest.fixture
    def factory(self) -> StoreFactory:
        return InMemoryRunStore


class TestValkey(StoreContract):
    @pytest.fixture
    def factory(self, space: Space) -> StoreFactory:
        self.space = space
        if not space.is_cluster:
            return space.store
        return lambda **options: space.store(**{"partitions": 16, **options})

    async def everything_stored(self) -> object:
        return self.space.dump()


class TestSQLite(StoreContract):
    """Every store that a test opens has connections of its own, as another process would."""

    @pytest.fixture
    def factory(self, tmp_path: Path) -> StoreFactory:
        self.path = tmp_path / "runs.db"
        return lambda **options: SQLiteRunStore(self.path, **options)

    async def everything_stored(self) -> object:
        return dump_sqlite(self.path)


class TestRocksDB(StoreContract):
    shares_runs = False

    @pytest.fixture
    def factory(self, tmp_path: Path) -> StoreFactory:
        numbers = itertools.count()
        return lambda **options: RocksDBRunStore(tmp_path / f"runs{next(numbers)}", **options)


class TestFourPartitions(
    LifecycleContract,
    StreamContract,
    SealContract,
    RemovalContract,
    ListingContract,
    ArchiveContract,
):
    """Parts that depend on a run's partition: the rest of the contract is about one run."""

    @pytest.fixture
    def factory(self, space: Space) -> StoreFactory:
        self.space = space
        return lambda **options: space.store(partitions=4, **options)

    async def everything_stored(self) -> object:
        return self.space.dump()


class FakeredisFixtures(ContractFixtures):
    """With ``client=``: a client of the caller's, and Lua by lupa."""

    @pytest.fixture
    def admin(self) -> Iterator[FakeRedis]:
        self.server = FakeServer()
        self.admin_client = FakeRedis(server=self.server)
        yield self.admin_client
        problems = audit_keys(self.admin_client, "murmur:runs")
        self.admin_client.close()
        assert problems == [], "the key audit"

    @pytest_asyncio.fixture
    async def client(self, admin: FakeRedis) -> AsyncIterator[FakeAsyncRedis]:
        client = FakeAsyncRedis(server=self.server)
        yield client
        await client.aclose()

    @pytest.fixture
    def factory(self, client: FakeAsyncRedis) -> StoreFactory:
        def open_store(**options: Any) -> RedisRunStore:
            return RedisRunStore(client=client, **options)

        return open_store

    async def everything_stored(self) -> object:
        return dump_keys(self.admin_client)


class TestFakeredis(
    FakeredisFixtures,
    LifecycleContract,
    EventContract,
    SealContract,
    RemovalContract,
    ArchiveContract,
):
    """The scripts: Lua that runs on a server may not run on lupa."""


@pytest.mark.slow  # The same scripts, and code that does not know which client it has.
class TestFakeredisReads(
    FakeredisFixtures,
    StreamContract,
    CursorContract,
    FeedContract,
    ResultContract,
    RefusalContract,
    ListingContract,
):
    """The rest of the contract."""
