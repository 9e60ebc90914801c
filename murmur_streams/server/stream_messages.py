"""The messages of an event stream, of one run, several or the feed, with the reader's position."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self, TypeVar

from murmur_streams.core.model import errors
from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.server.responses import damage_detail, log_problem
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.answers import STREAM_DAMAGED, STREAM_END, STREAM_GAP, STREAM_RESET
from murmur_streams.wire.sse import SseBlock

AT_START = frozenset({"", "-1"})
"""Cursors that clients send to begin at the start."""
T = TypeVar("T")
_KNOWN_TYPES = frozenset({*map(str, RunEventType), *map(str, EntryType)})
_RUN = r"-|end|[0-9a-f]{8}-[0-9]{1,15}-[0-9]{1,15}"
_CURSOR = re.compile(rf"runs((?:\.(?:{_RUN})){{1,1000}})")
_START, _ENDED = "-", "end"


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message of an event stream, before it is bytes."""

    run_id: str | None
    """The run that it is about; None for a message about the feed as a whole."""
    event: str | None
    """Its type; None for an entry of an unknown type. A stream without ``?control=1`` has no
    ``gap``, ``reset``, ``end`` and ``damaged``."""
    data: str | dict[str, Any]
    """JSON text, or an object that becomes JSON text."""
    cursor: str | None
    """The reader's position after it; None: the start."""

    @property
    def is_end(self) -> bool:
        """Whether nothing of the run comes after it."""
        return self.event == STREAM_END


Encode = Callable[[StreamMessage], bytes]


def encode(message: StreamMessage) -> bytes:
    """The lines of a message; its id is the cursor."""
    text = message.data
    if not isinstance(text, str):
        text = json.dumps(text, ensure_ascii=False, separators=(",", ":"))
    return SseBlock(message.event, text, message.cursor or "").encode()


class MessageStream:
    """Messages, encoded one by one; close it, even if none was taken."""

    def __init__(
        self, messages: AsyncGenerator[StreamMessage], *, control: bool, encode: Encode = encode
    ) -> None:
        self._messages = messages
        self._control = control
        self._encode = encode
        self._ahead: list[StreamMessage] = []

    async def has_any(self) -> bool:
        """Whether there is a message other than ends: waits for the first."""
        async for message in self._messages:
            self._ahead.append(message)
            if not message.is_end:
                return True
        return False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            message = self._ahead.pop(0) if self._ahead else await anext(self._messages)
            # An end is encoded even if it is not sent: a cursor of several runs records it then.
            encoded = self._encode(message)
            if self._control or not message.is_end:
                return encoded

    async def aclose(self) -> None:
        """End it."""
        await self._messages.aclose()


def resume_after(given: str | None) -> str | None:
    """The cursor that a client sent; None when it begins at the start."""
    return None if given is None or given in AT_START else given


async def follow_run(
    store: WorkStore, run_id: str, after: str | None, *, control: bool
) -> AsyncGenerator[StreamMessage]:
    """Yield a run's events, and at last its end, which has the run's state with ``control`` only.

    With ``control`` a gap or reset is a message, and the stream continues with the entries that
    remain; without it, and when a second one follows without an event between them, it raises.
    Damage is the last message with ``control``; without it, it raises.

    Raises:
        RunNotFoundError, StoreError: as the store's stream.
        CursorGapError, CursorResetError: it cannot continue.
    """
    broken_by: errors.CursorError | None = None
    while True:
        try:
            async with aclosing(store.stream(run_id, after=after)) as events:
                async for event in events:
                    after, broken_by = event.id, None
                    yield StreamMessage(run_id, str(event.type), event.model_dump_json(), after)
            break
        except errors.CursorError as error:
            if not control or broken_by is not None:
                raise
            broken_by, after = error, error.resume_cursor
        except errors.RunNotFoundError:
            if broken_by is None:
                raise
            break  # The run was reset and then deleted: the reader gets its end.
        except errors.RunDamagedError as error:
            if not control:
                raise
            log_problem("an event stream cannot go on", error)
            data = {
                "run_id": run_id,
                "detail": damage_detail(error),
                "can_rebuild": error.can_rebuild,
            }
            yield StreamMessage(run_id, STREAM_DAMAGED, data, after)
            return
        yield _break(broken_by, run_id)
    state = await _state_of(store, run_id) if control else None
    yield StreamMessage(run_id, STREAM_END, {"state": state}, after)


async def follow_feed(
    store: WorkStore,
    after: str | None,
    targets: Collection[str] | None,
    types: Collection[str] | None,
    *,
    control: bool,
) -> AsyncGenerator[StreamMessage]:
    """Yield the feed's entries; gaps and resets as in ``follow_run``."""
    broken_by: errors.CursorError | None = None
    while True:
        try:
            feed = store.feed(after=after, targets=targets, types=types)
            async with aclosing(feed) as entries:
                async for entry in entries:
                    after, broken_by = entry.cursor, None
                    yield _message_of(entry)
            return
        except errors.CursorError as error:
            if not control or broken_by is not None:
                raise
            broken_by, after = error, error.resume_cursor
        yield _break(broken_by, None)


