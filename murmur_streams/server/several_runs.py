"""Several runs in one event stream, and the cursor with a reader's position in each of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Self, TypeVar

from murmur_streams.core.model.errors import InvalidCursorError
from murmur_streams.server.stream_messages import MessageStream, StreamMessage, encode, follow_run
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.work_store import WorkStore

T = TypeVar("T")

_RUN = r"-|end|[0-9a-f]{8}-[0-9]{1,15}-[0-9]{1,15}"
_CURSOR = re.compile(rf"runs((?:\.(?:{_RUN})){{1,1000}})")
_START, _ENDED = "-", "end"


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
            raise InvalidCursorError(
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
    if message.is_break:
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
