"""A restore is complete and reported truly, also when connections break."""

from __future__ import annotations

import pytest

from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Fault, FaultProxy, calls, once
from tests.stores.faults.events import note
from tests.stores.faults.test_writes_under_cuts import LOSSES, random_faults

RUN_ID = "run"


async def some_archive(pages: int = 4) -> RunArchive:
    async with InMemoryRunStore() as store:
        await store.create(RUN_ID, "work", input=1)
        for _ in range(pages):
            await store.append(RUN_ID, *(note(RUN_ID, "part") for _ in range(500)))
        await store.finish(RUN_ID, RunState.COMPLETED)
        return await store.archive(RUN_ID)


@pytest.mark.parametrize("script", ["restore_page", "restore"])
@pytest.mark.parametrize("fault", LOSSES)
async def test_a_lost_answer_changes_neither_run_nor_result(
    fault: Fault, script: str, proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """The restored run and what restore returns are the same as without the cut."""
    archive = await some_archive()
    await store._server.ready()
    proxy.plan = once(fault, calls(script))
    assert await store.restore(archive) is True
    assert len(proxy.seen) == 1
    assert await straight.archive(RUN_ID) == archive
    assert (await straight.audit(RUN_ID)).problems == ()
    assert await store.restore(archive) is False


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_cuts_at_random_moments_neither_lose_nor_double_an_entry(
    seed: int, proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """The restored run equals its archive and passes the audit."""
    archive = await some_archive(pages=10)
    await store._server.ready()
    proxy.plan = random_faults(seed, 20)
    assert await store.restore(archive) is True
    assert proxy.seen
    assert await straight.archive(RUN_ID) == archive
    assert (await straight.audit(RUN_ID)).problems == ()
