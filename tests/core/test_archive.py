"""Runs as lines: what was written is read back, and nothing else is taken for a run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.core.archive.lines import (
    HEADER,
    ArchiveDecoder,
    CutOffError,
    archives,
    digest_of,
    header,
    lines,
)
from murmur_streams.core.archive.run_archive import (
    PAGE_BYTES,
    PAGE_ENTRIES,
    RunArchive,
    check_same_life,
    pages,
    restorable,
    verify,
)
from murmur_streams.core.model.commands import Append, Finish, SetState
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import InvalidArchiveError, InvalidInputError, RunExistsError
from murmur_streams.core.model.states import RunState
from tests.core.scenario import CREATED, EPOCH, NOTHING, RUN_ID

EVENT = {"type": "log", "ts": "2026-01-01T00:00:00+00:00", "name": "é"}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ENTRIES = st.lists(
    st.tuples(
        st.integers(0, 10**12), st.integers(0, 10**9), st.dictionaries(TEXT, TEXT, max_size=4)
    ),
    max_size=8,
)
PAYLOAD = st.none() | TEXT


@st.composite
def any_archives(draw: Any) -> RunArchive:
    """Archives with any content: the encoding does not check whether it makes sense."""
    run_id, epoch = draw(TEXT), draw(TEXT)
    entries = tuple(JournalEntry(run_id, epoch, *row) for row in draw(ENTRIES))
    return RunArchive(run_id, epoch, entries, draw(PAYLOAD), draw(PAYLOAD), draw(PAYLOAD))


def run_archive() -> RunArchive:
    """A sound one: created, running, an event, completed."""
    running = NOTHING.when(CREATED).when(SetState(RunState.RUNNING)).when(Append((EVENT,)))
    return RunArchive(RUN_ID, EPOCH, running.when(Finish(RunState.COMPLETED)).journal)


def encoded(*each: RunArchive) -> list[bytes]:
    return [text.encode() for text in (HEADER, *(line for one in each for line in lines(one)))]


def decoded(source: list[bytes]) -> list[RunArchive]:
    return list(archives(source))


@given(st.lists(any_archives(), max_size=3))
def test_what_was_written_is_read_back(given_archives: list[RunArchive]) -> None:
    """Encoding any archives and decoding the lines gives the same archives."""
    assert decoded(encoded(*given_archives)) == given_archives


@given(any_archives())
def test_every_line_is_a_json_object_of_its_own(archive: RunArchive) -> None:
    """Each line ends with its only newline and holds one JSON object."""
    for line in encoded(archive):
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert isinstance(json.loads(line), dict)


@given(st.data())
def test_no_line_can_be_lost_doubled_cut_or_changed(data: Any) -> None:
    """Any such damage of one line is an error, or only concerns parts that are ignored."""
    archive = run_archive()
    source = encoded(archive)
    index = data.draw(st.integers(0, len(source) - 1))
    how = data.draw(st.sampled_from(["lost", "doubled", "cut", "changed"]))
    if how == "lost":
        del source[index]
    elif how == "doubled":
        source.insert(index, source[index])
    elif how == "cut":
        source[index] = source[index][: data.draw(st.integers(0, len(source[index]) - 2))]
    else:
        at = data.draw(st.integers(0, len(source[index]) - 2))
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != source[index][at]))
        line = bytearray(source[index])
        line[at] = other
        source[index] = bytes(line)
    try:
        found = decoded(source)
    except InvalidArchiveError:
        return
    # Only parts that are ignored may differ, and none of them belongs to a run.
    assert found == [archive]


@given(st.lists(st.binary(max_size=30), max_size=4))
def test_whatever_comes_is_an_error_with_the_line(source: list[bytes]) -> None:
    """Any bytes that are not an archive give an InvalidArchiveError that names the line."""
    with pytest.raises(InvalidArchiveError, match="line"):
        decoded([line + b"\n" for line in source])


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_lines_that_end_too_early_are_cut_off(count: int) -> None:
    """They are a cut-off file, which is another error than a damaged one."""
    source = encoded(run_archive(), run_archive())
    with pytest.raises(CutOffError, match=f"after line {count} the rest of run 'run' is missing"):
        decoded(source[:count])
    with pytest.raises(CutOffError, match=f"line {count + 1} is cut off"):
        decoded([*source[:count], source[count][:-2]])


@pytest.mark.parametrize("count", [1, 4, 7])
def test_the_last_newline_may_be_missing(count: int) -> None:
    """A file without a newline at its end is read like one with it."""
    source = encoded(run_archive(), run_archive())
    without = decoded([*source[: count - 1], source[count - 1][:-1]])
    assert without == decoded(source[:count])


def test_what_was_asked_for_is_read_by_who_wants_to_know() -> None:
    """The decoder has the filters of the export, which the header holds; None without them."""
    decoder = ArchiveDecoder()
    decoder.feed(header({"state": "failed"}).encode())
    assert decoder.of == {"state": "failed"}
    plain = ArchiveDecoder()
    plain.feed(HEADER.encode())
    assert plain.of is None


def test_a_start_without_an_end_is_a_header_or_foreign() -> None:
    """A cut header is a cut file; a first line of anything else is not an export."""
    whole = header({"state": None}).encode()
    for end in range(len(whole) - 1):
        with pytest.raises(CutOffError):
            decoded([whole[:end]])
    for foreign in (b"x", b"\x1f\x8b\x08", b'{"murmur":'):
        with pytest.raises(InvalidArchiveError, match="not an export of runs"):
            decoded([foreign])


def test_a_whole_run_before_the_damage_is_given() -> None:
    """The decoder returns each complete run before it raises at a damaged line."""
    decoder = ArchiveDecoder()
    source = encoded(run_archive())
    assert [decoder.feed(line) for line in source] == [None] * (len(source) - 1) + [run_archive()]
    with pytest.raises(InvalidArchiveError, match="line 5 is wrong: it is not JSON"):
        decoder.feed(b"{\n")


def test_members_that_are_not_known_are_ignored() -> None:
    """A file of a newer version may have further members in its lines."""
    first, second, *rest = encoded(run_archive())
    header = json.dumps({**json.loads(first), "later": 1}).encode() + b"\n"
    assert decoded([header, second, *rest]) == [run_archive()]
    *begin, last = rest
    end = json.dumps({**json.loads(last), "later": {"a": 1}}).encode() + b"\n"
    assert decoded([header, second, *begin, end]) == [run_archive()]


def test_another_format_is_an_error() -> None:
    """The error names the format and the one that this version reads."""
    later = HEADER.replace("1", "2").encode()
    with pytest.raises(InvalidArchiveError, match=r"format is 2, .* reads 1: upgrade"):
        decoded([later])


@pytest.mark.parametrize("line", [b"hello\n", b"[]\n", b'{"a":1}\n', b"\x80\n", b"\n"])
def test_a_foreign_file_fails_at_its_first_line(line: bytes) -> None:
    """A file that is not an export fails at line 1."""
    with pytest.raises(
        InvalidArchiveError, match=r"line 1 is wrong: this is not an export of runs"
    ):
        decoded([line])


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"other":1}', "neither a run"),
        ('{"entries":[]}', "belong(s)? to no run"),
        ('{"end":"r"}', "belong(s)? to no run"),
        ('{"run":1,"epoch":"e"}', "run is missing"),
        ('{"run":"r"}', "epoch is missing"),
        ('{"run":"r","epoch":"e","input":{}}', "JSON as a text"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_line(line: str, what: str) -> None:
    """The error names the line and its fault."""
    with pytest.raises(InvalidArchiveError, match=f"line 2 is wrong: .*{what}"):
        decoded([HEADER.encode(), line.encode() + b"\n"])


@pytest.mark.parametrize(
    "row", ["1", "[]", '[1,"2",{}]', '[1,2,{"a":1}]', "[1,2,[]]", "[1,-2,{}]", "[true,1,{}]"]
)
def test_an_entry_of_another_shape_is_an_error(row: str) -> None:
    """An entry that is not [ms, seq, {fields}] is refused."""
    begin = b'{"run":"r","epoch":"e"}\n'
    with pytest.raises(InvalidArchiveError, match="line 3 is wrong: an entry is not"):
        decoded([HEADER.encode(), begin, f'{{"entries":[{row}]}}\n'.encode()])


def test_a_journal_is_cut_into_pages_by_number_and_by_size() -> None:
    """A page has at most so many entries and bytes; one larger entry is a page of its own."""
    small = [JournalEntry("r", "e", 1, seq, {"a": "b"}) for seq in range(1, 1_202)]
    assert [len(page) for page in pages(small)] == [PAGE_ENTRIES, PAGE_ENTRIES, 201]
    large = [replace(entry, fields={"a": "x" * (PAGE_BYTES // 3)}) for entry in small[:7]]
    assert [len(page) for page in pages(large)] == [2, 2, 2, 1]
    huge = [replace(entry, fields={"a": "x" * 2 * PAGE_BYTES}) for entry in small[:2]]
    assert [len(page) for page in pages(huge)] == [1, 1]
    assert list(pages([])) == []


def test_only_alike_archives_have_one_digest() -> None:
    """Equal archives have the same digest, and a shorter journal has another one."""
    archive = run_archive()
    assert digest_of(archive) == digest_of(run_archive())
    assert digest_of(replace(archive, entries=archive.entries[:-1])) != digest_of(archive)


def test_a_sound_archive_becomes_the_fold_of_its_journal() -> None:
    """The run that is restored has the state, version and epoch of the journal."""
    run = restorable(run_archive())
    assert (run.state, run.version, run.epoch) == (RunState.COMPLETED, 4, EPOCH)


def changed(at: int, **fields: str) -> RunArchive:
    archive = run_archive()
    entries = list(archive.entries)
    entries[at] = replace(entries[at], fields={**entries[at].fields, **fields})
    return replace(archive, entries=tuple(entries))


WRONG: dict[str, tuple[RunArchive, str]] = {
    "no journal": (replace(run_archive(), entries=()), "the journal is missing"),
    "a bad id": (replace(run_archive(), run_id="a b"), "run_id"),
    "a bad epoch": (replace(run_archive(), epoch="{x}"), "not a cursor"),
    "a bad target": (changed(0, target="a:{b}"), "target"),
    "a bad tenant": (changed(0, tenant="a/b"), "tenant"),
    "another epoch inside": (changed(0, epoch="ffffffff"), "epoch: the archive says"),
    "a number beyond all": (changed(0, deadline="9" * 30), "deadline_ms: 9+ is out of range"),
    "a moment beyond all": (changed(0, due="9" * 14), "due_ms: 9+ is out of range"),
    "no number": (changed(0, priority="x"), "cannot be folded"),
    "no state": (changed(1, state="x"), "cannot be folded"),
    "a surrogate": (changed(2, name="\ud800"), "not valid Unicode"),
    "an event without a date": (changed(2, ts="today"), "event cannot be read"),
    "an event without JSON": (changed(2, data="{"), "event cannot be read"),
    "too many fields": (changed(2, **{f"f{n}": "" for n in range(1_000)}), "must have 1 to 1000"),
    "created twice": (changed(2, type="run.created"), "in the middle"),
    "deleted": (changed(3, type="run.deleted"), "was deleted"),
    "an input of its own": (replace(run_archive(), input_json="1"), "input: stored, but"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_store_could_keep_is_refused_with_the_reason(name: str) -> None:
    """A damaged archive is not restored, and the error names the first fault."""
    archive, what = WRONG[name]
    assert not verify(archive).ok
    with pytest.raises(InvalidInputError, match=f"is damaged, and nothing of it was .*{what}"):
        restorable(archive)


def test_the_error_quotes_only_the_first_problems() -> None:
    """The text has the first five problems and the number of the others."""
    journal = NOTHING.when(CREATED).when(Append((EVENT,) * 40)).journal
    with pytest.raises(InvalidArchiveError, match=r"seq is not dense; and 15 more$"):
        restorable(RunArchive(RUN_ID, EPOCH, journal[::2]))


def same_life(**other: Any) -> None:
    found: dict[str, Any] = {"epoch": EPOCH, "oldest_seq": 1, "has_last": True, **other}
    check_same_life(run_archive(), **found)


def test_a_life_is_the_same_by_its_epoch_and_its_last_entry() -> None:
    """A restore onto an existing id is a repetition only for the same life."""
    same_life()
    same_life(oldest_seq=5, has_last=False)
    for other in ({"epoch": "ffffffff"}, {"has_last": False}, {"oldest_seq": 4, "has_last": False}):
        with pytest.raises(RunExistsError, match="delete it first"):
            same_life(**other)
