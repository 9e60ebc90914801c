"""The dead letters of a store on disk; a key is ``<target>/<ms, 13 digits>/<run id>``."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

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
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.local.engine.access import Access
from murmur_streams.stores.local.engine.database import Reader, Space
from murmur_streams.stores.local.engine.transaction import Transaction
from murmur_streams.stores.work_store import DeadLetterBox

_PAGE = 50
"""Letters hold inputs: a page of them must not be too large."""
_KEY = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)/[0-9]{13,}/[A-Za-z0-9][A-Za-z0-9._:-]*")

Row = tuple[str, str]
"""A letter's key and its text."""


class LocalDeadLetters(DeadLetterBox):
    """The dead letters of one store. They stay until they are requeued or purged."""

    def __init__(self, access: Access, limits: Limits, clock: Callable[[], int]) -> None:
        self._access = access
        self._limits = limits
        self._clock = clock

    async def list(
        self, target: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        check_limit(limit, MOST_LETTERS)
        letters: list[DeadLetter] = []
        async with aclosing(self._rows(target, _checked(cursor))) as rows:
            async for row in rows:
                if len(letters) == limit:
                    return DeadLetterPage(tuple(letters), letters[-1].letter_id)
                letters.append(_letter(row))
        return DeadLetterPage(tuple(letters), None)

    async def get(self, run_id: str) -> DeadLetter:
        check_run_id(run_id)
        row = await self._access.read(lambda reader: _row_of(reader, run_id))
        if row is not None:
            return _letter(row)
        # An id that lives again may have a letter of a life before.
        async with aclosing(self._rows(None, None)) as rows:
            async for key, text in rows:
                if _run_id(key) == run_id:
                    return _letter((key, text))
        raise DeadLetterNotFoundError(run_id)

    async def requeue(self, run_id: str) -> str:
        letter, new_id = await self.get(run_id), new_run_id()
        command = requeue_command(letter, new_id, self._limits)

        def submit(group: Transaction) -> Answer | None:
            if group.database.item(Space.DEAD, letter.letter_id) is None:
                return None
            _remove(group, letter.letter_id)
            return group.perform(new_id, command).answer

        answer = await self._access.write_alone(submit)
        if answer is None:
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
        check_purge(run_id, target, older_than_seconds, all)
        if run_id is not None:
            return await self._purge_one(run_id)
        before_ms = None
        if older_than_seconds is not None:
            before_ms = max(0, self._clock() - round(older_than_seconds * 1000))
        count, name = 0, await self._next_target(target, None)
        while name is not None:
            first, stop = f"{name}/", _end(name)
            if before_ms is not None:
                stop = f"{name}/{before_ms:013d}/"
            while removed := await self._access.write_alone(
                lambda group, first=first, stop=stop: _remove_page(group, first, stop)
            ):
                count += removed
            name = await self._next_target(target, name)
        return count

    async def _purge_one(self, run_id: str) -> int:
        try:
            letter = await self.get(run_id)
        except DeadLetterNotFoundError:
            return 0

        def remove(group: Transaction) -> int:
            if group.database.item(Space.DEAD, letter.letter_id) is None:
                return 0
            _remove(group, letter.letter_id)
            return 1

        return await self._access.write_alone(remove)

    async def _rows(self, target: str | None, cursor: str | None) -> AsyncGenerator[Row]:
        """The letters after a cursor, in the listing's order."""
        name = None if cursor is None else _target(cursor)
        if cursor is None or (target is not None and name != check_target(target)):
            cursor, name = None, await self._next_target(target, None)
        while name is not None:
            stop = cursor or _end(name)
            cursor = None
            while page := await self._page(name, stop):
                for row in page:
                    yield row
                stop = page[-1][0]
            name = await self._next_target(target, name)

    async def _page(self, target: str, stop: str) -> list[Row]:
        return await self._access.read(
            lambda reader: reader.items(
                Space.DEAD, first=f"{target}/", before=stop, limit=_PAGE, newest_first=True
            )
        )

    async def _next_target(self, only: str | None, after: str | None) -> str | None:
        """The target whose letters come after those of another; None: there is none."""
        if only is not None:
            return check_target(only) if after is None else None
        first = "" if after is None else _end(after)
        found = await self._access.read(
            lambda reader: reader.items(Space.DEAD, first=first, limit=1)
        )
        return _target(found[0][0]) if found else None


def _row_of(reader: Reader, run_id: str) -> Row | None:
    key = reader.item(Space.DEAD_RUNS, run_id)
    text = None if key is None else reader.item(Space.DEAD, key)
    return None if key is None or text is None else (key, text)


def _remove_page(group: Transaction, first: str, stop: str) -> int:
    rows = group.database.items(Space.DEAD, first=first, before=stop, limit=_PAGE)
    for key, _ in rows:
        _remove(group, key)
    return len(rows)


def _remove(group: Transaction, key: str) -> None:
    group.put(Space.DEAD, key, None)
    run_id = _run_id(key)
    if group.database.item(Space.DEAD_RUNS, run_id) == key:
        group.put(Space.DEAD_RUNS, run_id, None)


def _target(key: str) -> str:
    return key.partition("/")[0]


def _end(target: str) -> str:
    """The first key after all of a target's: ``0`` is next to ``/``."""
    return f"{target}0"


def _run_id(key: str) -> str:
    return key.rpartition("/")[2]


def _letter(row: Row) -> DeadLetter:
    key, text = row
    return letter_from_fields(_target(key), key, json.loads(text))


def _checked(cursor: str | None) -> str | None:
    if cursor is not None and not _KEY.fullmatch(cursor):
        raise InvalidCursorError(
            f"{ascii(cursor)[:60]} is no cursor of the dead letters; pass DeadLetterPage.cursor"
        )
    return cursor
