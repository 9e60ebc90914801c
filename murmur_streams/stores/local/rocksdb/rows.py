"""The values of the store: JSON, with a few short fields in front of it."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic_core import from_json, to_json

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, StoreDamagedError
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import RunFilter, run_from_fields, run_to_fields
from murmur_streams.stores.local.engine.database import EntryRow, FeedRow, QueuePosition, Stored
from murmur_streams.stores.local.engine.fields_json import FIELDS

FEED_INLINE_BYTES = 1024

_TEXT = frozenset({str})
_MOST_N = 1 << 62
_TIMES = ("expire_at_ms", "live_until_ms", "overdue_ms", "lease_until_ms")


def json_bytes(value: object) -> bytes:
    """Encode; a lone surrogate, which UTF-8 cannot say, comes back as it was."""
    try:
        return to_json(value)
    except ValueError:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="surrogatepass")


def read_json(row: bytes) -> Any:
    """Decode what ``json_bytes`` made; ValueError for a text that is not JSON."""
    try:
        return from_json(row)
    except ValueError:
        try:
            return json.loads(text(row))
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error


def version_row(stored: Stored) -> bytes:
    """The fields that every write to a run changes."""
    return b"%d %d" % (stored.run.version, stored.run.last_ms)


def run_row(stored: Stored) -> bytes:
    """All but that."""
    fields = run_to_fields(stored.run)
    del fields["version"], fields["last_ms"]
    value: dict[str, object] = {"run": fields}
    for name in _TIMES:
        ms: int | None = getattr(stored, name)
        if ms is not None:
            value[name] = ms
    if stored.queue is not None:
        value["queue"] = [int(stored.queue.is_ready), stored.queue.score]
    return json_bytes(value)


def read_run(run_id: str, row: bytes, version: bytes | None) -> Stored:
    """Read a run from its two rows.

    Raises:
        RunDamagedError: a row cannot be read as one.
    """
    try:
        value = cast("dict[str, Any]", read_json(row))
        fields = _texts(value["run"])
        fields["version"], fields["last_ms"] = (version or b" ").decode().split(" ")
        queue = value.get("queue")
        times = {name: _moment(value.get(name)) for name in _TIMES}
        position = None if queue is None else QueuePosition(bool(queue[0]), _whole(queue[1]))
        run = run_from_fields(run_id, fields)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise RunDamagedError(run_id, f"its rows are {ascii(str(error))[:60]}") from error
    if run.version < 0:
        raise RunDamagedError(run_id, f"version is {run.version}")
    return Stored(run, queue=position, **times)


def listing_row(stored: Stored) -> bytes:
    """The fields that filters compare, so that other runs need not be read whole."""
    run, expire = stored.run, stored.expire_at_ms
    expire_text = "" if expire is None else expire
    return f"{expire_text}\n{run.state}\n{run.target}\n{run.tenant or ''}".encode()


def may_be_listed(row: bytes, wanted: RunFilter, now_ms: int) -> bool:
    """Whether a run may be wanted in a listing; the run itself decides when its row says nothing.

    Args:
        row: one of ``listing_row``; those of the first stores are empty.
        wanted: the runs that are listed.
        now_ms: the listing has no run that has expired by then.
    """
    try:
        expire, state, target, tenant = row.decode().split("\n")
        is_over = bool(expire) and int(expire) <= now_ms
    except ValueError:
        return True
    return (
        not is_over
        and wanted.state in {None, state}
        and wanted.target in {None, target}
        and wanted.tenant in {None, tenant}
    )


def journal_row(entry: JournalEntry, fields: bytes) -> bytes:
    """An entry of a journal; ``fields`` are its fields as JSON."""
    return f"{entry.ms}\n{entry.epoch}\n".encode() + fields


def read_entry(run_id: str, seq: int, row: bytes) -> JournalEntry:
    """Read an entry of a run's journal.

    Raises:
        RunDamagedError: the row is not an entry.
    """
    return JournalEntry(run_id, *read_entry_row(run_id, seq, row))


def read_entry_row(run_id: str, seq: int, row: bytes) -> EntryRow:
    """The same without the run's id."""
    try:
        ms, epoch, fields = row.split(b"\n", 2)
        return epoch.decode(), int(ms), seq, _read_fields(fields)
    except ValueError as error:
        what = f"entry {seq} of its journal is not an entry"
        raise RunDamagedError(run_id, what, can_rebuild=False) from error


