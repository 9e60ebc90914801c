"""The reader's rules: what a reader gets of any entries, in any order, and when it must stop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.core.model.entries import Cursor, JournalEntry
from murmur_streams.core.model.errors import CursorError, CursorGapError, CursorResetError
from murmur_streams.core.rules.reading import Reading

RUN_ID = "run"
EPOCHS = ("00000001", "00000002")


def entry_of(seq: int, *, epoch: int = 0, ms: int = 0, **fields: str) -> JournalEntry:
    """An entry; by default a millisecond after the one before it."""
    kind = "run.created" if seq == 1 else "log"
    fields = {"type": kind, **({"epoch": EPOCHS[epoch]} if seq == 1 else {}), **fields}
    return JournalEntry(RUN_ID, EPOCHS[epoch], ms or seq, seq, fields)


def reading_of(*, after: int = 0, late: bool = False, seal: int | None = None) -> Reading:
    """A reader of the first life, after that seq."""
    reading = Reading(RUN_ID, late)
    if after:
        reading.start_after(Cursor(EPOCHS[0], after, after))
    reading.learn(epoch=EPOCHS[0], version=after, seal=seal, has_ended=seal is not None)
    return reading


def taken(reading: Reading, entries: Iterable[JournalEntry]) -> list[int]:
    """The seqs of the entries that the reader gets."""
    return [entry.seq for entry in entries if reading.take(entry)]


@dataclass
class Reader:
    """A reader that stops at its first error, as a stream does."""

    reading: Reading
    got: list[JournalEntry] = field(default_factory=list[JournalEntry])
    error: CursorError | None = None

    def offer(self, entries: Iterable[JournalEntry]) -> None:
        for entry in entries:
            if self.error is not None or self.reading.is_over:
                return
            try:
                if self.reading.take(entry):
                    self.got.append(entry)
            except CursorError as error:
                self.error = error


OFFERS = st.lists(
    st.builds(
        entry_of,
        st.integers(1, 6),
        epoch=st.sampled_from([0, 0, 0, 1]),
        ms=st.sampled_from([0, 0, 0, 7, 8]),
    ),
    max_size=12,
)


@given(OFFERS, st.integers(0, 3), st.none() | st.integers(1, 6), st.booleans())
def test_any_entries_in_any_order_give_one_life_or_one_error(
    offers: list[JournalEntry], after: int, seal: int | None, late: bool
) -> None:
    """For all entries offered: no hole, no repeat, no other life, nothing after the seal."""
    reader = Reader(reading_of(after=after, late=late, seal=seal))
    reader.offer(offers)
    got = reader.got
    assert all(later.seq == entry.seq + 1 for entry, later in pairwise(got))
    assert {entry.epoch for entry in got} <= {EPOCHS[0]}
    if after and got:
        assert got[0].seq == after + 1
    if seal is not None and not late:
        assert all(entry.seq <= seal for entry in got)
    if isinstance(reader.error, CursorResetError):
        assert reader.error.resume_cursor is None


@given(OFFERS, st.integers(0, 3))
def test_the_first_error_is_the_first_break_of_the_order(
    offers: list[JournalEntry], after: int
) -> None:
    """The rules of ``reading.py`` once more, as plain cases over the position."""
    reader = Reader(reading_of(after=after))
    ms, seq, expected = after, after, None
    for entry in offers:
        if entry.epoch != EPOCHS[0] or (entry.seq <= seq and entry.ms > ms):
            expected = CursorResetError
        elif entry.seq <= seq:
            continue
        elif seq and entry.seq > seq + 1:
            expected = CursorGapError
        if expected is not None:
            break
        ms, seq = entry.ms, entry.seq
    reader.offer(offers)
    assert type(reader.error) is (expected or type(None))
    assert (reader.reading.ms, reader.reading.seq) == (ms, seq)


@given(st.data(), st.integers(1, 30))
def test_a_reader_and_its_resumptions_miss_nothing_that_is_there(
    data: st.DataObject, length: int
) -> None:
    """Pages overlap, entries are trimmed between them, and the reader resumes after gaps."""
    journal = [entry_of(seq) for seq in range(1, length + 1)]
    reading, got, gaps, oldest = reading_of(), list[int](), set[int](), 1
    while reading.seq < length:
        oldest = data.draw(st.integers(oldest, length), "oldest entry left")
        first = data.draw(st.integers(0, reading.seq), "page begins after")
        size = reading.seq - first + data.draw(st.integers(1, 5), "new entries of the page")
        page = [entry for entry in journal if max(first + 1, oldest) <= entry.seq][:size]
        try:
            got += taken(reading, page)
        except CursorGapError as gap:
            cursor = Cursor.parse(gap.resume_cursor)
            gaps |= set(range(reading.seq + 1, cursor.seq + 1))
            reading = reading_of()
            reading.start_after(cursor)
    assert got == sorted(set(got))
    assert set(got) | gaps | set(range(1, (got or [1])[0])) == set(range(1, length + 1))


@given(
    st.lists(st.builds(entry_of, st.integers(2, 6), ms=st.sampled_from([0, 0, 7])), max_size=8),
    st.integers(1, 3),
    st.none() | st.integers(1, 6),
    st.booleans(),
)
def test_the_shorter_way_decides_nothing_differently(
    offers: list[JournalEntry], after: int, seal: int | None, late: bool
) -> None:
    """``take_next`` is True only where ``take`` is, moves as it does, and else moves nothing."""
    short, long = (reading_of(after=after, late=late, seal=seal) for _ in range(2))
    for entry in offers:
        before = replace(short)
        if short.take_next(entry.ms, entry.seq):
            assert long.take(entry)
        else:
            assert short == before
            reader, other = Reader(short), Reader(long)
            reader.offer([entry])
            other.offer([entry])
            assert reader.got == other.got
        assert short == long


def test_entries_that_were_seen_are_dropped() -> None:
    """A tail may fetch an entry twice; its reader gets it once."""
    assert taken(reading_of(after=2), [entry_of(1), entry_of(2), entry_of(3), entry_of(3)]) == [3]


def test_a_fresh_reader_starts_at_the_oldest_entry() -> None:
    """Without a cursor, a trimmed journal begins without a gap."""
    assert taken(reading_of(), [entry_of(5), entry_of(6)]) == [5, 6]


def test_a_hole_is_a_gap_with_the_cursor_before_the_entry() -> None:
    """From the resume cursor, the reader goes on with the entry after the hole."""
    reading = reading_of(after=2)
    with pytest.raises(CursorGapError, match="entries 3 to 4 were trimmed away") as gap:
        reading.take(entry_of(5))
    assert reading.seq == 2
    resumed = reading_of()
    resumed.start_after(Cursor.parse(gap.value.resume_cursor))
    assert taken(resumed, [entry_of(5)]) == [5]


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_a_later_entry_with_an_old_seq_is_a_reset(seq: int) -> None:
    """The server lost writes: it counts anew from before the reader's position."""
    with pytest.raises(CursorResetError, match="the server lost writes"):
        reading_of(after=3).take(entry_of(seq, ms=9))


