"""What a reader of a local store gets of the entries of a journal: its events, or all entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model.entries import JournalEntry, stored_event
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.rules.reading import Reading
from murmur_streams.stores.local.engine.database import EntryRow

_KINDS: dict[str, RunEventType] = {str(kind): kind for kind in RunEventType}
_NOTHING = dict.fromkeys(RunEvent.model_fields)


def events_of(reading: Reading, rows: Sequence[EntryRow]) -> Iterable[RunEvent]:
    """The view of a reader of events.

    Almost every entry is an event with known fields, and the next one: its event is made of them
    here. What is unusual in any way is left to ``take`` and ``JournalEntry.event``, which are
    complete and also judge damage, but take twice as long.
    """
    for row in rows:
        epoch, ms, seq, fields = row
        values: dict[str, Any] = {**_NOTHING, **fields}
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
            is_usual = len(values) == len(_NOTHING) and epoch == reading.epoch
        if is_usual and reading.take_next(ms, seq):
            values["run_id"] = reading.run_id
            values["id"] = f"{epoch}-{ms}-{seq}"
            values["seq"] = seq
            yield stored_event(values)
            continue
        entry = JournalEntry(reading.run_id, *row)
        if reading.take(entry) and (event := entry.event()) is not None:
            yield event


def entries_of(reading: Reading, rows: Sequence[EntryRow]) -> Iterable[JournalEntry]:
    """The view of a reader of the journal, who may change the fields of what it gets."""
    for epoch, ms, seq, fields in rows:
        entry = JournalEntry(reading.run_id, epoch, ms, seq, dict(fields))
        if reading.take(entry):
            yield entry