async def check_run_cursor(store: WorkStore, run_id: str, after: str | None) -> None:
    """Reject a cursor from which the run's stream cannot continue; does not wait for new events.

    Raises:
        InvalidCursorError, CursorGapError, CursorResetError, RunDamagedError: as the store's
            stream.
    """
    if after is None:
        return
    async with aclosing(store.journal(run_id, after=after)) as entries:
        async for entry in entries:
            # Decodes the event. A client reconnects after a stream that breaks at a damaged event,
            # again and again; a problem document before the first byte stops it.
            if entry.event() is not None:
                return


class ManyCursor:
    """A reader's positions in several runs.

    Its text has one part for each run, in the order of the run ids. It is valid only for the same
    runs; the order of the request's ``run`` parameters does not matter.
    """

    def __init__(self, run_ids: Iterable[str]) -> None:
        self._parts = dict.fromkeys(sorted(run_ids), _START)

    def __str__(self) -> str:
        return ".".join(["runs", *self._parts.values()])

    @classmethod
    def parse(cls, text: str | None, run_ids: Iterable[str]) -> Self:
        """Parse a cursor's text; None is the start of all runs.

        Raises:
            InvalidCursorError: it is not a cursor of several runs, or not of as many as these.
        """
        cursor = cls(run_ids)
        if text is None:
            return cursor
        match = _CURSOR.fullmatch(text)
        parts = match[1][1:].split(".") if match else []
        if len(parts) != len(cursor._parts):
            raise errors.InvalidCursorError(
                f"{ascii(text)[:60]} is not a cursor of these {len(cursor._parts)} runs; pass the "
                "id of a message of the same runs, or none for the start"
            )
        cursor._parts = dict(zip(cursor._parts, parts, strict=True))
        return cursor

    @property
    def open_runs(self) -> list[str]:
        """The runs whose end the reader has not reached."""
        return [run_id for run_id, part in self._parts.items() if part != _ENDED]

    def after(self, run_id: str) -> str | None:
        """The run's own cursor; None for its start."""
        part = self._parts[run_id]
        return None if part == _START else part

    def move(self, message: StreamMessage) -> None:
        """Move to the position after a message."""
        if message.run_id is not None:
            self._parts[message.run_id] = _ENDED if message.is_end else message.cursor or _START


def follow_runs(store: WorkStore, cursor: ManyCursor, *, control: bool) -> MessageStream:
    """The messages of all runs until all have ended; errors as ``follow_run``.

    The events of one run come in order; events of different runs come in any order.
    """
    runs = [
        follow_run(store, run_id, cursor.after(run_id), control=control)
        for run_id in cursor.open_runs
    ]
    return MessageStream(merged(runs), control=control, encode=partial(_encode_at, cursor))


def _encode_at(cursor: ManyCursor, message: StreamMessage) -> bytes:
    """Encode a message with the cursor of all runs as its id.

    The cursor moves here, when a message is sent, and not when it arrives in ``merged``: a message
    that still waits there must not count as seen, or a reader that resumes would miss it.
    """
    cursor.move(message)
    position, data = str(cursor), message.data
    if not isinstance(data, str):
        data = {"run_id": message.run_id, **data}
    if message.event in {STREAM_GAP, STREAM_RESET}:
        data = {"run_id": message.run_id, "resume_cursor": position}
    return encode(replace(message, data=data, cursor=position))


async def merged(sources: list[AsyncGenerator[T]]) -> AsyncGenerator[T]:
    """Yield the items of all sources, each in its own order, until all have ended or one fails.

    At most one item of each source waits, so a slow consumer slows all of them down.
    """
    arrived: asyncio.Queue[T | Exception | None] = asyncio.Queue(1)

    async def pump(source: AsyncGenerator[T]) -> None:
        end = None
        try:
            async with aclosing(source):
                async for item in source:
                    await arrived.put(item)
        except Exception as raised:  # noqa: BLE001  # the loop below raises it
            end = raised
        await arrived.put(end)

    pumps = [start_task(pump(source), "one run of several") for source in sources]
    try:
        running = len(pumps)
        while running:
            item = await arrived.get()
            if item is None:
                running -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        await end_tasks(pumps)


def _message_of(entry: FeedEntry) -> StreamMessage:
    found = entry.entry
    at = datetime.fromtimestamp(found.ms / 1000, UTC)
    data = {
        "run_id": entry.run_id,
        "target": entry.target,
        "seq": found.seq,
        "type": found.type,
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "fields": {name: value for name, value in found.fields.items() if name != "type"},
    }
    # A type that another program wrote into the stream is data: it could be "end", or break a line.
    name = found.type if found.type in _KNOWN_TYPES else None
    return StreamMessage(entry.run_id, name, data, entry.cursor)


def _break(error: errors.CursorError, run_id: str | None) -> StreamMessage:
    name = STREAM_RESET if isinstance(error, errors.CursorResetError) else STREAM_GAP
    return StreamMessage(run_id, name, {"resume_cursor": error.resume_cursor}, error.resume_cursor)


async def _state_of(store: WorkStore, run_id: str) -> str | None:
    """The run's state; None when the run was deleted."""
    try:
        return str((await store.get_status(run_id)).state)
    except errors.RunNotFoundError:
        return None
