"""What a reader of a local store gets of the entries of a journal: its events, or all entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model.entries import JournalEntry, copied_entry, stored_event
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.rules.reading import Reading

_KINDS: dict[str, RunEventType] = {str(kind): kind for kind in RunEventType}
_NOTHING = dict.fromkeys(RunEvent.model_fields)


def events_of(reading: Reading, entries: Sequence[JournalEntry]) -> Iterable[RunEvent]:
    """The view of a reader of events.

    Almost every entry is an event with known fields, and the next one: its event is made of them
    here. What is unusual in any way is left to ``take`` and ``JournalEntry.event``, which are
    complete and also judge damage, but take twice as long.
    """
    for entry in entries:
        ms, seq = entry.ms, entry.seq
        values: dict[str, Any] = {**_NOTHING, **entry.fields}
        try:
            values["type"] = _KINDS[values["type"]]
            values["timestamp"] = datetime.fromisoformat(values.pop("ts"))
            if values["data"] is not None:
                values["data"] = decode_json(values["data"])
            if values["attempt"] is not None:
                values["attempt"] = int(values["attempt"])
        except (KeyError, ValueError, RecursionError):
            is_usual = False
        else:
            # Other fields, such as the marks of late and last entries, make the dict longer.
            is_usual = len(values) == len(_NOTHING) and entry.epoch == reading.epoch
        if is_usual and reading.take_next(ms, seq):
            values["run_id"] = entry.run_id
            values["id"] = f"{entry.epoch}-{ms}-{seq}"
            values["seq"] = seq
            yield stored_event(values)
        elif reading.take(entry) and (event := entry.event()) is not None:
            yield event


def copies_of(reading: Reading, entries: Sequence[JournalEntry]) -> Iterable[JournalEntry]:
    """The view of a reader of the journal; several readers share the entries."""
    return (copied_entry(entry) for entry in entries if reading.take(entry))
