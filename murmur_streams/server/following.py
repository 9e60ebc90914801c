"""What event streams tell of a run or of all runs, and where their reader is after each message."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.errors import (
    CursorError,
    CursorResetError,
    RunDamagedError,
    RunNotFoundError,
)
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.server.answering import log_problem
from murmur_streams.server.problems import damage_detail
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.sse import SseBlock

GAP, RESET, END, DAMAGED = "gap", "reset", "end", "damaged"
AT_START = frozenset({"", "-1"})
"""What clients send who begin at the start."""
_KNOWN_TYPES = frozenset({*map(str, RunEventType), *map(str, EntryType)})


@dataclass(frozen=True, slots=True)
class Told:
    """One message, before it is bytes."""

    run_id: str | None
    """Of which run it tells; None: of the feed as a whole."""
    event: str | None
    """Its type; ``gap``, ``reset``, ``end`` and ``damaged`` are for ``?control=1``. None: of no
    known type."""
    data: str | dict[str, Any]
    """JSON text, or what becomes it."""
    cursor: str | None
    """Where a reader is after it; None: at the start."""

    @property
    def is_end(self) -> bool:
        """Whether nothing of the run comes after it."""
        return self.event == END

    @property
    def is_break(self) -> bool:
        """Whether what follows does not come next after what was before."""
        return self.event in {GAP, RESET}


Render = Callable[[Told], bytes]


def encode(told: Told) -> bytes:
    """As a message, after which its reader is at its cursor."""
    data = told.data
    text = data if isinstance(data, str) else _to_json(data)
    return SseBlock(told.event, text, told.cursor or "").encode()


class Telling:
    """What is told, as encoded messages; close it, even if nothing was taken from it."""

    def __init__(
        self, told: AsyncGenerator[Told], *, control: bool, render: Render = encode
    ) -> None:
        self._told = told
        self._control = control
        self._render = render
        self._ahead: list[Told] = []

    async def has_any(self) -> bool:
        """Whether anything but ends is told: waits for the first."""
        async for told in self._told:
            self._ahead.append(told)
            if not told.is_end:
                return True
        return False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            told = self._ahead.pop(0) if self._ahead else await anext(self._told)
            # Rendered in any case: what stands for several runs remembers who has ended.
            message = self._render(told)
            if self._control or not told.is_end:
                return message

    async def aclose(self) -> None:
        """End it."""
        await self._told.aclose()


def resume_after(given: str | None) -> str | None:
    """The cursor that a client sent; None when it begins at the start."""
    return None if given is None or given in AT_START else given


async def follow_run(
    store: WorkStore, run_id: str, after: str | None, *, control: bool
) -> AsyncGenerator[Told]:
    """Tell a run's events, and at last its end; its state is told with ``control`` only.

    With ``control`` a gap or reset is told, and it goes on from where the rest is; without, and
    where two come without an event between them, it raises. Damage is told with ``control``, and
    nothing comes after it; without, it raises.

    Raises:
        RunNotFoundError, StoreError: as the store's stream.
        CursorGapError, CursorResetError: it cannot go on.
    """
    broke: CursorError | None = None
    while True:
        try:
            async with aclosing(store.stream(run_id, after=after)) as events:
                async for event in events:
                    after, broke = event.id, None
                    yield Told(run_id, str(event.type), event.model_dump_json(), after)
            break
        except CursorError as error:
            if not control or broke is not None:
                raise
            broke, after = error, error.resume_cursor
        except RunNotFoundError:
            if broke is None:
                raise
            break  # What was reset is gone: its end can be told.
        except RunDamagedError as error:
            if not control:
                raise
            log_problem("an event stream cannot go on", error)
            yield Told(run_id, DAMAGED, _damage(error), after)
            return
        yield _break(broke, run_id)
    state = await _state_of(store, run_id) if control else None
    yield Told(run_id, END, {"state": state}, after)


async def follow_feed(
    store: WorkStore,
    after: str | None,
    targets: Collection[str] | None,
    types: Collection[str] | None,
    *,
    control: bool,
) -> AsyncGenerator[Told]:
    """Tell the feed's entries; breaks as in ``follow_run``."""
    broke: CursorError | None = None
    while True:
        try:
            feed = store.feed(after=after, targets=targets, types=types)
            async with aclosing(feed) as entries:
                async for entry in entries:
                    after, broke = entry.cursor, None
                    yield _told_of(entry)
            return
        except CursorError as error:
            if not control or broke is not None:
                raise
            broke, after = error, error.resume_cursor
        yield _break(broke, None)


async def check_run_cursor(store: WorkStore, run_id: str, after: str | None) -> None:
    """Refuse a cursor from which the run's stream cannot go on, without waiting for news.

    Raises:
        InvalidCursorError, CursorGapError, CursorResetError, RunDamagedError: as the store's
            stream.
    """
    if after is None:
        return
    async with aclosing(store.journal(run_id, after=after)) as entries:
        async for entry in entries:
            # A damaged event must be found here: a stream that breaks at it is opened again.
            if entry.event() is not None:
                return


async def check_feed_cursor(store: WorkStore, after: str | None) -> None:
    """Refuse a cursor from which the feed cannot go on, without waiting for news.

    Raises:
        InvalidCursorError, CursorGapError, CursorResetError: as the store's feed.
    """
    if after is not None:
        await store.check_feed_cursor(after)


def _told_of(entry: FeedEntry) -> Told:
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
    # What somebody else wrote into the stream is data, and no name of an event.
    name = found.type if found.type in _KNOWN_TYPES else None
    return Told(entry.run_id, name, data, entry.cursor)


def _break(error: CursorError, run_id: str | None) -> Told:
    name = RESET if isinstance(error, CursorResetError) else GAP
    return Told(run_id, name, {"resume_cursor": error.resume_cursor}, error.resume_cursor)


def _damage(error: RunDamagedError) -> dict[str, Any]:
    return {
        "run_id": error.run_id,
        "detail": damage_detail(error),
        "can_rebuild": error.can_rebuild,
    }


def _to_json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


async def _state_of(store: WorkStore, run_id: str) -> str | None:
    """The run's state; None when the run is gone, too."""
    try:
        return str((await store.get_status(run_id)).state)
    except RunNotFoundError:
        return None
