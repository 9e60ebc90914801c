"""The contract of listing: newest first, in pages, each run that did not change exactly once."""

# ruff: noqa: S101, PLR2004  # asserts are how a contract speaks, and expected numbers their point

from __future__ import annotations

import pytest

from murmur_streams.core.model.errors import InvalidCursorError, InvalidInputError
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import TARGET, Workbench, wait_until

OTHER_TARGET = "writer"
TENANT, OTHER_TENANT = "acme", "acme.2"


async def listed(store: RunStore, limit: int = 3, **filters: object) -> list[Run]:
    """Read all pages."""
    runs: list[Run] = []
    cursor: str | None = None
    while True:
        page = await store.list_runs(limit=limit, cursor=cursor, **filters)  # type: ignore[arg-type]
        assert len(page.runs) <= limit
        runs += page.runs
        cursor = page.cursor
        if cursor is None:
            return runs


def ids(runs: list[Run]) -> list[str]:
    """Their ids."""
    return [run.run_id for run in runs]


class ListingContract(ContractRoom):
    """Runs, page by page."""

    async def test_a_store_without_runs_lists_none(self, store: RunStore) -> None:
        page = await store.list_runs()
        assert (page.runs, page.cursor) == ((), None)

    async def test_runs_are_listed_newest_first(self, bench: Workbench, store: RunStore) -> None:
        made = [await bench.run(store) for _ in range(7)]
        found = await listed(store)
        assert sorted(ids(found)) == sorted(made)
        order = [(run.created_ms, run.run_id) for run in found]
        assert order == sorted(order, reverse=True)

    async def test_the_last_page_has_no_cursor(self, bench: Workbench, store: RunStore) -> None:
        for _ in range(4):
            await bench.run(store)
        assert (await store.list_runs(limit=5)).cursor is None
        assert (await store.list_runs(limit=3)).cursor is not None

    @pytest.mark.parametrize("state", list(RunState), ids=str)
    async def test_a_state_selects_the_runs_that_are_in_it(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        made: dict[RunState, list[str]] = {each: [] for each in RunState}
        for number in range(10):
            each = list(RunState)[number % len(RunState)]
            run_id = await bench.run(store)
            if each is not RunState.PENDING:
                await store.set_state(run_id, each)
            made[each].append(run_id)
        found = await listed(store, limit=1, state=state)
        assert sorted(ids(found)) == sorted(made[state])
        assert {run.state for run in found} == {state}

    async def test_target_and_state_together_select_both(
        self, bench: Workbench, store: RunStore
    ) -> None:
        wanted: list[str] = []
        for number in range(8):
            run_id = bench.new_id()
            await store.create(run_id, OTHER_TARGET if number % 2 else TARGET)
            if number % 4 == 1:
                await store.set_state(run_id, RunState.RUNNING)
                wanted.append(run_id)
        found = await listed(store, limit=1, target=OTHER_TARGET, state=RunState.RUNNING)
        assert sorted(ids(found)) == sorted(wanted)
        assert len(await listed(store, target=OTHER_TARGET)) == 4
        assert await listed(store, target="nobody") == []

    async def test_a_tenant_selects_its_runs_and_no_tenant_all(
        self, bench: Workbench, store: RunStore
    ) -> None:
        made = {
            tenant: [await bench.run(store, tenant=tenant) for _ in range(count)]
            for tenant, count in ((TENANT, 5), (OTHER_TENANT, 2), (None, 3))
        }
        for tenant in (TENANT, OTHER_TENANT):
            found = await listed(store, limit=2, tenant=tenant)
            assert sorted(ids(found)) == sorted(made[tenant])
            assert {run.tenant for run in found} == {tenant}
        assert await listed(store, tenant="nobody") == []
        found = await listed(store)
        assert sorted(ids(found)) == sorted(run_id for each in made.values() for run_id in each)
        assert {run.run_id for run in found if run.tenant is None} == set(made[None])

    async def test_tenant_target_and_state_together_select_all_three(
        self, bench: Workbench, store: RunStore
    ) -> None:
        made: dict[tuple[str, str, RunState], list[str]] = {}
        for number in range(16):
            tenant = TENANT if number % 2 else OTHER_TENANT
            target = TARGET if number % 4 < 2 else OTHER_TARGET
            state = RunState.RUNNING if number % 8 < 4 else RunState.FAILED
            run_id = bench.new_id()
            await store.create(run_id, target, tenant=tenant)
            await store.set_state(run_id, state)
            made.setdefault((tenant, target, state), []).append(run_id)
        assert len(made) == 8
        for (tenant, target, state), run_ids in made.items():
            found = await listed(store, limit=1, tenant=tenant, target=target, state=state)
            assert sorted(ids(found)) == sorted(run_ids)
        running = await listed(store, limit=1, tenant=TENANT, state=RunState.RUNNING)
        assert len(running) == 4

    async def test_a_run_that_is_gone_is_not_listed_of_its_tenant(self, bench: Workbench) -> None:
        store = bench.open(ttl_seconds=0.05)
        deleted, expired, remaining = [await bench.run(store, tenant=TENANT) for _ in range(3)]
        await store.delete(deleted, force=True)
        await store.finish(expired, RunState.COMPLETED)

        async def only_the_remaining() -> bool:
            return ids(await listed(store, tenant=TENANT)) == [remaining]

        await wait_until(only_the_remaining, "the ended run is listed no more")

    async def test_an_id_that_lives_again_is_of_its_new_tenant(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store, tenant=TENANT)
        await store.delete(run_id, force=True)
        await bench.run(store, run_id, tenant=OTHER_TENANT)
        assert await listed(store, tenant=TENANT) == []
        assert ids(await listed(store, tenant=OTHER_TENANT)) == [run_id]

    async def test_a_rebuilt_run_is_still_its_tenants(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store, tenant=TENANT)
        await store.rebuild(run_id)
        assert (await store.snapshot(run_id)).tenant == TENANT
        assert ids(await listed(store, tenant=TENANT)) == [run_id]

    async def test_a_listed_run_is_its_snapshot(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store, metadata={"who": "me"}, tenant=TENANT)
        await store.set_state(run_id, RunState.RUNNING)
        assert await listed(store) == [await store.snapshot(run_id)]

    async def test_new_and_deleted_runs_do_not_disturb_paging(
        self, bench: Workbench, store: RunStore
    ) -> None:
        """Runs that are created or deleted between two pages hide no other run and repeat none."""
        remaining = [await bench.run(store) for _ in range(6)]
        going = [await bench.run(store) for _ in range(6)]
        first = await store.list_runs(limit=4)
        for run_id in going:
            await store.delete(run_id, force=True)
        await bench.run(store)
        rest: list[Run] = []
        cursor = first.cursor
        while cursor is not None:
            page = await store.list_runs(limit=4, cursor=cursor)
            rest += page.runs
            cursor = page.cursor
        seen = [run_id for run_id in ids([*first.runs, *rest]) if run_id in remaining]
        assert sorted(seen) == sorted(remaining)

    async def test_an_expired_run_is_not_listed(self, bench: Workbench) -> None:
        store = bench.open(ttl_seconds=0.05)
        run_id = await bench.run(store)
        remaining = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)

        async def only_the_other() -> bool:
            return ids(await listed(store)) == [remaining]

        await wait_until(only_the_other, "the ended run is listed no more")

    @pytest.mark.parametrize("limit", [0, -1, 501])
    async def test_a_limit_out_of_bounds_is_refused(self, store: RunStore, limit: int) -> None:
        with pytest.raises(InvalidInputError, match="limit"):
            await store.list_runs(limit=limit)

    @pytest.mark.parametrize("cursor", ["", "1", "0:x", "1700000000000:", "\n"])
    async def test_a_cursor_of_no_listing_is_refused(self, store: RunStore, cursor: str) -> None:
        with pytest.raises(InvalidCursorError, match="cursor"):
            await store.list_runs(cursor=cursor)
