"""The messages of an event stream: of one run or of the feed, each with its reader's position."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from murmur_streams.core.model import errors
from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.server.answering import log_problem
from murmur_streams.server.problems import damage_detail
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.answers import STREAM_DAMAGED, STREAM_END, STREAM_GAP, STREAM_RESET
from murmur_streams.wire.sse import SseBlock

AT_START = frozenset({"", "-1"})
"""Cursors that clients send to begin at the start."""
_KNOWN_TYPES = frozenset({*map(str, RunEventType), *map(str, EntryType)})


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

    @property
    def is_break(self) -> bool:
        """Whether something is missing between the messages before and after it."""
        return self.event in {STREAM_GAP, STREAM_RESET}


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
            yield StreamMessage(run_id, STREAM_DAMAGED, _damage(error), after)
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


def _damage(error: errors.RunDamagedError) -> dict[str, Any]:
    return {
        "run_id": error.run_id,
        "detail": damage_detail(error),
        "can_rebuild": error.can_rebuild,
    }


async def _state_of(store: WorkStore, run_id: str) -> str | None:
    """The run's state; None when the run was deleted."""
    try:
        return str((await store.get_status(run_id)).state)
    except errors.RunNotFoundError:
        return None
