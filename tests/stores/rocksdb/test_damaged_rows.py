from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, StoreDamagedError
from murmur_streams.core.model.run import PayloadKind, RunFilter
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.local.engine.database import (
    Database,
    Due,
    ItemRange,
    QueuePosition,
    Space,
    Stored,
)
from murmur_streams.stores.local.rocksdb import keys, rows
from murmur_streams.stores.local.rocksdb.open_folder import OpenFolder
from tests.stores.rocksdb.making import NOW, appended, created, entry, new_run, opened

DEEP = b"[" * 100_000
WHOLE = rows.run_row(new_run("run"))
BAD_RUNS = [
    b"",
    b"[]",
    b"{}",
    b"null",
    b"7",
    b"\xff",
    DEEP,
    b'{"run": ' + DEEP,
    b'{"run": []}',
    b'{"run": {"state": "x"}}',
    WHOLE.replace(b'"pending"', b'"x"'),
    WHOLE.replace(b'"pending"', b"[]"),
    WHOLE.replace(b'"writer"', b"5"),
    WHOLE.replace(b'"attempt":"0"', b'"attempt":{}'),
    *[
        WHOLE[:-1] + b',"' + name + b'":' + value + b"}"
        for name in (b"expire_at_ms", b"overdue_ms", b"queue")
        for value in (b'"x"', b"1.5", b"[]", b"{}", b"true")
    ],
    WHOLE[:-1] + b',"queue":[1,"x"]}',
]
BAD_VERSIONS = [b"", b"1", b"x y", b"1 2 3", b"1.5 2", b"-3 5", b"\xff \xff"]
BAD_ENTRIES = [
    b"",
    b"1\n2\n",
    b"x\ny\n{}",
    b"1\n2\n\xff",
    b"1\n\xff\n{}",
    b"1\n2\n[]",
    b'1\n2\n{"type": 5}',
    b"1\n2\n" + DEEP,
]
ENDLESS = 2**70


def filled(path: Path, spoil: Callable[[OpenFolder], object]) -> Database:
    """A store of the run ``run``, of 5 entries, and one other, changed by hand."""
    database = opened(path)
    for run_id in ("run", "other"):
        group = created(new_run(run_id))
        group.runs[run_id].payloads = {PayloadKind.INPUT: "1"}
        group.items[Space.WORKERS, run_id] = "{}"
        database.commit(group)
    _, group = appended(new_run("run"), 4)
    database.commit(group)
    database.close()
    handle = OpenFolder(path)
    spoil(handle)
    handle.close()
    return opened(path)


def put(key: bytes, row: bytes) -> Callable[[OpenFolder], object]:
    return lambda handle: handle.family.put(key, row)


def check_run_is_damaged(database: Database) -> None:
    for read in (
        lambda: database.stored("run"),
        lambda: database.journal("run", 0, 10),
        lambda: database.last_entries("run", 10),
    ):
        with pytest.raises(RunDamagedError, match="'run'"):
            read()
    assert [run.run_id for run in database.listing(RunFilter(), NOW, 10, None)] == ["other"]
    assert [each.seq for each in database.stored_entries("run", 0, 10)] == [1, 2, 3, 4, 5]
    assert len(database.feed(0, 10)) == 6


@pytest.mark.parametrize("row", BAD_RUNS)
def test_a_run_that_cannot_be_read_is_named_and_not_listed(tmp_path: Path, row: bytes) -> None:
    """Reading it raises RunDamagedError with its id; listings leave it out."""
    database = filled(tmp_path / "store", put(keys.run("run"), row))
    check_run_is_damaged(database)
    database.close()


@pytest.mark.parametrize("row", BAD_VERSIONS)
def test_a_version_that_cannot_be_read_is_damage_too(tmp_path: Path, row: bytes) -> None:
    """The row of the version is as necessary as the row of the run."""
    database = filled(tmp_path / "store", put(keys.version("run"), row))
    check_run_is_damaged(database)
    database.close()


