"""Finds the partitions of runs while there are runs of several numbers of partitions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.stores.redis.counts import PartitionCounts
from murmur_streams.stores.redis.key_space import KeySpace
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.nodes import Command

_PAGE = 500
_T = TypeVar("_T")


class Repeat(Protocol):
    """Makes a call, and again after a lost connection."""

    async def __call__(self, call: Callable[[], Awaitable[_T]]) -> _T: ...


class Locator:
    """Looks where runs are, before their keys are formed.

    A run is in the partition that an older number gives, if its hash is there. Otherwise it is, or
    would be created, in that of the newest number: no run is created by an older number any more.

    Args:
        keys: the key space; it remembers what was found.
        key_space: its records.
        ready: waits until the server was checked.
        retry: repeats a call until the server is back.
        read_all: reads with retries.
    """

    def __init__(
        self,
        keys: Keys,
        key_space: KeySpace,
        ready: Callable[[], Awaitable[None]],
        retry: Repeat,
        read_all: Callable[..., Awaitable[list[Any]]],
    ) -> None:
        self._keys = keys
        self._key_space = key_space
        self._ready = ready
        self._retry = retry
        self._read_all = read_all
        self._is_ready = False

    async def locate(self, *run_ids: str) -> None:
        """Find where runs are; ``Keys.partition`` knows it at once afterwards."""
        if not self._is_ready:
            await self._ready()
            self._is_ready = True
        while unknown := [each for each in run_ids if not self._keys.is_located(each)]:
            counts = self._keys.counts
            for first in range(0, len(unknown), _PAGE):
                found = await self._look(unknown[first : first + _PAGE], counts)
                if self._keys.counts is not counts:
                    break
                for run_id, partition in found.items():
                    self._keys.locate(run_id, partition)

    async def look_at_counts(self) -> None:
        """Compare the numbers of partitions, before every partition is read."""
        await self._ready()
        await self._retry(self._key_space.look)

    async def change_counts(self, after: PartitionCounts) -> None:
        """Record other numbers of partitions; ``KeySpace.change`` explains it."""
        await self._ready()
        await self._retry(lambda: self._key_space.change(after))

    async def find(self, run_id: str, read: Callable[[], Awaitable[_T]]) -> _T:
        """Read a run; once more, if it was not found and is in another partition than was known."""
        await self.locate(run_id)
        try:
            return await read()
        except RunNotFoundError:
            if not await self.has_moved(run_id):
                raise
        return await read()

    async def has_moved(self, run_id: str) -> bool:
        """Look again for a run that was not found; whether it is in another partition.

        The number of partitions may have been raised since this program looked, or the run was
        deleted and created again.
        """
        keys, counts = self._keys, self._keys.counts
        before = keys.partition(run_id) if keys.is_located(run_id) else None
        where = counts.of_new_run(run_id) if before is None else before
        await self._retry(lambda: self._key_space.look_in(where))
        if keys.counts is counts and counts.is_single:
            return False
        keys.unlocate(run_id)
        await self.locate(run_id)
        return keys.partition(run_id) != before

    async def _look(self, run_ids: Sequence[str], counts: PartitionCounts) -> dict[str, int]:
        keys, asked = self._keys, list[tuple[str, int]]()
        commands: list[Command] = []
        for run_id in run_ids:
            for partition in (*counts.older_partitions(run_id), counts.of_new_run(run_id)):
                asked.append((run_id, partition))
                commands.append(("EXISTS", keys.run(run_id, partition)))
                commands.append(("EXISTS", keys.journal(run_id, partition)))
        replies = await self._read_all(*commands)
        found = {run_id: counts.of_new_run(run_id) for run_id in run_ids}
        # A journal without a hash is of a run that was deleted, or is damaged.
        for exists in (replies[1::2], replies[::2]):
            for (run_id, partition), is_there in zip(
                reversed(asked), reversed(exists), strict=True
            ):
                if is_there:
                    found[run_id] = partition
        return found