def test_the_first_entry_of_another_life_is_a_reset() -> None:
    """A store that cannot know an entry's life gives it the reader's; run.created has its own."""
    created = {"type": "run.created", "epoch": EPOCHS[1]}
    with pytest.raises(CursorResetError, match="a new life"):
        reading_of().take(JournalEntry(RUN_ID, EPOCHS[0], 1, 1, created))


def test_a_run_of_another_life_is_a_reset() -> None:
    """The stored run shows a new life before any entry does."""
    with pytest.raises(CursorResetError, match="a new life"):
        reading_of().learn(epoch=EPOCHS[1], version=1, seal=None, has_ended=False)


@pytest.mark.parametrize("fields", [{"seal": "1"}, {"type": "run.deleted"}])
def test_the_seal_and_a_deletion_end_a_stream(fields: dict[str, str]) -> None:
    """The entry itself is read; late entries behind it are not."""
    reading = reading_of(after=2)
    last = JournalEntry(RUN_ID, EPOCHS[0], 3, 3, {"type": "log", **fields})
    assert taken(reading, [last, entry_of(4), entry_of(5)]) == [3]
    assert reading.is_over


def test_a_reader_of_late_entries_reads_on_after_the_seal() -> None:
    """It is over once it has read all that is known of a sealed run."""
    reading = reading_of(late=True)
    reading.learn(epoch=EPOCHS[0], version=4, seal=3, has_ended=True)
    assert taken(reading, [entry_of(2), entry_of(3)]) == [2, 3]
    assert not reading.is_over
    assert taken(reading, [entry_of(4)]) == [4]
    assert reading.is_over


def test_a_stream_ends_when_only_late_entries_are_left() -> None:
    """The seal was trimmed away: a fresh reader gets nothing, and its stream ends."""
    reading = reading_of(seal=3)
    assert taken(reading, [entry_of(5), entry_of(6)]) == []
    assert reading.is_over


def test_a_terminal_state_is_learnt_from_its_entry() -> None:
    """A run that has ended but has no seal yet is sealed later; the tail must wait for that."""
    reading = reading_of(after=1)
    reading.take(entry_of(2, type="run.state", state="running"))
    assert not reading.has_ended
    reading.take(entry_of(3, type="run.state", state="failed"))
    assert reading.has_ended
    assert not reading.is_over


def test_a_reading_that_is_ended_from_outside_is_over() -> None:
    """A deleted run whose last entry cannot be had ends its streams, also those of late entries."""
    reading = reading_of(after=3, late=True)
    reading.end()
    assert reading.is_over
