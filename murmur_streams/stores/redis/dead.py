"""The dead letters in Redis: a stream of each target and partition."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from murmur_streams.core.model.dead_letters import (
    MOST_LETTERS,
    DeadLetter,
    DeadLetterPage,
    check_purge,
    letter_from_fields,
    requeue_command,
)
from murmur_streams.core.model.errors import DeadLetterNotFoundError, InvalidCursorError
from murmur_streams.core.model.identifiers import check_run_id, check_target, new_run_id
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.pages import check_limit
from murmur_streams.core.rules.answers import check_answer
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.server import Server, pairs, text

_PAGE = 50
"""Letters hold inputs: a page of them must not be too large."""


class DeadLetters:
    """The dead letters of one store. They stay until they are requeued or purged.

    A target keeps about its last 10,000 in each partition.
    """

    def __init__(self, server: Server, calls: Calls, limits: Limits) -> None:
        self._server = server
        self._keys = server.keys
        self._calls = calls
        self._limits = limits

    async def list(
        self, target: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        """Read dead letters, target by target, of each partition the newest first.

        Args:
            target: only of this target.
            limit: 1 to 500.
            cursor: of the page before; None for the first.
        """
        check_limit(limit, MOST_LETTERS)
        after = None if cursor is None else _parse(cursor)
        letters: list[DeadLetter] = []
        for place in await self._places(target):
            if after is not None and place < after[:2]:
                continue
            before = f"({after[2]}" if after is not None and place == after[:2] else "+"
            async with aclosing(self._letters(*place, before)) as found:
                async for letter in found:
                    if len(letters) == limit:
                        return DeadLetterPage(tuple(letters), self._cursor(letters[-1]))
                    letters.append(letter)
        return DeadLetterPage(tuple(letters), None)

    async def get(self, run_id: str) -> DeadLetter:
        """Read the dead letter of a run.

        Two round trips while the run is kept. Once it has expired, was deleted or rebuilt, and when
        there is no letter, those of its partition are gone through, the newest first, 50 at a time.

        Raises:
            DeadLetterNotFoundError: there is none: it did not die, was requeued or purged.
        """
        partition = self._keys.partition(check_run_id(run_id))
        kept = await self._server.read("HMGET", self._keys.run(run_id), "target", "letter")
        target, letter_id = (None if each is None else text(each) for each in kept)
        if target is not None and letter_id is not None:
            key = self._keys.dead(target, partition)
            for _, flat in await self._server.read("XRANGE", key, letter_id, letter_id):
                return letter_from_fields(target, letter_id, pairs(flat))
        # Of all targets: an id that lives again may have a letter of a life before.
        for place in await self._places(None, partition):
            async with aclosing(self._letters(*place, "+")) as found:
                async for letter in found:
                    if letter.run_id == run_id:
                        return letter
        raise DeadLetterNotFoundError(run_id)

    async def requeue(self, run_id: str) -> str:
        """Submit the run again under a new id and remove its letter, in one step.

        It has the old one's input, tenant, priority and trace, and its deadline's span, from now
        on.

        Returns:
            The new run's id. Its metadata holds the old one as ``requeued_from``.

        Raises:
            DeadLetterNotFoundError: there is no such letter (any more).
        """
        letter = await self.get(run_id)
        partition = self._keys.partition(run_id)
        new_id = new_run_id()
        # One script touches both: they must lie in one partition.
        while self._keys.partition(new_id) != partition:
            new_id = new_run_id()
        command = requeue_command(letter, new_id, self._limits)
        answer = await self._calls.requeue(new_id, command, letter.letter_id)
        if answer[0] == "NOT_FOUND":
            raise DeadLetterNotFoundError(run_id)
        check_answer(answer, new_id)
        return new_id

    async def purge(
        self,
        *,
        run_id: str | None = None,
        target: str | None = None,
        older_than_seconds: float | None = None,
        all: bool = False,  # noqa: A002  # the command line's word
    ) -> int:
        """Remove dead letters: one run's, those of a target or of some age, or all.

        Args:
            run_id: only this run's.
            target: only of this target.
            older_than_seconds: only of runs that ended longer ago, by the server's clock.
            all: every one; without another word which, nothing less removes them all.

        Returns:
            How many there were.

        Raises:
            InvalidInputError: neither ``all`` nor another word which, or both; or the age is
                negative or no number. Nothing is removed.
        """
        check_purge(run_id, target, older_than_seconds, all)
        if run_id is not None:
            return await self._remove(run_id)
        how: tuple[object, ...] = ("MAXLEN", 0)
        if older_than_seconds is not None:
            seconds, micros = (int(part) for part in await self._server.read("TIME"))
            now_ms = seconds * 1000 + micros // 1000
            how = ("MINID", max(0, now_ms - round(older_than_seconds * 1000)))
        count = 0
        for name, partition in await self._places(target):
            count += int(await self._server.read("XTRIM", self._keys.dead(name, partition), *how))
            await self._forget(name, partition)
        return count

    async def _remove(self, run_id: str) -> int:
        try:
            letter = await self.get(run_id)
        except DeadLetterNotFoundError:
            return 0
        partition = self._keys.partition(run_id)
        key = self._keys.dead(letter.target, partition)
        count = int(await self._server.read("XDEL", key, letter.letter_id))
        await self._forget(letter.target, partition)
        return count

    async def _forget(self, target: str, partition: int) -> None:
        """Remove the stream of an agent that has no letters any more: the agent may be no more."""
        base = self._keys.base(partition)
        await self._server.idempotent_script("forget_letters", [base], [target])

    async def _places(
        self, target: str | None, partition: int | None = None
    ) -> list[tuple[str, int]]:
        """Target and partition of every stream that may hold letters, in the listing's order."""
        partitions = [*self._keys.all_partitions] if partition is None else [partition]
        if target is not None:
            return [(check_target(target), each) for each in partitions]
        rows = [("SMEMBERS", self._keys.dead_targets(each)) for each in partitions]
        replies = await self._server.read_all(*rows)
        return sorted(
            (text(name), each)
            for each, names in zip(partitions, replies, strict=True)
            for name in names
        )

    async def _letters(
        self, target: str, partition: int, before: str
    ) -> AsyncGenerator[DeadLetter]:
        key = self._keys.dead(target, partition)
        while True:
            page: list[Any] = await self._server.read("XREVRANGE", key, before, "-", "COUNT", _PAGE)
            for letter_id, flat in page:
                yield letter_from_fields(target, text(letter_id), pairs(flat))
            if len(page) < _PAGE:
                return
            before = f"({text(page[-1][0])}"

    def _cursor(self, letter: DeadLetter) -> str:
        return f"{letter.target}:{self._keys.partition(letter.run_id)}:{letter.letter_id}"


def _parse(cursor: str) -> tuple[str, int, str]:
    target, _, rest = cursor.partition(":")
    partition, _, letter_id = rest.partition(":")
    if not (target and partition.isdigit() and letter_id.replace("-", "", 1).isdigit()):
        raise InvalidCursorError(
            f"{ascii(cursor)[:60]} is not a cursor of the dead letters; pass DeadLetterPage.cursor"
        )
    return target, int(partition), letter_id