def feed_row(position_ms: int, target: str, entry: JournalEntry, fields: bytes) -> bytes:
    """An entry of the feed; ``fields`` are its fields as JSON, left out when they are big."""
    is_big = len(fields) > FEED_INLINE_BYTES and _size(entry) > FEED_INLINE_BYTES
    if is_big:
        fields = json_bytes({"type": entry.type})
    ms = "" if entry.ms == position_ms else entry.ms
    mark = "+" if is_big else ""
    head = f"{position_ms}\n{ms}\n{entry.seq}\n{entry.epoch}\n{target}\n{entry.run_id}\n{mark}\n"
    return head.encode() + fields


def read_feed_row(n: int, row: bytes | None, least_ms: int) -> tuple[FeedRow, bool]:
    """Read an entry of the feed, and whether its fields must be looked up in the journal.

    A row that cannot be read is an entry without a type, so that the feed of all runs goes on.

    Args:
        n: its number.
        row: None: there is none, though there should be.
        least_ms: the ms of the position before it.
    """
    try:
        *head, fields = (row or b"").split(b"\n", 7)
        position_ms, ms, seq, epoch, target, run_id, mark = (each.decode() for each in head)
        position = int(position_ms), n
        key = run_id, epoch, int(ms or position_ms), int(seq)
    except ValueError:
        nothing = JournalEntry("", "", least_ms, 0, {"type": ""})
        return FeedRow((least_ms, n), "", nothing), False
    try:
        return FeedRow(position, target, JournalEntry(*key, _read_fields(fields))), mark == "+"
    except ValueError:
        return FeedRow(position, target, JournalEntry(*key, {"type": ""})), True


def is_illegible(row: FeedRow) -> bool:
    """Whether nothing of an entry of the feed could be read."""
    return not row.entry.run_id


def feed_position_ms(row: bytes | None, least_ms: int) -> int:
    """The ms of the position of an entry of the feed; ``least_ms`` when it does not say it."""
    try:
        return max(least_ms, int((row or b"").split(b"\n", 1)[0]))
    except ValueError:
        return least_ms


def feed_ends_row(floor: Position, last: Position) -> bytes:
    """Where the feed begins and ends."""
    return b"%d %d %d %d" % (*floor, *last)


def read_feed_ends(row: bytes | None) -> tuple[Position, Position]:
    """Read the position before the feed's oldest entry, and that of its last one.

    Raises:
        StoreDamagedError: the row is not one of ``feed_ends_row``.
    """
    if row is None:
        return (0, 0), (0, 0)
    try:
        floor_ms, floor_n, last_ms, last_n = map(int, row.split())
        if not 0 <= floor_n <= last_n <= _MOST_N:
            raise ValueError(f"{floor_n} to {last_n}")  # noqa: TRY301  # reported as the others are
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


def _read_fields(row: bytes) -> dict[str, str]:
    try:
        return FIELDS.validate_json(row)
    except ValueError:
        return _texts(read_json(row))


def _texts(value: object) -> dict[str, str]:
    if type(value) is not dict:
        raise ValueError("no fields")
    fields = cast("dict[str, object]", value)
    if not {*map(type, fields.values())} <= _TEXT:
        raise ValueError("a field is not text")
    return cast("dict[str, str]", fields)


def _moment(value: object) -> int | None:
    return None if value is None else _whole(value)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError("a time is not a number")
    return value


def _size(entry: JournalEntry) -> int:
    return sum(len(text_bytes(part)) for field in entry.fields.items() for part in field)
