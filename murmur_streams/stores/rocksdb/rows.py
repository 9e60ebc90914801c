"""What the values of the store hold: JSON, with a few short fields in front of it."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic_core import from_json, to_json

from murmur_streams.core.entries import JournalEntry
from murmur_streams.core.errors import RunDamagedError, StoreDamagedError
from murmur_streams.core.feed import Place
from murmur_streams.core.run import run_from_fields, run_to_fields
from murmur_streams.stores.disk.database import FeedRow, QueuePlace, Stored

FEED_INLINE_BYTES = 1024

_TIMES = ("expire_at_ms", "live_until_ms", "overdue_ms", "lease_until_ms")


def json_bytes(value: object) -> bytes:
    """Encode; a lone surrogate, which UTF-8 cannot say, comes back as it was."""
    try:
        return to_json(value)
    except ValueError:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="surrogatepass")


def read_json(row: bytes) -> Any:
    """Decode what ``json_bytes`` made; ValueError for what is no JSON."""
    try:
        return from_json(row)
    except ValueError:
        return json.loads(text(row))


def version_row(stored: Stored) -> bytes:
    """What every write to a run changes."""
    return b"%d %d" % (stored.run.version, stored.run.last_ms)


def run_row(stored: Stored) -> bytes:
    """All but that."""
    fields = run_to_fields(stored.run)
    del fields["version"], fields["last_ms"]
    value: dict[str, object] = {"run": fields}
    for name in _TIMES:
        moment: int | None = getattr(stored, name)
        if moment is not None:
            value[name] = moment
    if stored.queue is not None:
        value["queue"] = [int(stored.queue.is_ready), stored.queue.score]
    return json_bytes(value)


def read_run(run_id: str, row: bytes, version: bytes | None) -> Stored:
    """Read a run from its two rows.

    Raises:
        RunDamagedError: they are none.
    """
    try:
        value = cast("dict[str, Any]", read_json(row))
        fields = cast("dict[str, str]", value["run"])
        fields["version"], fields["last_ms"] = (version or b" ").decode().split(" ")
        queue = value.get("queue")
        times: dict[str, int | None] = {name: value.get(name) for name in _TIMES}
        place = None if queue is None else QueuePlace(bool(queue[0]), queue[1])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise RunDamagedError(run_id, f"its rows are {ascii(str(error))[:60]}") from error
    return Stored(run_from_fields(run_id, fields), queue=place, **times)


def journal_row(entry: JournalEntry, fields: bytes) -> bytes:
    """An entry of a journal; ``fields`` are its fields as JSON."""
    return f"{entry.ms}\n{entry.epoch}\n".encode() + fields


def read_entry(run_id: str, seq: int, row: bytes) -> JournalEntry:
    """Read an entry of a run's journal.

    Raises:
        RunDamagedError: it is none.
    """
    try:
        ms, epoch, fields = row.split(b"\n", 2)
        return JournalEntry(run_id, epoch.decode(), int(ms), seq, read_json(fields))
    except ValueError as error:
        raise RunDamagedError(run_id, f"entry {seq} of its journal is no entry") from error


def feed_row(place_ms: int, target: str, entry: JournalEntry, fields: bytes) -> bytes:
    """An entry of the feed; ``fields`` are its fields as JSON, left out when they are big."""
    is_big = len(fields) > FEED_INLINE_BYTES and _size(entry) > FEED_INLINE_BYTES
    if is_big:
        fields = json_bytes({"type": entry.type})
    ms = "" if entry.ms == place_ms else entry.ms
    mark = "+" if is_big else ""
    head = f"{place_ms}\n{ms}\n{entry.seq}\n{entry.epoch}\n{target}\n{entry.run_id}\n{mark}\n"
    return head.encode() + fields


def read_feed_row(n: int, row: bytes) -> tuple[FeedRow, bool]:
    """Read an entry of the feed, and whether its fields must be looked up in the journal.

    Raises:
        StoreDamagedError: it is none.
    """
    try:
        *head, fields = row.split(b"\n", 7)
        place_ms, ms, seq, epoch, target, run_id, mark = (each.decode() for each in head)
        entry = JournalEntry(run_id, epoch, int(ms or place_ms), int(seq), read_json(fields))
        return FeedRow((int(place_ms), n), target, entry), mark == "+"
    except ValueError as error:
        raise StoreDamagedError(f"entry {n} of the feed is no entry") from error


def feed_place_ms(row: bytes) -> int:
    """The ms of the place of an entry of the feed, without reading the rest."""
    return int(row[: row.index(b"\n")])


def feed_ends_row(floor: Place, last: Place) -> bytes:
    """Where the feed begins and ends."""
    return b"%d %d %d %d" % (*floor, *last)


def read_feed_ends(row: bytes | None) -> tuple[Place, Place]:
    """Read the place before the feed's oldest entry, and that of its last one.

    Raises:
        StoreDamagedError: the row is none of ``feed_ends_row``.
    """
    if row is None:
        return (0, 0), (0, 0)
    try:
        floor_ms, floor_n, last_ms, last_n = map(int, row.split())
    except ValueError as error:
        raise StoreDamagedError("the row that says where the feed ends is damaged") from error
    return (floor_ms, floor_n), (last_ms, last_n)


def text_bytes(text: str) -> bytes:
    """Encode a payload or an item."""
    return text.encode(errors="surrogatepass")


def read_text(row: bytes | None) -> str | None:
    """Read a payload or an item."""
    return None if row is None else text(row)


def text(row: bytes) -> str:
    """Read a payload or an item that is there."""
    return row.decode(errors="surrogatepass")


def _size(entry: JournalEntry) -> int:
    return sum(
        len(text_bytes(name)) + len(text_bytes(value)) for name, value in entry.fields.items()
    )