@pytest.mark.parametrize("row", BAD_ENTRIES)
def test_an_entry_that_cannot_be_read_names_its_run(tmp_path: Path, row: bytes) -> None:
    """Reading the journal raises RunDamagedError with the number of the entry."""
    database = filled(tmp_path / "store", put(keys.numbered(keys.journal("run"), 2), row))
    for read in (lambda: database.journal("run", 0, 10), lambda: database.last_entries("run", 4)):
        with pytest.raises(RunDamagedError, match="entry 2"):
            read()
    database.close()


@pytest.mark.parametrize("row", BAD_ENTRIES)
def test_stored_entries_are_those_that_can_be_read(tmp_path: Path, row: bytes) -> None:
    """An audit gets the readable entries and skips the damaged one."""
    database = filled(tmp_path / "store", put(keys.numbered(keys.journal("run"), 2), row))
    assert [each.seq for each in database.stored_entries("run", 0, 10)] == [1, 3, 4, 5]
    assert [each.seq for each in database.stored_entries("run", 0, 2)] == [1, 3]
    assert [each.seq for each in database.stored_entries("run", 1, 1)] == [3]
    assert database.stored_entries("run", 5, 10) == []
    assert database.stored_entries("none", 0, 10) == []
    database.close()


@pytest.mark.parametrize("row", [*BAD_ENTRIES, None])
@pytest.mark.parametrize("n", [1, 3, 6])
def test_the_feed_goes_on_past_a_row_that_cannot_be_read(
    tmp_path: Path, n: int, row: bytes | None
) -> None:
    """The row keeps its number and has no fields; the rows after it are unchanged."""

    def spoil(handle: OpenFolder) -> None:
        if row is None:
            handle.family.delete(keys.feed(n))
        else:
            handle.family.put(keys.feed(n), row)

    database = filled(tmp_path / "store", spoil)
    found = database.feed(0, 10)
    assert [each.position for each in found] == [
        (0 if (n, number) == (1, 1) else NOW, number) for number in range(1, 7)
    ]
    assert found[n - 1].entry == JournalEntry("", "", found[n - 1].position[0], 0, {"type": ""})
    assert [each.entry.type for each in found].count("agent_started") == 5
    for number in range(6):
        assert database.feed(number, 1) == [found[number]]
    database.close()


def test_a_feed_row_with_bad_fields_has_those_of_the_journal(tmp_path: Path) -> None:
    """The journal has the same entry, so the reader of the feed gets it whole."""
    head = b"%d\n\n3\n0a1b2c3d\nwriter\nrun\n\n" % NOW
    database = filled(tmp_path / "store", put(keys.feed(4), head + b"{{{"))
    assert database.feed(3, 1)[0].entry == entry("run", 3)
    database.close()


def test_a_feed_row_damaged_in_the_journal_too_has_no_type(tmp_path: Path) -> None:
    """Its run, seq and target are still known; the fields have only an empty type."""

    def spoil(handle: OpenFolder) -> None:
        head = b"%d\n\n3\n0a1b2c3d\nwriter\nrun\n\n" % NOW
        handle.family.put(keys.feed(4), head + DEEP)
        handle.family.put(keys.numbered(keys.journal("run"), 3), DEEP)

    database = filled(tmp_path / "store", spoil)
    row = database.feed(3, 1)[0]
    assert (row.target, row.entry.run_id, row.entry.seq) == ("writer", "run", 3)
    assert row.entry.fields == {"type": ""}
    database.close()


def test_a_feed_with_a_row_that_cannot_be_read_is_trimmed(tmp_path: Path) -> None:
    """Trimming removes a damaged row like every other."""
    path = tmp_path / "store"
    filled(path, put(keys.feed(5), b"x")).close()
    database = opened(path, feed_max_entries=2)
    stored = database.stored("run")
    assert stored is not None
    _, group = appended(stored)
    database.commit(group)
    assert [each.position[1] for each in database.feed(0, 10)] == [6, 7]
    database.close()


