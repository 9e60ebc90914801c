"""The keys that a soak leaves: one without its expiry is found, and one of a run that is gone."""

from __future__ import annotations

import pytest

from murmur_streams import RunState
from tests.key_audit import expiry_times
from tests.servers import Space
from tests.soak.keys import STAYING, UNKNOWN, count_keys, left_keys, problems_that_stay, rule_of

pytestmark = pytest.mark.usefixtures("space")


async def ended_run(space: Space) -> None:
    """One run that has ended, and expires in a minute."""
    async with space.store(ttl_seconds=60) as store:
        await store.create("run", "work")
        await store.finish("run", RunState.COMPLETED)


async def test_keys_with_their_expiry_are_right(space: Space) -> None:
    """An ended run, its index, the feed: each has its row, and obeys it."""
    await ended_run(space)
    counts = count_keys(space.admin)
    assert counts["<prefix>:{p}:run:<run_id>"] == 1
    assert counts["<prefix>:{p}:index"] == 1
    assert UNKNOWN not in counts
    assert problems_that_stay(space.admin) == []


@pytest.mark.parametrize("kind", ["run", "journal"])
async def test_a_run_without_its_expiry_is_found(space: Space, kind: str) -> None:
    """One of the keys of an ended run would stay for ever."""
    await ended_run(space)
    key = f"{space.prefix}:{{0}}:{kind}:run"
    (at,) = expiry_times(space.admin, [key])
    space.admin.persist(key)
    problems = problems_that_stay(space.admin)
    space.admin.pexpireat(key, at)
    assert [each for each in problems if key in each]


@pytest.mark.leaves("*")
async def test_a_key_of_no_row_is_found(space: Space) -> None:
    """A key that the table does not have."""
    key = f"{space.prefix}:{{0}}:something"
    space.admin.set(key, "1")
    assert count_keys(space.admin) == {UNKNOWN: 1}
    assert problems_that_stay(space.admin) == [f"{key}: is not in the key table"]
    assert left_keys(space.admin) == [key]


async def test_keys_of_runs_are_left(space: Space) -> None:
    """They must be gone when all runs have expired; the feed and the settings stay."""
    await ended_run(space)
    left = left_keys(space.admin)
    rows = {f"{space.prefix}:{{0}}:{name}" for name in ("run:run", "journal:run", "index")}
    assert rows < {*left}
    assert not [key for key in left if key.endswith((":feed", ":meta"))]


async def test_nothing_is_left_of_a_deleted_run(space: Space) -> None:
    """What a deleted run leaves for a minute expires with it."""
    await ended_run(space)
    async with space.store() as store:
        await store.delete("run")
    left = left_keys(space.admin)
    assert [key for key in left if ":index" in key or ":expiring" in key] == []


def test_rules_are_named() -> None:
    """The report says what becomes of each key."""
    assert {rule_of(key) for key in STAYING} == {"stays"}
    assert rule_of("<prefix>:{p}:run:<run_id>") == "expires with its run"
    assert rule_of("<prefix>:{p}:index") == "goes when it is empty"
    assert rule_of("<prefix>:{p}:control:<worker_id>") == "expires by itself"
    assert rule_of("something") == UNKNOWN
