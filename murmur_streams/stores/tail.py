"""The loop of every reader of one run: fetch entries, apply the rules of reading, yield."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.rules.reading import Reading

T = TypeVar("T")


class Tail(Protocol):
    """One reader's access to a run's journal in one store."""

    reading: Reading

    async def fetch(self) -> Sequence[JournalEntry]:
        """Fetch entries after the position, in order; wait for news when there are none yet.

        Entries may come that were seen already, and an empty answer means: call again.
        """
        ...


async def read_tail(
    opened: AbstractAsyncContextManager[Tail],
    view: Callable[[JournalEntry], T | None],
    *,
    follow: bool = True,
) -> AsyncGenerator[T]:
    """Yield what ``view`` makes of each entry, until the stream ends.

    Args:
        opened: the tail, open while the reader reads.
        view: what to yield of an entry; None for nothing.
        follow: whether to wait for entries that are yet to come.
    """
    async with opened as tail:
        reading = tail.reading
        while not reading.is_over and (follow or not reading.is_caught_up):
            for entry in await tail.fetch():
                if reading.take(entry) and (shown := view(entry)) is not None:
                    yield shown


def whole_entry(entry: JournalEntry) -> JournalEntry:
    """The view of a reader of the journal."""
    return entry
