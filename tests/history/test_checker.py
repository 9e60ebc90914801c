"""The checker of histories: it finds every kind of tampering, and nothing where all is true."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from murmur_streams.core.model.commands import Append, Create
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import MurmurError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.evolve import fold
from murmur_streams.stores.local.memory.store import InMemoryRunStore
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.checker import check
from murmur_streams.testing.history import (
    Call,
    History,
    Outcome,
    ReportedLoss,
    StoredRun,
    stored_runs,
)
from murmur_streams.testing.recorder import Recorder
from tests.servers import Space

Stored = dict[str, StoredRun]
TASKS, WRITES = 5, 12


def event(run_id: str, data: str) -> RunEvent:
    return RunEvent(type=RunEventType.LOG, run_id=run_id, data=data)


async def live(store: Recorder, run_id: str) -> None:
    """A run of several programs: some of their calls are refused."""
    await store.create(run_id, "work")
    with contextlib.suppress(MurmurError):
        await store.create(run_id, "work")
    readers = [asyncio.create_task(store.read(run_id)) for _ in range(2)]

    async def write(task: int) -> None:
        version = 1
        for number in range(WRITES):
            two = [event(run_id, f"{task}-{number}-{part}") for part in range(2)]
            with contextlib.suppress(MurmurError):
                expected = version if number % 3 == 0 else None
                version = await store.append(run_id, *two, expected_version=expected)

    await asyncio.gather(*(write(task) for task in range(TASKS)))
    await store.push_event(run_id, event(run_id, "pushed"))
    await store.finish(run_id, RunState.COMPLETED, event(run_id, "last"))
    with contextlib.suppress(MurmurError):
        await store.append(run_id, event(run_id, "too late"))
    await store.push_event(run_id, event(run_id, "late"))
    await asyncio.gather(*readers)


async def lived(store: InMemoryRunStore | RedisRunStore) -> tuple[History, Stored]:
    """A true history of two runs, and what the store has of them."""
    history = History()
    recorder = Recorder(store, history)
    await asyncio.gather(live(recorder, "one"), live(recorder, "other"))
    stored = await stored_runs(store, history.run_ids)
    count = sum(len(each.journal) for each in stored.values())
    feed: list[FeedEntry] = []
    async for each in store.feed():
        feed.append(each)
        if len(feed) == count:
            break
    history.feeds.append(feed)
    return history, stored


async def test_a_true_history_has_no_violation(space: Space) -> None:
    """In memory and on the server: calls side by side, refusals, readers and the feed."""
    async with space.store() as store:
        for each in (InMemoryRunStore(), store):
            history, stored = await lived(each)
            assert check(history, stored) == []
            outcomes = {call.outcome for call in history.calls}
            assert outcomes == {Outcome.ACKNOWLEDGED, Outcome.REFUSED}
            assert all(reader.is_complete for reader in history.readers)


def changed_journal(
    stored: Stored, change: Callable[[list[JournalEntry]], list[JournalEntry]]
) -> None:
    stored["one"] = replace(stored["one"], journal=tuple(change([*stored["one"].journal])))


def renumbered(entries: list[JournalEntry]) -> list[JournalEntry]:
    """The entries with dense numbers, so that only their content is wrong."""
    return [replace(entry, seq=seq) for seq, entry in enumerate(entries, 1)]


def without(entries: list[JournalEntry], at: int) -> list[JournalEntry]:
    return renumbered(entries[:at] + entries[at + 1 :])


def twice(entries: list[JournalEntry], at: int) -> list[JournalEntry]:
    return renumbered([*entries[: at + 1], *entries[at:]])


def with_fields(entries: list[JournalEntry], at: int, **fields: str) -> list[JournalEntry]:
    entries[at] = replace(entries[at], fields={**entries[at].fields, **fields})
    return entries


def exchanged(entries: list[JournalEntry]) -> list[JournalEntry]:
    """Two writes of one task in the wrong order."""
    of_task = [at for at, entry in enumerate(entries) if '"0-' in entry.fields.get("data", "")]
    first, last = of_task[0], of_task[-2]
    for part in range(2):
        one, other = entries[first + part], entries[last + part]
        entries[first + part] = replace(one, fields=other.fields)
        entries[last + part] = replace(other, fields=one.fields)
    return entries


def ended_again(entries: list[JournalEntry]) -> list[JournalEntry]:
    state = next(entry for entry in entries if entry.fields.get("state") == "completed")
    return renumbered([*entries, replace(state, fields={"type": "run.state", "state": "failed"})])


def first_refused(history: History) -> Call:
    return next(
        call
        for call in history.calls
        if call.run_id == "one" and call.answer and call.answer[0] == "WRONG_VERSION"
    )


def written_after_the_claim(history: History, stored: Stored) -> None:
    """A write of a worker that does not hold the run."""
    for call in history.calls:
        if isinstance(call.command, Append):
            call.command = replace(call.command, claim="lost")
            break


def refused_event_written(history: History, stored: Stored) -> None:
    command = first_refused(history).command
    assert isinstance(command, Append)
    changed_journal(stored, lambda entries: with_fields(entries, 3, **command.events[0]))


def forged_event(history: History, stored: Stored) -> None:
    del history
    changed_journal(stored, lambda entries: with_fields(entries, 3, data='"forged"'))


def end_lost(history: History, stored: Stored) -> None:
    del history
    run = stored["one"].run
    assert run is not None
    at = next(at for at, entry in enumerate(stored["one"].journal) if entry.type == "run.state")
    changed_journal(stored, lambda entries: entries[: at - 1])
    folded = fold(stored["one"].journal)
    stored["one"] = replace(stored["one"], run=folded)


def unknown_twice(history: History, stored: Stored) -> None:
    call = next(each for each in history.calls if each.run_id == "one" and each.version == 3)
    call.outcome, call.answer = Outcome.UNKNOWN, None
    changed_journal(stored, lambda entries: twice(entries, 1))


def state_of_the_hash(history: History, stored: Stored) -> None:
    run = stored["one"].run
    assert run is not None
    stored["one"] = replace(stored["one"], run=replace(run, state=RunState.FAILED))


def refused_for_no_reason(history: History, stored: Stored) -> None:
    first_refused(history).answer = ("WRONG_VERSION", "100000")


def created_run_gone(history: History, stored: Stored) -> None:
    assert any(isinstance(call.command, Create) for call in history.calls)
    stored["one"] = StoredRun(None)


def attempts_mixed(history: History, stored: Stored) -> None:
    def mix(entries: list[JournalEntry]) -> list[JournalEntry]:
        return with_fields(with_fields(entries, 3, attempt="2"), 5, attempt="1")

    changed_journal(stored, mix)


def other_version(history: History, stored: Stored) -> None:
    call = next(each for each in history.calls if each.run_id == "one" and each.version == 5)
    call.answer = ("OK", "9")


def no_seal(history: History, stored: Stored) -> None:
    at = next(at for at, entry in enumerate(stored["one"].journal) if entry.is_seal)
    changed_journal(stored, lambda entries: with_fields(entries, at - 1, seal="1"))


TAMPERINGS: dict[str, tuple[str, Callable[[History, Stored], None]]] = {
    "an entry removed": (
        "acknowledged",
        lambda _, stored: changed_journal(stored, lambda entries: without(entries, 4)),
    ),
    "a hole in the journal": (
        "dense",
        lambda _, stored: changed_journal(stored, lambda entries: entries[:4] + entries[5:]),
    ),
    "an entry doubled": (
        "acknowledged",
        lambda _, stored: changed_journal(stored, lambda entries: twice(entries, 4)),
    ),
    "an entry changed": (
        "acknowledged",
        lambda _, stored: changed_journal(
            stored, lambda entries: with_fields(entries, 4, data='"changed"')
        ),
    ),
    "two writes exchanged": (
        "acknowledged",
        lambda _, stored: changed_journal(stored, exchanged),
    ),
    "a second end": (
        "ends once",
        lambda _, stored: changed_journal(stored, ended_again),
    ),
    "an acknowledged end that is lost": ("acknowledged", end_lost),
    "a tail that is lost": (
        "acknowledged",
        lambda _, stored: changed_journal(stored, lambda entries: entries[:5]),
    ),
    "a second seal": ("seal is the end", no_seal),
    "another state in the hash": ("fold", state_of_the_hash),
    "a refused event that is there": ("refused", refused_event_written),
    "an event that no call wrote": ("a call wrote every event", forged_event),
    "an unknown write that is there twice": ("unknown", unknown_twice),
    "a refusal without a reason": ("refusal has its reason", refused_for_no_reason),
    "a created run that is gone": ("created run exists", created_run_gone),
    "attempts that interleave": ("interleave", attempts_mixed),
    "a write without the claim": ("while it holds the run", written_after_the_claim),
    "a write at another version": ("acknowledged", other_version),
    "a reader's event doubled": (
        "reader gets each event once",
        lambda history, _: history.readers[0].events.insert(3, history.readers[0].events[2]),
    ),
    "a reader's event missing": (
        "reader gets each event once",
        lambda history, _: history.readers[0].events.pop(3) and None,
    ),
    "a reader's stream too short": (
        "reader gets each event once",
        lambda history, _: history.readers[0].events.pop() and None,
    ),
    "a feed's entry missing": (
        "feed",
        lambda history, _: history.feeds[0].pop(6) and None,
    ),
    "a feed's entry doubled": (
        "feed",
        lambda history, _: history.feeds[0].insert(6, history.feeds[0][5]),
    ),
}


@pytest.fixture(scope="module")
def true_history() -> tuple[History, Stored]:
    return asyncio.run(lived(InMemoryRunStore()))


@pytest.mark.parametrize("name", TAMPERINGS)
def test_every_kind_of_tampering_is_found(name: str, true_history: tuple[History, Stored]) -> None:
    """The rule that it breaks is among those that are reported."""
    rule, tamper = TAMPERINGS[name]
    history, stored = copy.deepcopy(true_history)
    tamper(history, stored)
    assert [each for each in check(history, stored) if rule in each.rule]


def test_calls_out_of_order_are_found() -> None:
    """A write that began after another had returned cannot come before it."""
    first, second = (
        Call("run", Append(({"type": "log", "data": data},)), began, began + 1, answer=("OK", at))
        for data, began, at in (("1", 0.0, "3"), ("2", 5.0, "2"))
    )
    for call in (first, second):
        call.outcome = Outcome.ACKNOWLEDGED
    journal = tuple(
        JournalEntry("run", "0badcafe", 1, seq, fields)
        for seq, fields in enumerate(
            (
                {"type": "run.created", "target": "work", "epoch": "0badcafe"},
                {"type": "log", "data": "2"},
                {"type": "log", "data": "1"},
            ),
            1,
        )
    )
    found = check(History([first, second]), {"run": StoredRun(None, journal)})
    assert "order is that of the calls" in " ".join(each.rule for each in found)


def test_a_reader_may_have_seen_what_a_failover_took(true_history: tuple[History, Stored]) -> None:
    """Only at the end of what it received, and only where that may happen."""
    history, stored = copy.deepcopy(true_history)
    reader = history.readers[0]
    seen = reader.events[-1].model_copy(update={"id": "0badcafe-1-1"})
    reader.events[-1], reader.is_complete = seen, False
    assert check(history, stored)
    history.may_rewind = True
    assert check(history, stored) == []
    reader.events[3] = seen
    assert check(history, stored)


def test_a_lost_write_needs_a_report_to_its_program() -> None:
    """StoreRewoundError after the write, in the program that made it; nothing else excuses it."""
    fields = {"type": "run.created", "target": "work", "epoch": "0badcafe"}
    stored = {"run": StoredRun(None, (JournalEntry("run", "0badcafe", 1, 1, fields),))}
    command = Append(({"type": "log", "data": "lost"},))
    call = Call("run", command, 1.0, 2.0, Outcome.ACKNOWLEDGED, ("OK", "2"), program=1)
    for loss, is_excused in (
        (ReportedLoss("run", 1, 3.0), True),
        (ReportedLoss("run", 1, 1.5), False),
        (ReportedLoss("run", 2, 3.0), False),
        (ReportedLoss("other", 1, 3.0), False),
    ):
        assert (check(History([call], losses=[loss]), stored) == []) is is_excused


async def test_a_run_that_was_deleted_and_made_again_is_no_violation() -> None:
    """Its id has two lives; the first one's journal is gone."""
    history, store = History(), InMemoryRunStore()
    recorder = Recorder(store, history)
    for life in ("first", "second"):
        await recorder.create("run", "work")
        await recorder.append("run", event("run", life))
        await recorder.finish("run", RunState.COMPLETED)
        await recorder.read("run")
        if life == "first":
            await recorder.delete("run")
    assert check(history, await stored_runs(store, ["run"])) == []


