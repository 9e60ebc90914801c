"""What a reader gets of the raw entries of a journal: its events, or all of its entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from murmur_streams.core.model.entries import JournalEntry, stored_event
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.rules.reading import Reading
from murmur_streams.stores.redis.replies import read_entry

Raw = Any
"""The id of a stream entry, and its names and values in turn; all of them bytes."""

_READERS: dict[bytes, tuple[str, Callable[[bytes], Any]]] = {
    b"type": ("type", {str(kind).encode(): kind for kind in RunEventType}.__getitem__),
    b"agent": ("agent", bytes.decode),
    b"task_id": ("task_id", bytes.decode),
    b"error": ("error", bytes.decode),
    b"ts": ("timestamp", lambda value: datetime.fromisoformat(value.decode())),
    b"attempt": ("attempt", int),
    b"name": ("name", bytes.decode),
    b"data": ("data", from_json),
}
"""By the name of a stored field: the event's field, and how to read its value. What ``from_json``
refuses, ``decode_json`` decides, in the way of the unusual entries."""
_NOTHING = dict.fromkeys(RunEvent.model_fields)


def events_of(reading: Reading, raws: Sequence[Raw]) -> Iterable[RunEvent]:
    """The view of a reader of events.

    Almost every entry is an event with known fields, and the next one. Its event is made of the
    bytes at once. What is unusual in any way goes through a JournalEntry, which is complete and
    also judges damage, but takes three times as long.
    """
    nothing = _NOTHING | {"run_id": reading.run_id}
    epoch = f"{reading.epoch}-"
    for raw in raws:
        entry_id, flat = raw
        values, parts = nothing.copy(), iter(flat)
        try:
            for name, value in zip(parts, parts):  # noqa: B905  # strict is slower; Redis has pairs
                field, read = _READERS[name]
                values[field] = read(value)
            ms, _, number = entry_id.partition(b"-")
            at, seq = int(ms), int(number)
        except (KeyError, ValueError, OverflowError, RecursionError):
            taken = 0
        else:
            has_all = values["type"] is not None and values["timestamp"] is not None
            taken = seq if has_all and reading.take_next(at, seq) else 0
        if taken:
            values["id"] = epoch + entry_id.decode()
            values["seq"] = taken
            yield stored_event(values)
            continue
        entry = read_entry(reading.run_id, reading.epoch, raw)
        if reading.take(entry) and (event := entry.event()) is not None:
            yield event


def entries_of(reading: Reading, raws: Sequence[Raw]) -> Iterable[JournalEntry]:
    """The view of a reader of the journal."""
    for raw in raws:
        entry = read_entry(reading.run_id, reading.epoch, raw)
        if reading.take(entry):
            yield entry
