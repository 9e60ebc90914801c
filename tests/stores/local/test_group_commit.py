"""Calls that wait at the same time are committed together; each gets its own answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import Any

import pytest

from murmur_streams import (
    RunExistsError,
    RunNotFoundError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    WrongExpectedVersionError,
)
from murmur_streams.stores.local.engine import writer
from murmur_streams.stores.local.engine.database import Changes
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.stores.local.engine.transaction import Transaction
from murmur_streams.testing.workbench import journal_of, note, numbers, wait_until
from tests.stores.local.stores import Open, access_of, file_of

TASKS = 100


class Commits:
    """Counts a store's commits, and makes some of them fail."""

    def __init__(self, database: Any) -> None:
        self._begin, self._commit = database.begin, database.commit
        self.groups: list[int] = []
        """How many entries each wrote."""
        self.commit_failures: list[BaseException] = []
        self.begin_failures: list[BaseException] = []
        database.begin, database.commit = self.begin, self.commit

    def begin(self) -> bool:
        if self.begin_failures:
            raise self.begin_failures.pop()
        return self._begin()

    def commit(self, changes: Changes) -> object:
        if self.commit_failures:
            raise self.commit_failures.pop()
        self.groups.append(len(changes.feed))
        return self._commit(changes)


async def commits_of(store: FileRunStore) -> Commits:
    file = await file_of(store)
    return Commits(file.writer.database)


async def test_a_hundred_tasks_share_a_few_commits(store: FileRunStore) -> None:
    """Appends of a hundred tasks at once need at most three commits."""
    await store.create("run", "target")
    commits = await commits_of(store)
    await asyncio.gather(*(store.append("run", note("run", each)) for each in range(TASKS)))
    assert sum(commits.groups) == TASKS
    assert len(commits.groups) <= 3
    reported = [event for entry in await journal_of(store, "run") if (event := entry.event())]
    assert sorted(map(int, map(str, numbers(reported)))) == list(range(TASKS))


async def test_one_call_does_not_wait_for_company(store: FileRunStore) -> None:
    """A single append is committed alone and at once."""
    await store.create("run", "target")
    commits = await commits_of(store)
    for number in range(5):
        await store.append("run", note("run", number))
    assert commits.groups == [1] * 5


async def test_each_of_a_group_gets_its_own_answer_or_error(store: FileRunStore) -> None:
    """Refused calls of a group get their errors, the others are written."""
    await store.create("run", "target")
    answers = await asyncio.gather(
        store.append("run", note("run", 1)),
        store.append("nobody", note("nobody")),
        store.append("run", note("run", 2), expected_version=9),
        store.create("run", "target"),
        store.append("run", note("run", 3), note("run", 4)),
        return_exceptions=True,
    )
    kinds = [int, RunNotFoundError, WrongExpectedVersionError, RunExistsError, int]
    assert [type(answer) for answer in answers] == kinds
    assert (answers[0], answers[4]) == (2, 4)


