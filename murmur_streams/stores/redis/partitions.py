"""Raises the number of partitions, and forgets older numbers; see docs/partitions.md."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.core.rules.requests import MOST_LETTERS
from murmur_streams.stores.redis.counts import PartitionCounts
from murmur_streams.stores.redis.replies import text
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.store import RedisRunStore, server_of

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class OlderRuns:
    """What is in partitions that only an older number gives."""

    live: int
    ended: int
    letters: int

    @property
    def are_gone(self) -> bool:
        """Whether the older numbers are needed for nothing."""
        return not (self.live or self.ended or self.letters)


async def raise_partitions(store: RedisRunStore, number: int) -> PartitionCounts:
    """Create new runs in more partitions, while all programs go on; earlier runs stay.

    Args:
        store: any store of the key space.
        number: how many partitions from now on.

    Returns:
        The numbers now.

    Raises:
        StoreConfigurationError: the number is not larger, runs have too many older numbers, or
            another raise is under way.
    """
    server = server_of(store)
    await server.locator.look_at_counts()
    await server.locator.change_counts(server.keys.counts.raised(number))
    return server.keys.counts


async def forget_numbers(store: RedisRunStore) -> PartitionCounts:
    """Forget the older numbers of partitions: no run is looked for by them any more.

    No run is created by an older number, so once none is left, none will come.

    Raises:
        StoreConfigurationError: runs or dead letters still need an older number.
    """
    server = server_of(store)
    await store.sweep()
    await server.locator.look_at_counts()
    counts, found = server.keys.counts, await older_runs(store)
    if counts.is_single:
        return counts
    if not found.are_gone:
        raise StoreConfigurationError(
            f"{found.live} live runs, {found.ended} ended runs and {found.letters} dead letters "
            f"under {server.keys.prefix!r} are in partitions of older numbers ({counts}); wait "
            "until the runs have ended and expired, and requeue or purge the letters"
        )
    await server.locator.change_counts(counts.only_newest())
    return server.keys.counts


async def older_runs(store: RedisRunStore) -> OlderRuns:
    """Count the runs, and about how many dead letters, that only an older number leads to."""
    server = server_of(store)
    counts = server.keys.counts
    if counts.is_single:
        return OlderRuns(0, 0, 0)
    found = dict.fromkeys((True, False), 0)
    for partition in range(counts.numbers[-2]):
        for state in RunState:
            index = server.keys.index_state(state, partition)
            async for run_id in _run_ids(server, index):
                if counts.of_new_run(run_id) != partition:
                    found[state in TERMINAL_STATES] += 1
    letters = 0
    async for letter in _letters(store):
        letters += counts.of_new_run(letter[0]) != letter[1]
    return OlderRuns(found[False], found[True], letters)


async def _run_ids(server: Server, index: str) -> AsyncGenerator[str]:
    top = "+"
    while page := await server.read("ZREVRANGEBYLEX", index, top, "-", "LIMIT", 0, _PAGE):
        members = [text(member) for member in page]
        for member in members:
            yield member.partition(":")[2]
        top = f"({members[-1]}"


async def _letters(store: RedisRunStore) -> AsyncGenerator[tuple[str, int]]:
    """The run id of each dead letter, and the partition that it is in."""
    box, cursor = store.dead_letters(), None
    while True:
        page = await box.list(limit=MOST_LETTERS, cursor=cursor)
        for letter in page.letters:
            yield letter.run_id, box.partition_of(letter)
        if (cursor := page.cursor) is None:
            return
