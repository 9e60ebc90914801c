"""The contract of listing: newest first, in pages, each run that did not change exactly once."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from murmur_streams.core.model.errors import InvalidCursorError, InvalidInputError
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.fixtures import ContractFixtures, opened_with
from murmur_streams.testing.workbench import TARGET, Workbench, wait_until

OTHER_TARGET = "writer"
TENANT, OTHER_TENANT = "acme", "acme.2"


async def listed(store: RunStore, limit: int = 3, **options: Any) -> list[Run]:
    """Read all pages, or those after ``cursor``."""
    runs: list[Run] = []
    while True:
        page = await store.list_runs(limit=limit, **options)
        assert len(page.runs) <= limit
        runs += page.runs
        if page.cursor is None:
            return runs
        options["cursor"] = page.cursor


async def listed_ids(store: RunStore, **options: Any) -> list[str]:
    """The ids on all pages."""
    return [run.run_id for run in await listed(store, **options)]


class ListingContract(ContractFixtures):
    """Runs, page by page."""

    async def test_a_store_without_runs_lists_none(self, store: RunStore) -> None:
        page = await store.list_runs()
        assert (page.runs, page.cursor) == ((), None)

    async def test_runs_are_listed_newest_first(self, bench: Workbench, store: RunStore) -> None:
        made = [await bench.run(store) for _ in range(7)]
        found = [(run.created_ms, run.run_id) for run in await listed(store)]
        assert sorted(run_id for _, run_id in found) == sorted(made)
        assert found == sorted(found, reverse=True)

    async def test_the_last_page_has_no_cursor(self, bench: Workbench, store: RunStore) -> None:
        for _ in range(4):
            await bench.run(store)
        assert (await store.list_runs(limit=5)).cursor is None
        assert (await store.list_runs(limit=3)).cursor is not None

    async def test_a_state_selects_its_runs(self, bench: Workbench, store: RunStore) -> None:
        made: dict[RunState, list[str]] = {state: [] for state in RunState}
        for state in [*RunState, *RunState]:
            run_id = await bench.run(store)
            await store.set_state(run_id, state)
            made[state].append(run_id)
        for state, run_ids in made.items():
            found = await listed(store, limit=1, state=state)
            assert sorted(run.run_id for run in found) == sorted(run_ids)
            assert {run.state for run in found} == {state}

    async def test_a_tenant_selects_its_runs(self, bench: Workbench, store: RunStore) -> None:
        """A list of one tenant has its runs only; a list without a tenant has all runs."""
        made = {
            tenant: [await bench.run(store, tenant=tenant) for _ in range(count)]
            for tenant, count in ((TENANT, 5), (OTHER_TENANT, 2), (None, 3))
        }
        for tenant in (TENANT, OTHER_TENANT):
            found = await listed(store, limit=2, tenant=tenant)
            assert sorted(run.run_id for run in found) == sorted(made[tenant])
            assert {run.tenant for run in found} == {tenant}
        assert await listed(store, tenant="unknown") == []
        found = await listed(store)
        assert sorted(run.run_id for run in found) == sorted(chain.from_iterable(made.values()))
        assert {run.run_id for run in found if run.tenant is None} == set(made[None])

    async def test_filters_together_select_less(self, bench: Workbench, store: RunStore) -> None:
        """Tenant, target and state together select the runs that match all of them."""
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
            found = await listed_ids(store, limit=1, tenant=tenant, target=target, state=state)
            assert sorted(found) == sorted(run_ids)
        for wanted in (
            {"tenant": TENANT, "state": RunState.RUNNING},
            {"target": OTHER_TARGET, "state": RunState.RUNNING},
            {"target": OTHER_TARGET, "tenant": TENANT},
        ):
            found = await listed_ids(store, limit=1, **wanted)
            expected = [ids for names, ids in made.items() if set(wanted.values()) <= set(names)]
            assert sorted(found) == sorted(chain.from_iterable(expected))
        assert len(await listed(store, target=OTHER_TARGET)) == 8
        assert await listed(store, target="unknown") == []

    @opened_with(ttl_seconds=0.05)
    async def test_a_gone_run_is_not_listed(self, bench: Workbench, store: RunStore) -> None:
        """Neither a deleted nor an expired run is in the list of all runs, or of its tenant."""
        deleted, expired, remaining = [await bench.run(store, tenant=TENANT) for _ in range(3)]
        await store.delete(deleted, force=True)
        await store.finish(expired, RunState.COMPLETED)

        async def only_the_remaining() -> bool:
            lists = [await listed_ids(store), await listed_ids(store, tenant=TENANT)]
            return lists == [[remaining], [remaining]]

        await wait_until(only_the_remaining, "the ended run is listed no more")

    async def test_a_new_life_has_its_own_tenant(self, bench: Workbench, store: RunStore) -> None:
        """An id that is used again is listed for its new tenant only."""
        run_id = await bench.run(store, tenant=TENANT)
        await store.delete(run_id, force=True)
        await bench.run(store, run_id, tenant=OTHER_TENANT)
        assert await listed(store, tenant=TENANT) == []
        assert await listed_ids(store, tenant=OTHER_TENANT) == [run_id]

    async def test_a_rebuilt_run_keeps_its_tenant(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store, tenant=TENANT)
        await store.rebuild(run_id)
        assert (await store.snapshot(run_id)).tenant == TENANT
        assert await listed_ids(store, tenant=TENANT) == [run_id]

    async def test_a_listed_run_is_its_snapshot(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store, metadata={"who": "me"}, tenant=TENANT)
        await store.set_state(run_id, RunState.RUNNING)
        assert await listed(store) == [await store.snapshot(run_id)]

    async def test_changes_do_not_disturb_paging(self, bench: Workbench, store: RunStore) -> None:
        """Runs that are created or deleted between two pages hide no other run and repeat none."""
        remaining = [await bench.run(store) for _ in range(6)]
        going = [await bench.run(store) for _ in range(6)]
        first = await store.list_runs(limit=4)
        for run_id in going:
            await store.delete(run_id, force=True)
        await bench.run(store)
        rest = await listed(store, limit=4, cursor=first.cursor)
        seen = [run.run_id for run in (*first.runs, *rest) if run.run_id in remaining]
        assert sorted(seen) == sorted(remaining)

    @pytest.mark.parametrize("limit", [0, -1, 501])
    async def test_a_limit_out_of_bounds_is_refused(self, store: RunStore, limit: int) -> None:
        with pytest.raises(InvalidInputError, match="limit"):
            await store.list_runs(limit=limit)

    @pytest.mark.parametrize("cursor", ["", "1", "0:x", "1700000000000:", "\n"])
    async def test_a_malformed_page_is_refused(self, store: RunStore, cursor: str) -> None:
        with pytest.raises(InvalidCursorError, match="cursor"):
            await store.list_runs(cursor=cursor)
