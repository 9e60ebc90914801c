"""A store and its queue; whatever a test leaves of its runs is audited."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    """A store in the test's key space."""
    async with space.store() as store:
        yield store
        for run in (await store.list_runs(limit=500)).runs:
            assert (await store.audit(run.run_id)).problems == ()


@pytest.fixture
def queue(store: RedisRunStore) -> Queue:
    """The store's queue, with a lease that outlasts every test."""
    return store.queue(lease_seconds=60)