def test_a_trimmed_journal_is_no_violation(true_history: tuple[History, Stored]) -> None:
    """Writes and readers are compared with what is left, also where the cut is inside a write."""
    history, stored = copy.deepcopy(true_history)
    for first in (4, 5):
        left = stored["one"].journal[first - 1 :]
        run = stored["one"].run
        found = check(history, stored | {"one": StoredRun(run, left)})
        # Without a snapshot the rest of a journal has no fold.
        assert {each.rule for each in found} <= {"the run is the fold of its journal"}


def test_a_history_is_judged_in_parts(true_history: tuple[History, Stored]) -> None:
    """A run that is taken out has all of its part, and the rest has all of the others."""
    history, stored = copy.deepcopy(true_history)
    calls, feed = len(history.calls), history.feeds[0]
    part = history.take(["one"])
    assert {each.run_id for each in (*part.calls, *part.readers, *part.feeds[0])} == {"one"}
    assert {each.run_id for each in (*history.calls, *history.readers, *feed)} == {"other"}
    assert history.feeds[0] is feed
    assert len(part.calls) + len(history.calls) == calls
    assert check(part, {"one": stored["one"]}) == []
    assert check(history, {"other": stored["other"]}) == []
    changed_journal(stored, lambda entries: without(entries, 3))
    assert check(part, {"one": stored["one"]}) != []


def test_a_loss_goes_with_its_run() -> None:
    """A report of a loss excuses the run's part, not the rest."""
    history = History(losses=[ReportedLoss("one", 1, 0.0), ReportedLoss("other", 1, 0.0)])
    assert [each.run_id for each in history.take({"one"}).losses] == ["one"]
    assert [each.run_id for each in history.losses] == ["other"]
