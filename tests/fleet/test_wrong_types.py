"""A value of a wrong type is refused where it is passed, in terms of the interface."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from murmur_streams import Backoff, Fleet
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.testing.plugin import working

NO_TIMES: list[Any] = [float("nan"), float("inf"), "x", True, -1, 10**400, timedelta(seconds=1)]


@pytest.mark.parametrize("timeout", NO_TIMES)
async def test_a_timeout_is_a_length_of_time(timeout: Any) -> None:
    """Other values of result and output raise InvalidInputError."""
    handle = Fleet("redis://127.0.0.1:1").handle("r-1")
    for read in (handle.result, handle.output):
        with pytest.raises(InvalidInputError, match=r"^timeout is .* number of seconds from 0 to"):
            await read(timeout=timeout)


async def test_no_wait_at_all_is_none(fleet: Fleet) -> None:
    """cancel(wait=None) returns at once."""
    handle = await fleet.submit("fine", 1)
    assert (await handle.cancel(wait=None)).state is RunState.CANCELLED


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"at": "x"}, "at is 'x', but must be a datetime"),
        ({"at": 1.0}, "at is 1.0, but must be a datetime"),
        ({"trace": "x"}, "trace is 'x', but must be a mapping"),
        ({"trace": 1}, "trace is 1, but must be a mapping"),
    ],
)
async def test_options_of_a_submission(fleet: Fleet, options: dict[str, Any], why: str) -> None:
    """The error has the value and the rule, and no run is created."""
    with pytest.raises(InvalidInputError, match=why):
        await fleet.submit("fine", 1, **options)
    assert (await (await fleet.store()).list_runs()).runs == ()


def test_a_fleet_that_cannot_be_is_refused_when_it_is_made() -> None:
    """A wrong URL or option does not wait for the first call."""
    wrong: Any = 5
    with pytest.raises(InvalidInputError, match="url is 5, but must be text"):
        Fleet(wrong)
    for name in ("prefix", "ttl", "revive"):
        with pytest.raises(TypeError, match=f"no option '{name}'; it has: key_prefix, .*limits"):
            Fleet(**{name: None})
    Fleet("redis://127.0.0.1:1", key_prefix="a", partitions=2, ttl_seconds=1, retry_seconds=1)


@pytest.mark.parametrize("limit", ["x", 1.5, True, None, 0, 501])
async def test_a_limit_is_an_integer(fleet: Fleet, limit: Any) -> None:
    """Each listing refuses other values."""
    store = await fleet.store()
    for read in (store.list_runs, InMemoryRunStore().list_runs, fleet.dead.list):
        with pytest.raises(InvalidInputError, match=r"limit is .*, but must be an integer from 1"):
            await read(limit=limit)


def test_the_limit_of_a_blocking_listing(fleet_of_its_own: Fleet) -> None:
    """fleet.sync checks it, too."""
    wrong: Any = "x"
    with pytest.raises(InvalidInputError, match="limit is 'x'"):
        fleet_of_its_own.sync.list(limit=wrong)


@pytest.fixture
def fleet_of_its_own() -> Fleet:
    """A client without a server: a bad call is refused before anything is sent."""
    return Fleet("redis://127.0.0.1:1")


async def test_letters_are_purged_by_an_explicit_selection(fleet: Fleet) -> None:
    """No selection, or a contradictory one, is refused."""
    store = await fleet.store()
    await store.submit("r-1", "fine")
    await store.finish("r-1", RunState.FAILED, dead="not_retryable")
    for which in ({}, {"target": None}, {"target": "fine", "all": True}):
        options: dict[str, Any] = which
        with pytest.raises(InvalidInputError, match="which letters to purge"):
            await fleet.dead.purge(**options)
    assert await fleet.dead.purge(all=True) == 1


@pytest.mark.parametrize("attempt", [0, -1, "x", 1.5, True])
async def test_the_attempt_of_an_inline_run(attempt: Any) -> None:
    """It must be an integer from 1."""
    fleet = Fleet()

    @fleet.agent
    async def fine() -> None: ...

    with pytest.raises(InvalidInputError, match=r"attempt is .*, but must be an integer from 1"):
        await fleet.run_inline(fine, attempt=attempt)


async def test_a_worker_of_no_fleet() -> None:
    """murmur_worker without a fleet raises TypeError."""
    wrong: Any = 5
    with pytest.raises(TypeError, match="murmur_worker takes a Fleet, not 5"):
        async with working(wrong):
            pass


def test_the_most_that_waits_may_grow() -> None:
    """A factor has an upper bound."""
    with pytest.raises(InvalidInputError, match=r"must be from 1 to 9,007,199,254,740,991"):
        Backoff(factor=1e308)
