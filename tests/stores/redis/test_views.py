"""What a reader gets of raw entries: the same as by the longer way, and events like all others."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from murmur_streams.core.model.entries import Cursor, event_fields
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.rules.reading import Reading
from murmur_streams.stores.redis.live.views import Raw, events_of
from murmur_streams.stores.redis.replies import read_entry
from tests.stores.reading_twice import outcome

RUN_ID, EPOCH = "run", "0badcafe"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.builds(
    RunEvent,
    type=st.sampled_from(RunEventType),
    run_id=st.just(RUN_ID),
    agent=st.none() | TEXTS,
    task_id=st.none() | TEXTS,
    error=st.none() | TEXTS,
    name=st.none() | TEXTS,
    timestamp=st.datetimes(
        datetime(1970, 1, 2),  # noqa: DTZ001  # the zone comes from the next line
        timezones=st.integers(-12, 12).map(lambda hours: timezone(timedelta(hours=hours))),
    ).filter(lambda moment: moment.year < 9_000),
    data=VALUES,
)
KINDS = st.sampled_from(["log", "agent_completed", "run.created", "run.state", "unknown", ""])
NAMES = st.sampled_from(["type", "ts", "data", "attempt", "agent", "seal", "late", "epoch", "else"])
SOUND = {
    "type": KINDS,
    "ts": st.just("2026-11-27T10:00:00.5+00:00"),
    "data": st.sampled_from(["1", "{}", '"a"', '"\ud800"', "18446744073709551616", "NaN"]),
    "attempt": st.sampled_from(["1", ""]),
    "epoch": st.sampled_from([EPOCH, "00000000"]),
}
DAMAGED = st.sampled_from([b"", b"\xff", b"{", b"1\x00", b" 1 ", b"[" * 10_000, b'"\xff"'])


def raw_of(seq: int, fields: dict[str, str], ms: int = 0) -> Raw:
    """An entry as the server sends it."""
    flat = [part.encode(errors="surrogatepass") for pair in fields.items() for part in pair]
    return [f"{ms or 1_000 + seq}-{seq}".encode(), flat]


@st.composite
def raws(draw: st.DrawFn) -> Raw:
    """An entry of any kind, which another program may have written, too."""
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    fields = {name: draw(SOUND.get(name, st.just("1"))) for name in names}
    if draw(st.booleans()):
        fields = {"type": "log", "ts": "2026-11-27T10:00:00+00:00"} | fields
    raw = raw_of(draw(st.integers(1, 6)), fields, draw(st.sampled_from([0, 0, 0, 1_003, 1_009])))
    if fields and draw(st.integers(0, 4)) == 0:
        raw[1][2 * draw(st.integers(0, len(fields) - 1)) + 1] = draw(DAMAGED)
    return raw


def reading_of(after: int, seal: int | None) -> Reading:
    reading = Reading(RUN_ID)
    if after:
        reading.start_after(Cursor(EPOCH, 1_000 + after, after))
    reading.learn(epoch=EPOCH, version=after, seal=seal, has_ended=seal is not None)
    return reading


def by_the_longer_way(reading: Reading, raw: Raw) -> list[RunEvent]:
    """The rules of reading and a JournalEntry, for every entry."""
    entry = read_entry(reading.run_id, reading.epoch, raw)
    event = entry.event() if reading.take(entry) else None
    return [] if event is None else [event]


@given(st.lists(raws(), max_size=6), st.integers(0, 3), st.none() | st.integers(1, 6))
def test_any_entries_are_read_as_by_the_longer_way(
    offers: list[Raw], after: int, seal: int | None
) -> None:
    """The same events, the same errors, and the same position, for entries of every kind."""
    short, long = reading_of(after, seal), reading_of(after, seal)
    for raw in offers:
        seen = outcome(lambda raw=raw: list(events_of(short, [raw])))
        assert seen == outcome(lambda raw=raw: by_the_longer_way(long, raw))
        assert short == long


def read_back(event: RunEvent, attempt: int | None) -> tuple[RunEvent, RunEvent]:
    """The event as a reader gets it, and a validated one with the same values."""
    fields = event_fields(event, RUN_ID, 100_000)
    fields |= {} if attempt is None else {"attempt": str(attempt)}
    (read,) = events_of(reading_of(0, None), [raw_of(1, fields)])
    moment = event.timestamp.astimezone(UTC).replace(fold=0)
    stored = {"id": f"{EPOCH}-1001-1", "seq": 1, "attempt": attempt, "timestamp": moment}
    values = {name: getattr(event, name) for name in RunEvent.model_fields} | stored
    return read, RunEvent.model_validate(values)


@given(EVENTS, st.none() | st.integers(1, 9))
def test_an_event_that_was_read_is_like_a_validated_one(
    event: RunEvent, attempt: int | None
) -> None:
    """Fields, equality, text, JSON, pickles, copies and the hash: nothing tells them apart."""
    read, validated = read_back(event, attempt)
    for each in (read, pickle.loads(pickle.dumps(read)), copy.copy(read), copy.deepcopy(read)):  # noqa: S301  # our own bytes
        assert each == validated
        assert vars(each) == vars(validated)
        assert list(vars(each)) == list(vars(validated))
        assert each.model_fields_set == validated.model_fields_set
        assert each.model_extra is validated.model_extra is None
        assert repr(each) == repr(validated)
        assert each.model_dump() == validated.model_dump()
        assert each.model_dump_json(exclude_unset=True) == validated.model_dump_json(
            exclude_unset=True
        )
        assert hash_of(each) == hash_of(validated)
    assert RunEvent.model_validate(read.model_dump()) == validated


def hash_of(event: RunEvent) -> Any:
    try:
        return hash(event)
    except TypeError as error:
        return str(error)


def test_an_event_that_was_read_stays_frozen_and_alone() -> None:
    """It cannot be changed; a changed copy leaves it and other events as they were."""
    event = RunEvent(type=RunEventType.LOG, run_id=RUN_ID, data=[1])
    read, other = (read_back(event, None)[0] for _ in range(2))
    with pytest.raises(ValidationError, match="frozen"):
        read.name = "another"  # pyright: ignore[reportAttributeAccessIssue]  # it is what must fail
    changed = read.model_copy(update={"name": "another"})
    assert (changed.name, read.name, type(changed)) == ("another", None, RunEvent)
    read.model_fields_set.clear()
    assert other.model_fields_set == set(RunEvent.model_fields)
