"""Entries of a run's journal: flat text fields, the same in every store.

A cursor is a reader's position as opaque text, which names the run's life that it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import JsonValue

from murmur_streams.core.json_values import decode_json, encode_json, utc_text
from murmur_streams.core.model import errors
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import PROGRESS_FIELDS, RunProgress

_CURSOR = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})-([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a run's journal: after the entry ``<ms>-<seq>`` of the life ``epoch``."""

    epoch: str
    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.ms}-{self.seq}"

    @property
    def entry_id(self) -> str:
        """The id of the entry it stands after."""
        return f"{self.ms}-{self.seq}"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read a cursor's text; InvalidCursorError when it is not one."""
        match = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise errors.InvalidCursorError(
                f"{ascii(text)[:60]} is not a cursor; pass the .id of an event, or None"
            )
        return cls(match[1], int(match[2]), int(match[3]))

    def check(self, *, epoch: str, version: int, found: bool, oldest: Self | None) -> None:
        """Raise when the journal no longer continues after this cursor.

        Args:
            epoch: the run's epoch.
            version: seq of the run's last entry.
            found: whether the journal has an entry with exactly this id.
            oldest: the position just before the oldest entry; None in an empty journal.

        Raises:
            CursorResetError: another run or life, beyond the end, or a rewritten entry.
            CursorGapError: the entry was trimmed away.
        """
        if self.epoch != epoch:
            raise errors.CursorResetError(
                "the cursor belongs to another run, or to an earlier life of this id; "
                "read again from the start",
                None,
            )
        if found or (oldest is not None and self.seq == oldest.seq and self.ms <= oldest.ms):
            # The entry just before the oldest one may be trimmed: nothing after it is missing.
            return
        if self.seq > version:
            raise errors.CursorResetError(
                f"the cursor stands after entry {self.seq}, but the run has only {version}; "
                "the server lost writes: go on after resume_cursor, or from the start without one",
                None,
            )
        if oldest is not None and self.seq <= oldest.seq:
            raise trimmed_away(self.seq, oldest)
        raise errors.CursorResetError(
            f"entry {self.seq} is missing, or is not the one that the cursor saw (the server lost "
            "writes); go on after resume_cursor, or from the start without one",
            None,
        )


def trimmed_away(seen: int, resume: Cursor) -> errors.CursorGapError:
    """The error of a reader that has seen entry ``seen`` and can only resume after ``resume``."""
    return errors.CursorGapError(
        f"entries {seen + 1} to {resume.seq} were trimmed away", str(resume)
    )


class EntryType(StrEnum):
    """The lifecycle entries; every other entry is a RunEvent, typed by its RunEventType."""

    CREATED = "run.created"
    STATE = "run.state"
    PROGRESS = "run.progress"
    RESULT = "run.result"
    SEALED = "run.sealed"
    SNAPSHOT = "run.snapshot"
    CANCEL_REQUESTED = "run.cancel_requested"
    CANCEL_DELIVERED = "run.cancel_delivered"
    SILENT = "run.silent"
    CHECKPOINT = "run.checkpoint"
    DELETED = "run.deleted"


Fields = Mapping[str, str]

_EVENT_TYPES = frozenset(str(event_type) for event_type in RunEventType)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry of a run's journal.

    ``seq`` is dense per run and starts at 1; ``ms`` (Unix milliseconds) never decreases.
    """

    run_id: str
    epoch: str
    ms: int
    seq: int
    fields: Fields
    """All fields as text, ``type`` included."""

    @property
    def type(self) -> str:
        """An EntryType or a RunEventType, as text; "" for an entry without a type."""
        return self.fields.get("type", "")

    @property
    def id(self) -> str:
        """The stream entry's id, ``<ms>-<seq>``."""
        return f"{self.ms}-{self.seq}"

    @property
    def cursor(self) -> str:
        """Resume after this entry with this text."""
        return str(Cursor(self.epoch, self.ms, self.seq))

    @property
    def is_late(self) -> bool:
        """True for an entry that came after the seal: it is journalled, and not streamed."""
        return "late" in self.fields

    @property
    def is_seal(self) -> bool:
        """True for the entry at which the run's stream ends."""
        # In a snapshot, the field of this name is the run's, copied from an earlier seal.
        return "seal" in self.fields and self.type != EntryType.SNAPSHOT

    @property
    def attempt(self) -> int | None:
        """The number of the execution that wrote it; None outside a worker."""
        attempt = self.fields.get("attempt")
        return int(attempt) if attempt else None

    def event(self) -> RunEvent | None:
        """The RunEvent that subscribers see for this entry; None for lifecycle and late ones.

        Raises:
            RunDamagedError: its fields are not as this package writes them.
        """
        if self.type not in _EVENT_TYPES or self.is_late:
            return None
        try:
            return self._event()
        except (ValueError, OverflowError, RecursionError) as error:
            what = f"the event of entry {self.seq} cannot be read"
            raise errors.RunDamagedError(self.run_id, what, can_rebuild=False) from error

    def _event(self) -> RunEvent:
        fields = self.fields
        moment = fields.get("ts")
        data = fields.get("data")
        return stored_event(
            {
                "type": RunEventType(fields["type"]),
                "run_id": self.run_id,
                "agent": fields.get("agent"),
                "task_id": fields.get("task_id"),
                "error": fields.get("error"),
                "timestamp": datetime.fromisoformat(moment)
                if moment
                else datetime.fromtimestamp(self.ms / 1000, UTC),
                "id": self.cursor,
                "seq": self.seq,
                "attempt": self.attempt,
                "name": fields.get("name"),
                "data": None if data is None else decode_json(data),
            }
        )