def test_texts_that_are_none_are_damage(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 raise an error that names the payload or item."""

    def spoil(handle: OpenFolder) -> None:
        handle.family.put(keys.payload("run", PayloadKind.INPUT), b"\xff")
        handle.family.put(keys.item(Space.WORKERS, "run"), b"\xff")
        handle.family.put(keys.scored(keys.due(Due.LEASE), 1) + b"\xff", b"")
        handle.family.put(keys.scored(keys.queue("writer", is_ready=True), 1) + b"\xff", b"")

    database = filled(tmp_path / "store", spoil)
    with pytest.raises(RunDamagedError, match="input"):
        database.payload("run", PayloadKind.INPUT)
    assert database.payload("other", PayloadKind.INPUT) == "1"
    for read in (
        lambda: database.item(Space.WORKERS, "run"),
        lambda: database.items(ItemRange(Space.WORKERS, limit=10)),
        lambda: database.due(Due.LEASE, NOW, 10),
        lambda: database.queue("writer", is_ready=True, limit=10),
    ):
        with pytest.raises(StoreDamagedError, match="cannot be read"):
            read()
    database.close()


@pytest.mark.parametrize("row", [b"", b"x", b"x\n\n\n", b"\xff"])
def test_a_listing_asks_the_run_where_its_row_says_nothing(tmp_path: Path, row: bytes) -> None:
    """If the row of a listing is damaged, the run itself decides about the filter."""
    (key,) = [each for each in keys.listings(new_run("run").run) if each.startswith(b"t")]
    database = filled(tmp_path / "store", put(key, row))
    for state, count in ((RunState.PENDING, 2), (RunState.FAILED, 0)):
        assert len(database.listing(RunFilter(state, "writer"), NOW, 10, None)) == count
    database.close()


def test_numbers_beyond_all_ranges_are_read_as_their_ends(tmp_path: Path) -> None:
    """A huge limit means everything, a negative one nothing."""
    database = filled(tmp_path / "store", lambda _: None)
    limits: Any = ((ENDLESS, 5), (0, 0), (-1, 0), (-ENDLESS, 0), (1.5, 1))
    for limit, count in limits:
        assert len(database.last_entries("run", limit)) == count
        assert len(database.stored_entries("run", 0, limit)) == count
        assert len((database.journal("run", 0, limit) or (None, []))[1]) == count
        assert len(database.feed(0, limit)) == min(6, count + (limit == ENDLESS))
        assert len(database.listing(RunFilter(), NOW, limit, None)) == min(2, count)
        assert len(database.items(ItemRange(Space.WORKERS, limit=limit))) == min(2, count)
        assert database.due(Due.EXPIRE, ENDLESS, limit) == []
        assert database.queue("writer", is_ready=True, limit=limit) == []
    for after in (ENDLESS, 2**63, 2**64 - 1):
        assert database.stored_entries("run", after, 10) == database.feed(after, 10) == []
        assert (database.journal("run", after, 10) or (None, None))[1] == []
    assert len(database.stored_entries("run", -ENDLESS, 10)) == 5
    assert len((database.journal("run", -1, 10) or (None, []))[1]) == 5
    assert len(database.feed(-ENDLESS, 10)) == 6
    assert database.due(Due.EXPIRE, -ENDLESS, 10) == []
    database.close()


@pytest.mark.parametrize("moment", [ENDLESS, -ENDLESS])
def test_a_moment_beyond_all_time_is_written_and_read_as_it_is(tmp_path: Path, moment: int) -> None:
    """Times and scores beyond 64 bits are stored, and sorted as the largest or smallest."""
    database = filled(tmp_path / "store", lambda _: None)
    far = replace(
        new_run("far", created_ms=abs(moment)),
        expire_at_ms=moment,
        lease_until_ms=moment,
        queue=QueuePosition(is_ready=True, score=moment),
    )
    database.commit(created(far))
    assert database.stored("far") == far
    assert database.due(Due.LEASE, NOW, 10) == (["far"] if moment < 0 else [])
    assert [run_id for _, run_id in database.queue("writer", is_ready=True, limit=1)] == ["far"]
    database.close()


def test_a_version_beyond_all_journals_reads_what_there_is(tmp_path: Path) -> None:
    """A damaged version does not hide the entries that exist."""
    database = filled(tmp_path / "store", put(keys.version("run"), b"%d %d" % (ENDLESS, NOW)))
    found = database.journal("run", 0, 10)
    assert found is not None
    assert isinstance(found[0], Stored)
    assert [each.seq for each in found[1]] == [1, 2, 3, 4, 5]
    assert database.last_entries("run", 3) == []
    database.close()
