"""What an operator should mend: each is a warning, is logged once per change, and stops nothing."""

from __future__ import annotations

import logging

import pytest

from murmur_streams.stores.redis.connection import checks
from murmur_streams.stores.redis.connection.server_warnings import (
    MOST_SKEW_SECONDS,
    ServerWarnings,
    WarningKind,
    judge_clock,
    judge_info,
)
from murmur_streams.testing.faults import ServerHandle
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import note
from tests.stores.faults.refusals import SECRET, limited, opening
from tests.stores.faults.waiting import wait_until

OWN = {"executable": "/usr/bin/valkey-server", "role": "master"}
ALONE = {**OWN, "aof_enabled": "0", "connected_slaves": "0"}


def judged(
    info: dict[str, str], *, has_failovers: bool = False, waits: bool = False
) -> dict[str, str | None]:
    found = judge_info(info, "here", has_failovers=has_failovers, waits_for_replicas=waits)
    return {kind.value: advice for kind, advice in found.items()}


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of the store that were logged."""
    found = [each for each in log.records if each.levelno == logging.WARNING]
    return [each.getMessage() for each in found if each.name == "murmur_streams.redis"]


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LOOK_SECONDS", 0.02)


def test_of_what_a_server_does_not_say_nothing_is_said() -> None:
    """A user without INFO, and a managed service that hides its settings, get no warning."""
    assert judged({}) == {}
    hidden = {"role": "master", "aof_enabled": "0", "connected_slaves": "0"}
    assert judged(hidden, has_failovers=True, waits=True) == {"role": None}
    assert judged({**OWN, "aof_enabled": "0"}) == {"role": None}
    assert judged({**hidden, "executable": "-"}) == {"role": None}


def test_persistence_matters_where_nothing_else_has_the_runs() -> None:
    """A server without a file is a warning, unless a replica has the runs, too."""
    assert "appendonly yes" in str(judged(ALONE)["persistence"])
    assert judged({**ALONE, "aof_enabled": "1"})["persistence"] is None
    assert judged({**ALONE, "connected_slaves": "1"})["persistence"] is None
    assert "persistence" not in judged(ALONE, has_failovers=True)


def test_a_primary_that_may_be_replaced_needs_replicas() -> None:
    """`min-replicas-to-write`, and for replicated writes a replica at all."""
    of_service = judged({**ALONE, "connected_slaves": "2"}, has_failovers=True)
    assert "set min-replicas-to-write 1" in str(of_service["replicas"])
    good = {**ALONE, "connected_slaves": "2", "min_slaves_good_slaves": "2"}
    assert judged(good, has_failovers=True)["replicas"] is None
    assert "no write returns" in str(judged(ALONE, waits=True)["replicas"])
    assert "replicas" not in judged(ALONE)


def test_a_clock_is_judged_in_both_directions() -> None:
    """The text has no number that grows: a clock that drifts is one warning."""
    kind = WarningKind.CLOCK
    assert judge_clock(MOST_SKEW_SECONDS, "here") == {kind: None}
    ahead, behind = judge_clock(5.1, "here")[kind], judge_clock(-5.1, "here")[kind]
    assert "ahead of this machine's" in str(ahead)
    assert "behind this machine's" in str(behind)
    assert judge_clock(60, "here")[kind] == ahead


def test_each_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Of each server for itself; what a look does not know stays as it was."""
    known = ServerWarnings()
    for _ in range(2):
        known.note("one", {WarningKind.EVICTION: "bad", WarningKind.CLOCK: None})
        known.note("two", {WarningKind.EVICTION: "worse"})
        known.note("one", {})
    assert known.texts() == {"eviction": "bad; worse"}
    assert warnings(caplog) == ["bad", "worse"]
    for _ in range(2):
        known.note("one", {WarningKind.EVICTION: None})
    assert known.texts() == {"eviction": "worse"}
    assert len(warnings(caplog)) == 3


async def test_a_server_that_keeps_nothing_is_a_warning(
    spare: ServerHandle, make_store: StoreMaker, log: pytest.LogCaptureFixture, looks_often: None
) -> None:
    """From the first use on, until the server has a file; each is one line of the log."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await store.create("run", "work")
        assert [*store.warnings] == ["persistence"]
        assert store.warning == store.warnings["persistence"]
        assert warnings(log) == [store.warning]
        await admin.config_set("appendonly", "yes")
        await wait_until(lambda: not store.warnings, "it has a file")
        assert len(warnings(log)) == 2


async def test_rights_and_the_role_are_looked_at_again(
    spare: ServerHandle, make_store: StoreMaker, looks_often: None
) -> None:
    """A right that is taken away is a warning that names it, and a program goes on."""
    async with spare.client() as admin:
        await admin.config_set("appendonly", "yes")
        await limited(admin, "+@all")
        store = make_store(spare.url(f"limited:{SECRET}"))
        await store.create("run", "work")
        assert store.warnings == {}
        await limited(admin, "+@all", "-rename")
        await wait_until(lambda: "permissions" in store.warnings, "it is noticed")
        assert "+rename" in store.warnings["permissions"]
        assert await store.append("run", note("run", "a")) == 2
        await limited(admin, "+@all")
        await wait_until(lambda: not store.warnings, "it is mended")
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        await wait_until(lambda: "role" in store.warnings, "the role is noticed")
        await admin.execute_command("REPLICAOF", "NO", "ONE")
        await wait_until(lambda: "role" not in store.warnings, "it is a primary again")


async def test_a_clock_that_differs_is_a_warning(
    spare: ServerHandle,
    make_store: StoreMaker,
    monkeypatch: pytest.MonkeyPatch,
    looks_often: None,
) -> None:
    """The server's TIME is compared with this machine's clock, which goes an hour ahead, and back.

    A look that took more than a second does not count, so it is waited for.
    """
    async with spare.client() as admin:
        await admin.config_set("appendonly", "yes")
        store, now = make_store(spare.url()), checks.wall_clock_ms
        await store.create("run", "work")
        assert store.warnings == {}
        monkeypatch.setattr(checks, "wall_clock_ms", lambda: now() + 3_600_000)
        await wait_until(lambda: "clock" in store.warnings, "the clock is noticed")
        assert "behind this machine's" in store.warnings["clock"]
        monkeypatch.setattr(checks, "wall_clock_ms", now)
        await wait_until(lambda: not store.warnings, "the clock is right again")


async def test_replicated_writes_need_a_replica(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """The reason is there before the first write waits in vain."""
    store = make_store(spare.url(), durability="replicated")
    await opening(store)
    assert "no write returns" in store.warnings["replicas"]