async def test_a_bug_in_one_operation_is_that_callers_alone(store: FileRunStore) -> None:
    """An operation that raises an unexpected error does not fail its group."""
    await store.create("run", "target")

    def broken(group: Transaction) -> None:
        group.put(next(iter(())), "key", "text")

    def wrong(group: Transaction) -> None:
        del group
        raise ZeroDivisionError

    answers = await asyncio.gather(
        store.append("run", note("run", 1)),
        store._access.write(broken),
        store._access.write(wrong),
        store.append("run", note("run", 2)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [int, StoreError, ZeroDivisionError, int]
    events = [event for entry in await journal_of(store, "run") if (event := entry.event())]
    assert numbers(events) == [1, 2]


async def test_calls_of_a_group_that_failed_are_tried_one_by_one(
    store: FileRunStore,
) -> None:
    """Only the call that fails by itself gets the error; the other calls are written."""
    await store.create("run", "target")
    commits = await commits_of(store)
    # The group's, then that of its first call.
    commits.commit_failures = [StoreFullError("full"), StoreFullError("full")]
    with _rolled_back(store):
        answers = await asyncio.gather(
            *(store.append("run", note("run", each)) for each in range(3)), return_exceptions=True
        )
    failed = [answer for answer in answers if isinstance(answer, StoreFullError)]
    assert len(failed) == 1
    events = [event for entry in await journal_of(store, "run") if (event := entry.event())]
    written = [number for number, answer in enumerate(answers) if isinstance(answer, int)]
    assert numbers(events) == written
    assert (await store.audit("run")).ok


@contextlib.contextmanager
def _rolled_back(store: FileRunStore) -> Generator[None]:
    """A commit that failed has ended its group; the fake one must do that, too."""
    file = access_of(store)._file
    assert file is not None
    database: Any = file.writer.database
    commit = database.commit

    def end(changes: Changes) -> object:
        try:
            return commit(changes)
        except StoreFullError:
            database.rollback()
            raise

    database.commit = end
    yield


async def test_a_file_that_somebody_holds_is_everybodys_error_at_once(store: FileRunStore) -> None:
    """All callers of the group get the error after one wait for the locked file."""
    await store.create("run", "target")
    commits = await commits_of(store)
    await asyncio.gather(*(store.append("run", note("run", each)) for each in range(3)))
    commits.begin_failures = [StoreUnavailableError("held")]
    answers = await asyncio.gather(
        *(store.append("run", note("run", each)) for each in range(20)), return_exceptions=True
    )
    # One group, one wait for the file: none of its calls waited for it again by itself.
    assert [type(each) for each in answers] == [StoreUnavailableError] * 20
    assert (await store.snapshot("run")).version == 4


async def test_a_cancelled_caller_poisons_nothing(store: FileRunStore) -> None:
    """Calls of the same group as a cancelled one are written as usual."""
    await store.create("run", "target")
    writes = [asyncio.create_task(store.append("run", note("run", each))) for each in range(10)]
    await asyncio.sleep(0)
    for each in writes[::2]:
        each.cancel()
    answers = await asyncio.gather(*writes, return_exceptions=True)
    events = [event for entry in await journal_of(store, "run") if (event := entry.event())]
    acknowledged = [each for each, answer in enumerate(answers) if isinstance(answer, int)]
    assert set(acknowledged) <= set(numbers(events))
    assert len(set(map(str, numbers(events)))) == len(events)
    assert await store.append("run", note("run", 99)) == len(events) + 2


async def test_more_callers_than_may_wait_are_served_all_the_same(
    store: FileRunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a short queue of waiting calls, each append still gets its own version."""
    monkeypatch.setattr("murmur_streams.stores.local.engine.writer.MOST_WAITING", 7)
    await store.create("run", "target")
    versions = await asyncio.gather(
        *(store.append("run", note("run", each)) for each in range(TASKS))
    )
    assert sorted(versions) == list(range(2, TASKS + 2))


async def test_closing_writes_what_waits_and_refuses_what_comes(open_again: Open) -> None:
    """Each append during a close is either written or refused with StoreClosedError."""
    store = open_again()
    await store.create("run", "target")
    writes = [asyncio.create_task(store.append("run", note("run", each))) for each in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(answer, int | StoreClosedError) for answer in answers)
    with pytest.raises(StoreClosedError):
        await store.append("run", note("run", 99))
    async with open_again() as again:
        written = sum(isinstance(answer, int) for answer in answers)
        assert (await again.snapshot("run")).version == 1 + written


async def test_closing_ends_every_subscriber_and_feed_reader(
    open_again: Open,
) -> None:
    """Each gets StoreClosedError, and none waits for ever."""
    store = open_again()
    for each in range(20):
        await store.create(f"run-{each}", "target")
    seen: list[object] = []

    async def follow(run_id: str) -> None:
        async for event in store.stream(run_id):
            seen.append(event)  # noqa: PERF401  # one by one is what is looked at

    async def read() -> None:
        async for entry in store.feed():
            seen.append(entry)  # noqa: PERF401  # likewise

    tasks = [asyncio.create_task(follow(f"run-{each}")) for each in range(20)]
    tasks.append(asyncio.create_task(read()))
    await wait_until(lambda: len(seen) == 20 and store._tails.following == 20, "all wait")
    await store.close()
    ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    assert {type(each) for each in ended} == {StoreClosedError}


async def test_a_store_is_one_event_loops(store: FileRunStore) -> None:
    """A call from another event loop is refused, and the store goes on."""
    await store.create("run", "target")

    def elsewhere() -> None:
        async def look() -> None:
            with pytest.raises(StoreClosedError, match="another event loop"):
                await store.get_status("run")

        asyncio.run(look())

    await asyncio.to_thread(elsewhere)
    assert (await store.get_status("run")).state == "pending"


async def test_a_writer_knows_only_the_latest_runs(
    store: FileRunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest ones are forgotten; they are read from the file again."""
    monkeypatch.setattr(writer, "MOST_KNOWN", 10)
    names = [f"run{number}" for number in range(40)]
    for name in names:
        await store.create(name, "target")
    known = [*(await file_of(store)).writer.known.runs]
    assert len(known) <= 10
    assert known == names[-len(known) :]
    assert [(await store.get_status(name)).run_id for name in names] == names
