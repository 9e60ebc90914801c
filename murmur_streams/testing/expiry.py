"""The contract of expiry: ended runs go when their time is over, live ones stay."""

# ruff: noqa: S101, PLR2004  # asserts are how a contract speaks, and expected numbers their point

from __future__ import annotations

import asyncio
import re

import pytest

from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import TARGET, Workbench, closing, note, types_of, wait_until

SHORT_SECONDS = 0.05


async def is_gone(store: RunStore, run_id: str) -> bool:
    """Whether the run is not there."""
    try:
        await store.get_status(run_id)
    except RunNotFoundError:
        return True
    return False


class ExpiryContract(ContractRoom):
    """Runs that go."""

    @pytest.mark.parametrize(
        "state", [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED], ids=str
    )
    async def test_an_ended_run_goes_when_its_time_is_over(
        self, bench: Workbench, state: RunState
    ) -> None:
        store = bench.open(ttl_seconds=SHORT_SECONDS)
        run_id = await bench.run(store, input=1)
        await store.finish(run_id, state)
        await wait_until(lambda: is_gone(store, run_id), "the run expires")

    async def test_sweep_removes_what_expiry_left_behind_once(self, bench: Workbench) -> None:
        store = bench.open(ttl_seconds=SHORT_SECONDS)
        ids = [await bench.run(store) for _ in range(3)]
        await asyncio.gather(*(store.finish(run_id, RunState.COMPLETED) for run_id in ids))
        for run_id in ids:
            await wait_until(lambda run_id=run_id: is_gone(store, run_id), "the run expires")
        await store.sweep()
        assert await store.sweep() == 0

    async def test_an_expired_id_can_begin_a_new_life(self, bench: Workbench) -> None:
        store = bench.open(ttl_seconds=SHORT_SECONDS)
        run_id = await bench.run(store, input=1)
        await store.finish(run_id, RunState.COMPLETED)
        await wait_until(lambda: is_gone(store, run_id), "the run expires")
        await store.create(run_id, TARGET)
        assert ((await store.snapshot(run_id)).version, await store.get_input(run_id)) == (1, None)

    async def test_a_live_run_does_not_go(self, bench: Workbench) -> None:
        store = bench.open(ttl_seconds=SHORT_SECONDS)
        live, ended = await bench.run(store), await bench.run(store)
        await store.finish(ended, RunState.COMPLETED)
        await wait_until(lambda: is_gone(store, ended), "the ended run expires")
        await store.sweep()
        assert await store.append(live, note(live)) == 2

    async def test_a_late_event_does_not_keep_an_ended_run(self, bench: Workbench) -> None:
        store = bench.open(ttl_seconds=SHORT_SECONDS)
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.CANCELLED)

        async def push_until_gone() -> bool:
            try:
                await store.push_event(run_id, closing(run_id))
            except RunNotFoundError:
                return True
            return False

        await wait_until(push_until_gone, "the run expires however often it is written to")

    @pytest.mark.parametrize("ttl_seconds", [0, -1])
    async def test_without_a_time_an_ended_run_stays(
        self, bench: Workbench, ttl_seconds: float
    ) -> None:
        store = bench.open(ttl_seconds=ttl_seconds)
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)
        assert await store.sweep() == 0
        assert not await is_gone(store, run_id)

    async def test_a_live_run_without_writes_fails_with_an_entry(self, bench: Workbench) -> None:
        """A live run without any write for its lifetime fails, and an entry records it."""
        store = bench.open(live_ttl_seconds=SHORT_SECONDS)
        run_id = await bench.run(store)
        subscriber = bench.subscribe(store, run_id)

        async def is_failed() -> bool:
            await store.sweep()
            return (await store.get_status(run_id)).state is RunState.FAILED

        await wait_until(is_failed, "a sweep fails the run")
        assert await subscriber.ended() == []
        run = await store.snapshot(run_id)
        assert re.fullmatch(
            r"it got no write for \d+ seconds \(live_ttl_seconds\)", run.error or ""
        )
        assert (await types_of(store, run_id)) == ["run.created", "run.state"]
        assert await store.sweep() == 0

    async def test_a_live_run_without_a_live_ttl_stays(self, bench: Workbench) -> None:
        store = bench.open(live_ttl_seconds=0)
        run_id = await bench.run(store)
        assert await store.sweep() == 0
        assert (await store.get_status(run_id)).state is RunState.PENDING

    async def test_a_new_run_is_reason_enough_to_fail_an_overdue_one(
        self, bench: Workbench
    ) -> None:
        store = bench.open(live_ttl_seconds=SHORT_SECONDS)
        run_id = await bench.run(store)

        async def is_failed() -> bool:
            await bench.run(store)
            return (await store.get_status(run_id)).state is RunState.FAILED

        await wait_until(is_failed, "creating runs fails the overdue one")
