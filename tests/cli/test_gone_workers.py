"""`cancel` of a run whose worker is gone reports that, and does not promise a delivery."""

from __future__ import annotations

from typing import Any

import pytest

from murmur_streams.core.model.work import TargetRule, WorkerInfo
from murmur_streams.fleet.worker.loops import PYTHON
from murmur_streams.stores.redis.store import RedisRunStore
from tests.cli.conftest import CommandLine

LEASES = "murmur:runs:{0}:leases"
WORKER = WorkerInfo(
    *("w-1", "host", 1, "0", PYTHON, ["work"], 1, 1, "working", 1, ["r-1"]),
)
GONE = "r-1 will be cancelled: its worker has not been heard of ("
END = "); it ends when any worker is there\n"


@pytest.fixture
def held(in_store: Any) -> None:
    """A run that worker w-1 has, for an hour."""

    async def claim(store: RedisRunStore) -> None:
        await store.submit("r-1", "work")
        claimed = await store.queue(3600).claim("w-1", [TargetRule("work", 0)], 1, "host")
        assert [each.run_id for each in claimed.claims] == ["r-1"]

    in_store(claim)


@pytest.mark.usefixtures("held")
def test_a_worker_that_is_not_among_the_live_ones(line: CommandLine) -> None:
    """`cancel` finds out by the list of workers."""
    done = line.run("cancel", "r-1")
    assert (done.returncode, done.stdout) == (0, f"{GONE}it is not among the live ones{END}")


@pytest.mark.usefixtures("held")
def test_a_worker_whose_lease_ran_out(line: CommandLine, in_store: Any) -> None:
    """By the lease, although it is listed."""

    async def beat(store: RedisRunStore) -> None:
        await store.workers(3600).beat(WORKER)

    in_store(beat)
    assert (
        line.run("cancel", "r-1").stdout == "r-1 will be cancelled: its worker is being notified\n"
    )
    line.run("redis", "ZADD", LEASES, "1000", "r-1")
    done = line.run("cancel", "r-1")
    assert done.stdout.startswith(f"{GONE}its lease ran out ")
    assert done.stdout.endswith(f" s ago{END}")

    async def remove(store: RedisRunStore) -> None:
        await store.workers().remove("w-1")

    in_store(remove)
