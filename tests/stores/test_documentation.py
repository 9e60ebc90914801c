"""The interface is documented once, on its protocols, and every store shows that text."""

from __future__ import annotations

import inspect
import pydoc

import pytest

from murmur_streams.stores.dead_letters import DeadLetterBox
from murmur_streams.stores.local.engine.dead import LocalDeadLetters
from murmur_streams.stores.local.engine.work import LocalQueue, LocalWorkers
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.local.rocksdb.store import RocksDBRunStore
from murmur_streams.stores.local.sqlite.store import SQLiteRunStore
from murmur_streams.stores.protocol import RunStore, WorkerList, WorkQueue
from murmur_streams.stores.redis.dead import RedisDeadLetters
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.workers import Workers
from murmur_streams.stores.work_store import WorkStore

STORES = [InMemoryRunStore, SQLiteRunStore, RocksDBRunStore, RedisRunStore]
PARTS: list[tuple[type, type]] = [
    *((store, RunStore) for store in STORES),
    (LocalQueue, WorkQueue),
    (LocalWorkers, WorkerList),
    (Queue, WorkQueue),
    (Workers, WorkerList),
]
ABSTRACT: list[tuple[type, type]] = [
    *((store, WorkStore) for store in STORES),
    (LocalDeadLetters, DeadLetterBox),
    (RedisDeadLetters, DeadLetterBox),
]


def _public(protocol: type) -> list[str]:
    return [name for name in dir(protocol) if not name.startswith("_")]


@pytest.mark.parametrize("store", STORES)
def test_help_shows_the_text_of_the_protocol(store: type) -> None:
    """``help(store.append)`` of a store's object, too, has the arguments and errors."""
    documented = inspect.getdoc(WorkStore.append)
    assert documented is not None
    assert "expected_version: the version that the run must have" in documented
    assert inspect.getdoc(store.append) == documented
    assert documented == pydoc.getdoc(store.append)
    if store is InMemoryRunStore:
        assert inspect.getdoc(InMemoryRunStore().append) == documented


@pytest.mark.parametrize(("implementation", "protocol"), PARTS)
def test_every_method_is_implemented_and_documented(implementation: type, protocol: type) -> None:
    """A protocol's own method would do nothing and return None."""
    for name in _public(protocol):
        own = inspect.getattr_static(implementation, name)
        assert own is not inspect.getattr_static(protocol, name), name
        assert inspect.getdoc(getattr(implementation, name)), name


@pytest.mark.parametrize(("implementation", "base"), ABSTRACT)
def test_every_abstract_method_is_implemented(implementation: type, base: type) -> None:
    """Of a base class that implements a part itself; its documentation is inherited, too."""
    assert inspect.isabstract(base)
    assert not inspect.isabstract(implementation)
    for name in _public(base):
        assert inspect.getdoc(getattr(implementation, name)), name
