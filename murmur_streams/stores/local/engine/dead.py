"""The dead letters of a local store; a key is ``<target>/<ms, 13 digits>/<run id>``."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable

from murmur_streams.core.model.commands import Create
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.rules.decide import Answer
from murmur_streams.core.rules.requests import DeadLetter, letter_from_fields
from murmur_streams.stores.dead_letters import LETTERS_PAGE, DeadLetterBox, invalid_cursor
from murmur_streams.stores.local.engine.access import Access
from murmur_streams.stores.local.engine.database import ItemRange, Reader, Space
from murmur_streams.stores.local.engine.transaction import Transaction

_KEY = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)/[0-9]{13,}/[A-Za-z0-9][A-Za-z0-9._:-]*")


class LocalDeadLetters(DeadLetterBox):
    """The dead letters of one local store."""

    def __init__(self, access: Access, limits: Limits, clock: Callable[[], int]) -> None:
        super().__init__(limits)
        self._access = access
        self._clock = clock

    def _cursor(self, letter: DeadLetter) -> str:
        return letter.letter_id

    async def _letters(
        self,
        target: str | None,
        cursor: str | None,
        run_id: str | None = None,  # noqa: ARG002  # any letter may be the run's
    ) -> AsyncGenerator[DeadLetter]:
        if cursor is not None and not _KEY.fullmatch(cursor):
            raise invalid_cursor(cursor)
        first = None if cursor is None else _target(cursor)
        if target is not None and first != target:
            cursor = None
        async for name in self._targets(target, first):
            stop, cursor = cursor or _end(name), None
            while page := await self._page(name, stop):
                for key, text in page:
                    yield _letter(key, text)
                stop = page[-1][0]

    async def _look_up(self, run_id: str) -> DeadLetter | None:
        def look(reader: Reader) -> DeadLetter | None:
            key = reader.item(Space.DEAD_RUNS, run_id)
            text = None if key is None else reader.item(Space.DEAD, key)
            return None if key is None or text is None else _letter(key, text)

        return await self._access.read(look)

    async def _submit_again(self, letter: DeadLetter, new_id: str, command: Create) -> Answer:
        def submit(group: Transaction) -> Answer:
            if not _remove(group, letter.letter_id):
                return ("NOT_FOUND",)
            return group.perform(new_id, command).answer

        return await self._access.write_alone(submit)

    async def _remove(self, letter: DeadLetter) -> int:
        return await self._access.write_alone(lambda group: _remove(group, letter.letter_id))

    async def _purge(self, target: str | None, older_than_ms: int | None) -> int:
        before_ms = None if older_than_ms is None else max(0, self._clock() - older_than_ms)
        count = 0
        async for name in self._targets(target):
            first = f"{name}/"
            stop = _end(name) if before_ms is None else f"{first}{before_ms:013d}/"
            while removed := await self._access.write_alone(
                lambda group, first=first, stop=stop: _remove_page(group, first, stop)
            ):
                count += removed
        return count

    async def _targets(self, target: str | None, first: str | None = None) -> AsyncGenerator[str]:
        """One target, or all that have letters, from the first one on."""
        name = target or first or await self._next_target("")
        while name is not None:
            yield name
            name = None if target else await self._next_target(_end(name))

    async def _page(self, target: str, stop: str) -> list[tuple[str, str]]:
        page = ItemRange(Space.DEAD, LETTERS_PAGE, f"{target}/", stop, newest_first=True)
        return await self._access.read(lambda reader: reader.items(page))

    async def _next_target(self, first: str) -> str | None:
        """The target of the first letter from a key on; None after the last."""
        one = ItemRange(Space.DEAD, 1, first)
        found = await self._access.read(lambda reader: reader.items(one))
        return _target(found[0][0]) if found else None


def _remove_page(group: Transaction, first: str, stop: str) -> int:
    rows = group.database.items(ItemRange(Space.DEAD, LETTERS_PAGE, first, stop))
    return sum(_remove(group, key) for key, _ in rows)


def _remove(group: Transaction, key: str) -> int:
    if group.database.item(Space.DEAD, key) is None:
        return 0
    group.put(Space.DEAD, key, None)
    run_id = key.rpartition("/")[2]
    if group.database.item(Space.DEAD_RUNS, run_id) == key:
        group.put(Space.DEAD_RUNS, run_id, None)
    return 1


def _target(key: str) -> str:
    return key.partition("/")[0]


def _end(target: str) -> str:
    """The first key after all of a target's: ``0`` is next to ``/``."""
    return f"{target}0"


def _letter(key: str, text: str) -> DeadLetter:
    return letter_from_fields(_target(key), key, json.loads(text))
