"""The dead letters: what failed in the fleet's hands, with what is needed to try it again."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from murmur_streams.core.answers import check_answer
from murmur_streams.core.errors import (
    DeadLetterNotFoundError,
    InvalidCursorError,
    InvalidInputError,
)
from murmur_streams.core.identifiers import check_run_id, check_target, new_run_id
from murmur_streams.core.json_values import decode_json
from murmur_streams.core.pages import check_limit
from murmur_streams.core.requests import (
    TRACE_NAMES,
    Order,
    create_command,
    submit_command,
)
from murmur_streams.stores.redis.server import pairs, text
from murmur_streams.stores.redis.store import RedisRunStore

MOST_LETTERS = 500
_PAGE = 50
"""Letters hold inputs: a page of them must not be too large."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A run that failed for good."""

    run_id: str
    target: str
    reason: str
    """retries_exhausted, not_retryable, attempts_exhausted, deadline_exceeded, overdue; or what
    else ``finish(dead=...)`` was told."""
    attempts: int
    """How many executions began."""
    failures: int
    """How many of them failed."""
    error: str | None
    """Why the last one failed."""
    errors: tuple[str, ...]
    """The first failures, a line each: the attempt, a space, the error."""
    input_json: str | None
    metadata_json: str | None
    at_ms: int
    """When the run ended, Unix milliseconds."""
    letter_id: str
    """Its place in its target's stream."""
    priority: int = 0
    deadline_seconds: float | None = None
    """How long after it was due it would have failed; None: for ever."""
    trace: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """The W3C headers that the submitter passed."""
    tenant: str | None = None
    """Whose run it was."""

    @property
    def input(self) -> JsonValue:
        """The run's input; None when there was none."""
        return None if self.input_json is None else decode_json(self.input_json)

    @property
    def metadata(self) -> JsonValue:
        """What the submitter attached; None when nothing was."""
        return None if self.metadata_json is None else decode_json(self.metadata_json)


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Some dead letters."""

    letters: tuple[DeadLetter, ...]
    cursor: str | None
    """Pass it to get the next page; None when this was the last."""


class DeadLetters:
    """The dead letters of one store. They stay until they are requeued or purged.

    A target keeps about its last 10,000 in each partition.
    """

    def __init__(self, store: RedisRunStore) -> None:
        self._store = store
        self._server = store.server
        self._keys = store.keys

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
                return _read(target, letter_id, pairs(flat))
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
        metadata = {**cast("dict[str, JsonValue]", letter.metadata or {}), "requeued_from": run_id}
        limits = self._store.limits
        created = create_command(
            new_id, letter.target, letter.input, metadata, limits, tenant=letter.tenant
        )
        order = Order(
            priority=letter.priority, deadline_seconds=letter.deadline_seconds, trace=letter.trace
        )
        command = submit_command(created, order)
        answer = await self._store.calls.requeue(new_id, command, letter.letter_id)
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
        _check_choice((run_id, target, older_than_seconds), all)
        if older_than_seconds is not None and not 0 <= older_than_seconds < math.inf:
            raise InvalidInputError(
                f"older_than_seconds is {older_than_seconds}, but must be a number from 0 on"
            )
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
        return count

    async def _remove(self, run_id: str) -> int:
        try:
            letter = await self.get(run_id)
        except DeadLetterNotFoundError:
            return 0
        key = self._keys.dead(letter.target, self._keys.partition(run_id))
        return int(await self._server.read("XDEL", key, letter.letter_id))

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
                yield _read(target, text(letter_id), pairs(flat))
            if len(page) < _PAGE:
                return
            before = f"({text(page[-1][0])}"

    def _cursor(self, letter: DeadLetter) -> str:
        return f"{letter.target}:{self._keys.partition(letter.run_id)}:{letter.letter_id}"


def _check_choice(which: tuple[object, ...], every: object) -> None:
    # A name that is None by mistake must not cost all letters.
    if not isinstance(every, bool) or every != all(each is None for each in which):
        raise InvalidInputError(
            "say which letters to purge: run_id=, target=, older_than_seconds=, or all=True alone"
        )


def _parse(cursor: str) -> tuple[str, int, str]:
    target, _, rest = cursor.partition(":")
    partition, _, letter_id = rest.partition(":")
    if not (target and partition.isdigit() and letter_id.replace("-", "", 1).isdigit()):
        raise InvalidCursorError(
            f"{ascii(cursor)[:60]} is no cursor of the dead letters; pass DeadLetterPage.cursor"
        )
    return target, int(partition), letter_id


def _read(target: str, letter_id: str, fields: dict[str, str]) -> DeadLetter:
    errors, span = fields.get("errors"), fields.get("deadline_span")
    return DeadLetter(
        run_id=fields["run_id"],
        target=target,
        reason=fields["reason"],
        attempts=int(fields["attempts"]),
        failures=int(fields["failures"]),
        error=fields.get("error"),
        errors=tuple(errors.split("\n")) if errors else (),
        input_json=fields.get("input"),
        metadata_json=fields.get("metadata_json"),
        at_ms=int(fields["at"]),
        letter_id=letter_id,
        priority=int(fields.get("priority", 0)),
        deadline_seconds=None if span is None else int(span) / 1000,
        trace={name: fields[name] for name in TRACE_NAMES if name in fields},
        tenant=fields.get("tenant"),
    )
