"""The dead letters in Redis: a stream of each target and partition."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from murmur_streams.core.model.commands import Create
from murmur_streams.core.model.limits import Limits, new_run_id
from murmur_streams.core.rules.decide import Answer
from murmur_streams.core.rules.requests import DeadLetter, letter_from_fields
from murmur_streams.stores.dead_letters import LETTERS_PAGE, DeadLetterBox, invalid_cursor
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.replies import clock_ms, pairs, text, text_or_none
from murmur_streams.stores.redis.server import Server

_Stream = tuple[str, int]
"""The target and the partition of a stream of letters."""


class RedisDeadLetters(DeadLetterBox):
    """The dead letters of one Redis store."""

    def __init__(self, server: Server, calls: Calls, limits: Limits) -> None:
        super().__init__(limits)
        self._server = server
        self._keys = server.keys
        self._calls = calls

    def _cursor(self, letter: DeadLetter) -> str:
        return f"{letter.target}:{self.partition_of(letter)}:{letter.letter_id}"

    def partition_of(self, letter: DeadLetter) -> int:
        """The partition of a letter that this box has read."""
        # Noted when the letter was read: its run may be gone, and with it the way to find it.
        keys, run_id = self._keys, letter.run_id
        return keys.partition(run_id) if keys.is_located(run_id) else keys.counts.of_new_run(run_id)

    async def _letters(
        self, target: str | None, cursor: str | None, run_id: str | None = None
    ) -> AsyncGenerator[DeadLetter]:
        after, letter_id = (None, "") if cursor is None else _parse(cursor)
        await self._server.locator.look_at_counts()
        for stream in await self._streams(target, self._partitions_of(run_id)):
            if after is not None and stream < after:
                continue
            before = f"({letter_id}" if stream == after else "+"
            async with aclosing(self._of_stream(stream, before)) as found:
                async for letter in found:
                    yield letter

    async def _look_up(self, run_id: str) -> DeadLetter | None:
        await self._server.locator.look_at_counts()
        await self._server.locator.locate(run_id)
        fields = await self._server.read("HMGET", self._keys.run(run_id), "target", "letter")
        target, letter_id = map(text_or_none, fields)
        if target is None or letter_id is None:
            return None
        await self._server.locator.locate(run_id)
        key = self._keys.dead(target, self._keys.partition(run_id))
        found = await self._server.read("XRANGE", key, letter_id, letter_id)
        return letter_from_fields(target, letter_id, pairs(found[0][1])) if found else None

    def _new_id(self, letter: DeadLetter) -> str:
        partition = self.partition_of(letter)
        # One script writes the run and removes the letter: both must lie in one partition.
        while self._keys.counts.of_new_run(new_id := new_run_id()) != partition:
            pass
        return new_id

    async def _submit_again(self, letter: DeadLetter, new_id: str, command: Create) -> Answer:
        return await self._calls.requeue(new_id, command, letter.letter_id)

    async def _remove(self, letter: DeadLetter) -> int:
        partition = self.partition_of(letter)
        key = self._keys.dead(letter.target, partition)
        self._server.use.check_may_write()
        count = int(await self._server.read("XDEL", key, letter.letter_id))
        await self._forget(letter.target, partition)
        return count

    async def _purge(self, target: str | None, older_than_ms: int | None) -> int:
        self._server.use.check_may_write()
        how: tuple[object, ...] = ("MAXLEN", 0)
        count = 0
        await self._server.locator.look_at_counts()
        for name, partition in await self._streams(target, self._keys.all_partitions):
            key = self._keys.dead(name, partition)
            if older_than_ms is not None:
                # By the clock of the server that has the letters.
                clock, _ = await self._server.read_all(("TIME",), ("EXISTS", key))
                how = ("MINID", max(0, clock_ms(clock) - older_than_ms))
            count += int(await self._server.read("XTRIM", key, *how))
            await self._forget(name, partition)
        return count

    async def _forget(self, target: str, partition: int) -> None:
        """Remove the stream of a target without letters: its agent may not exist any more."""
        base = self._keys.base(partition)
        await self._server.idempotent_script("forget_letters", [base], [target])

    def _partitions_of(self, run_id: str | None) -> Sequence[int]:
        """Where letters of a run may be; None for all runs."""
        counts = self._keys.counts
        if run_id is None:
            return self._keys.all_partitions
        return [*counts.older_partitions(run_id), counts.of_new_run(run_id)]

    async def _streams(self, target: str | None, partitions: Sequence[int]) -> list[_Stream]:
        """The streams that may hold letters, in the order of listings."""
        if target is not None:
            return [(target, each) for each in partitions]
        rows = [("SMEMBERS", self._keys.dead_targets(each)) for each in partitions]
        replies = await self._server.read_all(*rows)
        return sorted(
            (text(name), each)
            for each, names in zip(partitions, replies, strict=True)
            for name in names
        )

    async def _of_stream(self, stream: _Stream, before: str) -> AsyncGenerator[DeadLetter]:
        """The letters of one stream, the newest first."""
        key = self._keys.dead(*stream)
        while True:
            page: list[Any] = await self._server.read(
                "XREVRANGE", key, before, "-", "COUNT", LETTERS_PAGE
            )
            for letter_id, flat in page:
                letter = letter_from_fields(stream[0], text(letter_id), pairs(flat))
                self._keys.locate(letter.run_id, stream[1])
                yield letter
            if len(page) < LETTERS_PAGE:
                return
            before = f"({text(page[-1][0])}"


def _parse(cursor: str) -> tuple[_Stream, str]:
    target, _, rest = cursor.partition(":")
    partition, _, letter_id = rest.partition(":")
    if not (target and partition.isdigit() and letter_id.replace("-", "", 1).isdigit()):
        raise invalid_cursor(cursor)
    return (target, int(partition)), letter_id
