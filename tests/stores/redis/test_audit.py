"""An audit names what was tampered with: hash, journal, payloads, expiry and indexes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.redis.working import server_ms

RUN_ID = "run"
TWICE = "twice"
Tamper = Callable[[Any, Keys], object]
TAMPERS: dict[str, tuple[Tamper, str]] = {
    "a state": (lambda client, keys: client.hset(keys.run(RUN_ID), "state", "failed"), "state: "),
    "a version": (lambda client, keys: client.hset(keys.run(RUN_ID), "version", 9), "version: "),
    "a result": (
        lambda client, keys: client.set(keys.result(RUN_ID), "1", keepttl=True),
        "result: ",
    ),
    "an input that is gone": (lambda client, keys: client.delete(keys.input(RUN_ID)), "input: "),
    "an entry that is gone": (
        lambda client, keys: client.xdel(
            keys.journal(RUN_ID), client.xrange(keys.journal(RUN_ID))[1][0]
        ),
        "seq is not dense",
    ),
    "a journal that is gone": (
        lambda client, keys: client.delete(keys.journal(RUN_ID)),
        "the journal is missing",
    ),
    "a key that stays": (
        lambda client, keys: client.persist(keys.journal(RUN_ID)),
        ":journal:run: has no expiry",
    ),
    "a key that goes early": (
        lambda client, keys: client.pexpire(keys.journal(RUN_ID), 5000),
        "ms apart",
    ),
    "an index without the run": (
        lambda client, keys: client.delete(keys.index(0)),
        ":index: lacks the run",
    ),
    "a wrong index of a state": (
        lambda client, keys: client.rename(
            keys.index_state(RunState.COMPLETED, 0), keys.index_state(RunState.FAILED, 0)
        ),
        ":index:state:failed: wrongly has the run",
    ),
}


@pytest.fixture
async def store(space: Space) -> AsyncIterator[RedisRunStore]:
    """A store with one ended run."""
    async with space.store() as store:
        await store.create(RUN_ID, "t", input=1)
        await store.append(RUN_ID, RunEvent(type=RunEventType.LOG, run_id=RUN_ID))
        result = AgentResult[int](output=1, agent_name="t", task_id="1")
        await store.finish(RUN_ID, RunState.COMPLETED, result=result)
        yield store


async def test_a_sound_run_has_no_problem(store: RedisRunStore) -> None:
    """An audit of an untouched run reports nothing."""
    assert (await store.audit(RUN_ID)).problems == ()


@pytest.mark.parametrize("what", TAMPERS)
async def test_what_was_tampered_with_is_named(
    space: Space, store: RedisRunStore, what: str
) -> None:
    """For each kind of damage by hand, a problem of the report names it."""
    tamper, problem = TAMPERS[what]
    tamper(space.admin, store._keys)
    report = await store.audit(RUN_ID)
    assert not report.ok
    assert any(problem in each for each in report.problems), report.problems
    space.admin.flushall()  # The key audit would name it too.


async def test_progress_that_is_newer_in_the_hash_is_no_problem(store: RedisRunStore) -> None:
    """Progress is journalled at most once a second: the difference is a note."""
    await store.create("live", "t")
    for completed in range(3):
        await store.update_progress("live", RunProgress(total=3, completed=completed))
    report = await store.audit("live")
    assert (report.problems, len(report.notes)) == ((), 1)


async def test_a_run_that_is_not_there_has_no_audit(store: RedisRunStore) -> None:
    """The audit of a missing run raises RunNotFoundError."""
    with pytest.raises(RunNotFoundError):
        await store.audit("nobody")


async def test_a_repeated_seq_is_reported_and_repaired(space: Space, store: RedisRunStore) -> None:
    """Audit names them; a rebuild numbers the later ones anew, and readers see all of them."""
    client: Any = space.admin
    await store.create(TWICE, "t")
    journal, key = space.keys.journal(TWICE), space.keys.run(TWICE)
    head = client.hmget(key, "version", "last_ms")
    await store.append(TWICE, *(log(text) for text in ("denied", "denied, too")))
    last_ms = int(client.hget(key, "last_ms"))
    client.hset(key, mapping=dict(zip(("version", "last_ms"), head, strict=True)))
    # In the same millisecond the server refuses the next one.
    while server_ms(space) <= last_ms:
        pass
    for text in ("first", "second", "third"):
        await store.append(TWICE, log(text))
    assert "seq is not dense" in " ".join((await store.audit(TWICE)).problems)
    await store.rebuild(TWICE)
    assert (await store.audit(TWICE)).problems == ()
    await store.finish(TWICE, RunState.COMPLETED)
    seen = [(event.seq, event.data) async for event in store.stream(TWICE)]
    assert [text for _, text in seen] == ["denied", "denied, too", "first", "second", "third"]
    assert [seq for seq, _ in seen] == [2, 3, 4, 5, 6]
    assert client.xlen(journal) == 7


def log(text: str) -> RunEvent:
    return RunEvent(type=RunEventType.CUSTOM, run_id=TWICE, name="note", data=text)