_ALL_FIELDS = set(RunEvent.model_fields)
_new = RunEvent.__new__
_set: Callable[[RunEvent, str, Any], None] = object.__setattr__


def stored_event(values: dict[str, Any]) -> RunEvent:
    """Make an event of all its fields, in their order, as a store has them.

    They were validated when the event was written. To validate them again would slow every reader,
    and so would ``model_construct``, which looks at each field. A test holds that the event is the
    same as a validated one.
    """
    event = _new(RunEvent)
    _set(event, "__dict__", values)
    _set(event, "__pydantic_fields_set__", _ALL_FIELDS.copy())
    _set(event, "__pydantic_extra__", None)
    _set(event, "__pydantic_private__", None)
    return event


def copied_entry(entry: JournalEntry) -> JournalEntry:
    """An entry for one reader alone: its fields are a dict, which the reader could change."""
    return JournalEntry(entry.run_id, entry.epoch, entry.ms, entry.seq, dict(entry.fields))


def event_fields(event: RunEvent, run_id: str, max_bytes: int) -> dict[str, str]:
    """Encode an event as the fields of its entry.

    Args:
        event: the event; its id, seq and attempt are left out, since the store sets them.
        run_id: the run it is written to.
        max_bytes: the largest sum of the fields' UTF-8 bytes.

    Raises:
        InvalidEventError: another run's id, a naive timestamp, or data that is not JSON.
        PayloadTooLargeError: over ``max_bytes``.
    """
    if event.run_id != run_id:
        raise errors.InvalidEventError(
            f"the event's run_id is {event.run_id!r}, but it was written to run {run_id!r}"
        )
    fields = {"type": str(event.type)}
    if event.agent is not None:
        fields["agent"] = event.agent
    if event.task_id is not None:
        fields["task_id"] = event.task_id
    if event.error is not None:
        fields["error"] = event.error
    if event.name is not None:
        fields["name"] = event.name
    if event.data is not None:
        fields["data"] = encode_json(event.data, "the event's data", errors.InvalidEventError)
    fields["ts"] = _moment(event.timestamp)
    return _checked_size(fields, max_bytes)


def new_event_fields(
    event_type: RunEventType, agent: str, name: str | None, data: JsonValue, max_bytes: int
) -> dict[str, str]:
    """The fields of an event that happens now; the same as those of its RunEvent, in less time.

    The errors are those of ``event_fields``.
    """
    fields = {"type": str(event_type), "agent": agent}
    if name is not None:
        fields["name"] = name
    if data is not None:
        fields["data"] = encode_json(data, "the event's data", errors.InvalidEventError)
    fields["ts"] = utc_text(datetime.now(UTC))
    return _checked_size(fields, max_bytes)


def _checked_size(fields: dict[str, str], max_bytes: int) -> dict[str, str]:
    try:
        size = len("".join(fields.values()).encode())
    except UnicodeEncodeError:
        raise _lone_surrogate(fields) from None
    if size > max_bytes:
        raise errors.PayloadTooLargeError("the event", size, max_bytes, "max_event_bytes")
    return fields


def _moment(timestamp: datetime) -> str:
    return utc_text(timestamp if timestamp.tzinfo is UTC else _in_utc(timestamp))


def _in_utc(timestamp: datetime) -> datetime:
    if timestamp.utcoffset() is None:
        raise errors.InvalidEventError(
            "the event's timestamp has no time zone; use datetime.now(tz=UTC), or leave it out"
        )
    try:
        return timestamp.astimezone(UTC)
    except OverflowError:
        raise errors.InvalidEventError(
            f"the event's timestamp {timestamp} is outside the years 1 to 9999 in UTC"
        ) from None


def _lone_surrogate(fields: Fields) -> errors.InvalidEventError:
    found = next(
        name for name, text in fields.items() if text != text.encode(errors="replace").decode()
    )
    return errors.InvalidEventError(
        f"the event's {found} holds a lone surrogate, which is not valid Unicode text"
    )


def progress_fields(progress: RunProgress) -> dict[str, str]:
    """Encode progress as the fields of a ``run.progress`` entry."""
    return {
        "type": str(EntryType.PROGRESS),
        **{name: str(getattr(progress, name)) for name in PROGRESS_FIELDS},
    }
