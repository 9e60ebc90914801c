"""The fields of an event's entry, from a RunEvent and from the values of an event that is new."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.core.json_values import utc_text
from murmur_streams.core.model.entries import event_fields, new_event_fields
from murmur_streams.core.model.errors import InvalidEventError, PayloadTooLargeError
from murmur_streams.core.model.events import RunEvent, RunEventType

PLENTY = 10_000
offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def an_event(**members: Any) -> RunEvent:
    return RunEvent(type=RunEventType.CUSTOM, run_id="r", **members)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_in_utc_has_one_text(moment: datetime) -> None:
    """The text is that of isoformat, in every year, with and without microseconds."""
    assert utc_text(moment) == moment.isoformat()
    assert utc_text(moment.replace(microsecond=0)) == moment.replace(microsecond=0).isoformat()


def test_a_time_has_the_same_text_without_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without orjson the text is the same."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    text = utc_text(moment)
    monkeypatch.setattr("murmur_streams.core.json_values._dumps", None)
    assert text == utc_text(moment) == "2026-01-02T03:04:05.000006+00:00"


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)), offsets)  # noqa: DTZ001
def test_a_time_of_any_zone_is_written_in_utc(naive: datetime, offset: timedelta) -> None:
    """The same moment, in UTC."""
    moment = naive.replace(tzinfo=timezone(offset))
    fields = event_fields(an_event(timestamp=moment), "r", PLENTY)
    assert fields["ts"] == moment.astimezone(UTC).isoformat()


def test_a_time_outside_the_calendar_is_refused() -> None:
    """A moment that is before the year 1 in UTC raises InvalidEventError."""
    moment = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    with pytest.raises(InvalidEventError, match="outside the years 1 to 9999"):
        event_fields(an_event(timestamp=moment), "r", PLENTY)


@given(
    st.sampled_from(RunEventType),
    texts,
    st.none() | texts,
    st.none() | st.booleans() | st.lists(texts) | st.dictionaries(texts, st.integers()),
)
def test_a_new_event_has_the_fields_of_its_run_event(
    event_type: RunEventType, agent: str, name: str | None, data: Any
) -> None:
    """They are the same, in the same order; the time is now."""
    event = RunEvent(type=event_type, run_id="r", agent=agent, name=name, data=data)
    expected = event_fields(event, "r", PLENTY)
    before = datetime.now(UTC)
    fields = new_event_fields(event_type, agent, name, data, PLENTY)
    assert before <= datetime.fromisoformat(fields["ts"]) <= datetime.now(UTC)
    assert list((fields | {"ts": expected["ts"]}).items()) == list(expected.items())
    assert {type(text) for text in fields.values()} == {str}


@pytest.mark.parametrize("name", ["a", "é", "\U0001f600"])
def test_the_limit_counts_the_bytes_of_all_fields(name: str) -> None:
    """An event of exactly the limit is encoded; one byte more raises PayloadTooLargeError."""
    event = an_event(agent="b", name=name, data=[name], timestamp=datetime(2026, 1, 1, tzinfo=UTC))
    size = sum(len(text.encode()) for text in event_fields(event, "r", PLENTY).values())
    assert event_fields(event, "r", size)
    with pytest.raises(PayloadTooLargeError, match=f"{size}"):
        event_fields(event, "r", size - 1)


@pytest.mark.parametrize("member", ["agent", "task_id", "error", "name"])
def test_a_lone_surrogate_is_named_by_its_field(member: str) -> None:
    """The error names the field, also when the next field would make the surrogate a pair."""
    members: dict[str, Any] = {"agent": "a", "task_id": "b", "error": "c", "name": "\udc00"}
    event = an_event().model_copy(update={**members, member: "\ud800"})
    first = min(member, "name", key=list(members).index)
    with pytest.raises(InvalidEventError, match=f"event's {first} holds a lone surrogate"):
        event_fields(event, "r", PLENTY)
