"""The loop of every reader of one run: fetch entries, apply the rules of reading, yield."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from murmur_streams.core.rules.reading import Reading

Item = TypeVar("Item")
"""An entry in the form in which a store's tail fetches it."""
Item_co = TypeVar("Item_co", covariant=True)
T = TypeVar("T")


class Tail(Protocol[Item_co]):
    """One reader's access to a run's journal in one store."""

    reading: Reading

    async def fetch(self) -> Sequence[Item_co]:
        """Fetch entries after the position, in order; wait for news when there are none yet.

        Entries may come that were seen already, and an empty answer means: call again.
        """
        ...


async def read_tail(
    opened: AbstractAsyncContextManager[Tail[Item]],
    view: Callable[[Reading, Sequence[Item]], Iterable[T]],
    *,
    follow: bool = True,
) -> AsyncGenerator[T]:
    """Yield what ``view`` makes of the entries, until the stream ends.

    Args:
        opened: the tail, open while the reader reads.
        view: offers each entry to the reading, and yields what the reader gets.
        follow: whether to wait for entries that are yet to come.
    """
    async with opened as tail:
        reading = tail.reading
        while not reading.is_over and (follow or not reading.is_caught_up):
            for shown in view(reading, await tail.fetch()):
                yield shown
