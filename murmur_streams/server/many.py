"""Several runs in one event stream, and the cursor that says where its reader is in each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Self, TypeVar

from murmur_streams.core.model.errors import InvalidCursorError
from murmur_streams.server.following import Telling, Told, encode, follow_run
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.work_store import WorkStore

T = TypeVar("T")

_RUN = r"-|end|[0-9a-f]{8}-[0-9]{1,15}-[0-9]{1,15}"
_CURSOR = re.compile(rf"runs((?:\.(?:{_RUN})){{1,1000}})")
_START, _ENDED = "-", "end"


class ManyCursor:
    """Where a reader of several runs is.

    Its text has one part for each run, in the order of their ids: it is good only with the same
    runs, in whatever order they are asked for.
    """

    def __init__(self, run_ids: Iterable[str]) -> None:
        self._parts = dict.fromkeys(sorted(run_ids), _START)

    def __str__(self) -> str:
        return ".".join(["runs", *self._parts.values()])

    @classmethod
    def parse(cls, text: str | None, run_ids: Iterable[str]) -> Self:
        """Read a cursor's text; None is the start of all runs.

        Raises:
            InvalidCursorError: it is none of several runs, or of more or fewer than these.
        """
        cursor = cls(run_ids)
        if text is None:
            return cursor
        match = _CURSOR.fullmatch(text)
        parts = match[1][1:].split(".") if match else []
        if len(parts) != len(cursor._parts):
            raise InvalidCursorError(
                f"{ascii(text)[:60]} is no cursor of these {len(cursor._parts)} runs; pass the id "
                "of a message of the same runs, or none for the start"
            )
        cursor._parts = dict(zip(cursor._parts, parts, strict=True))
        return cursor

    @property
    def open_runs(self) -> list[str]:
        """The runs whose end has not been told."""
        return [run_id for run_id, part in self._parts.items() if part != _ENDED]

    def after(self, run_id: str) -> str | None:
        """The run's own cursor; None for its start."""
        part = self._parts[run_id]
        return None if part == _START else part

    def move(self, told: Told) -> None:
        """Stand after what was told."""
        if told.run_id is not None:
            self._parts[told.run_id] = _ENDED if told.is_end else told.cursor or _START


def tell_many(store: WorkStore, cursor: ManyCursor, *, control: bool) -> Telling:
    """Tell what comes of all runs until all have ended; errors as ``follow_run``.

    A run's events come in order; between runs there is none.
    """
    runs = [
        follow_run(store, run_id, cursor.after(run_id), control=control)
        for run_id in cursor.open_runs
    ]
    return Telling(merged(runs), control=control, render=partial(_render, cursor))


def _render(cursor: ManyCursor, told: Told) -> bytes:
    cursor.move(told)
    place, data = str(cursor), told.data
    if not isinstance(data, str):
        data = {"run_id": told.run_id, **data}
    if told.is_break:
        data = {"run_id": told.run_id, "resume_cursor": place}
    return encode(replace(told, data=data, cursor=place))


async def merged(sources: list[AsyncGenerator[T]]) -> AsyncGenerator[T]:
    """Yield what comes of all, each in its own order, until all have ended or one fails.

    Of each at most one item waits: who takes slowly holds all of them up.
    """
    arrived: asyncio.Queue[T | _Over] = asyncio.Queue(1)

    async def pump(source: AsyncGenerator[T]) -> None:
        error = None
        try:
            async with aclosing(source):
                async for item in source:
                    await arrived.put(item)
        except Exception as raised:  # noqa: BLE001  # whatever it is, it is raised below
            error = raised
        await arrived.put(_Over(error))

    pumps = [start_task(pump(source), "one run of several") for source in sources]
    try:
        running = len(pumps)
        while running:
            item = await arrived.get()
            if not isinstance(item, _Over):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                running -= 1
    finally:
        await end_tasks(pumps)


class _Over:
    """A source has ended."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
