"""What a reader gets of the entries of a local store is what the rules and the entry say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.core.model.entries import JournalEntry, event_fields
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.rules.reading import Reading
from murmur_streams.stores.local.engine.database import EntryRow
from murmur_streams.stores.local.engine.views import events_of
from tests.stores.reading_twice import outcome

RUN_ID, EPOCH, OTHER_EPOCH = "run", "0badcafe", "00000000"
KINDS = ["log", "agent_completed", "run.created", "run.state", "unknown", ""]
VALUES: dict[str, list[str]] = {
    "type": KINDS,
    "ts": ["2026-11-27T10:00:00.5+00:00", "yesterday", ""],
    "data": ["1", "{}", '"\ud800"', "18446744073709551616", "NaN", "{", "[" * 10_000],
    "attempt": ["1", "", "x"],
    "epoch": [EPOCH, OTHER_EPOCH],
    "id": ["1-1"],
    "run_id": ["another"],
    "timestamp": ["2026-11-27T10:00:00+00:00"],
    **{name: ["1"] for name in ("agent", "name", "seal", "late", "else")},
}


@st.composite
def rows(draw: st.DrawFn) -> EntryRow:
    """An entry of any kind, as another release or a hand may have written it."""
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=4, unique=True))
    fields = {name: draw(st.sampled_from(VALUES[name])) for name in names}
    if draw(st.booleans()):
        fields = {"type": "log", "ts": "2026-11-27T10:00:00+00:00"} | fields
    seq, epoch = draw(st.integers(1, 6)), draw(st.sampled_from([EPOCH] * 4 + [OTHER_EPOCH]))
    ms = draw(st.sampled_from([1_000 + seq] * 3 + [1_003, 1_009]))
    return epoch, ms, seq, fields


def reading_of(after: int, seal: int | None) -> Reading:
    reading = Reading(RUN_ID, epoch=EPOCH, ms=1_000 + after if after else 0, seq=after)
    reading.learn(epoch=EPOCH, version=after, seal=seal, has_ended=seal is not None)
    return reading


def by_the_longer_way(reading: Reading, row: EntryRow) -> list[RunEvent]:
    entry = JournalEntry(RUN_ID, *row)
    event = entry.event() if reading.take(entry) else None
    return [] if event is None else [event]


@given(st.lists(rows(), max_size=6), st.integers(0, 3), st.none() | st.integers(1, 6))
def test_any_entries_are_read_as_by_the_longer_way(
    offers: list[EntryRow], after: int, seal: int | None
) -> None:
    """The same events, the same errors, and the same position, for entries of every kind."""
    short, long = reading_of(after, seal), reading_of(after, seal)
    for row in offers:
        seen = outcome(lambda row=row: list(events_of(short, [row])))
        assert seen == outcome(lambda row=row: by_the_longer_way(long, row))
        assert short == long


def test_an_event_has_all_of_its_fields_in_their_order() -> None:
    """The one that is made of the fields at once cannot be told from a validated one."""
    event = RunEvent(
        type=RunEventType.LOG, run_id=RUN_ID, agent="a", task_id="t", error="e", name="n", data=[1]
    )
    fields = event_fields(event, RUN_ID, 100_000) | {"attempt": "3"}
    (read,) = events_of(reading_of(0, None), [(EPOCH, 1_001, 1, fields)])
    written = {"id": f"{EPOCH}-1001-1", "seq": 1, "attempt": 3}
    validated = RunEvent.model_validate(event.model_dump() | written)
    assert read == validated
    assert list(vars(read)) == list(vars(validated))
    assert type(read.type) is RunEventType
