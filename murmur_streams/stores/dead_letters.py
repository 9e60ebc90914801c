"""DeadLetterBox: the dead letters of a store; each store reads and writes them in its own way.

The documentation of the methods is here; the stores inherit it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing

from murmur_streams.core.model.commands import Create
from murmur_streams.core.model.errors import DeadLetterNotFoundError, InvalidCursorError
from murmur_streams.core.model.limits import Limits, check_run_id, check_target, new_run_id
from murmur_streams.core.model.run import check_limit
from murmur_streams.core.rules import requests
from murmur_streams.core.rules.decide import Answer
from murmur_streams.core.rules.executions import check_answer

LETTERS_PAGE = 50
"""Read at a time: letters hold inputs, and a page of them must not be too large."""


class DeadLetterBox(ABC):
    """The runs that failed for good; their letters stay until they are requeued or purged.

    Redis stores about the last 10,000 letters of a target in each partition.

    Args:
        limits: sizes of inputs and metadata.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    @abstractmethod
    def _letters(
        self, target: str | None, cursor: str | None, run_id: str | None = None
    ) -> AsyncGenerator[requests.DeadLetter]:
        """Yield the letters after a cursor, in the order of listings; InvalidCursorError.

        With ``run_id`` at least all letters of this run; a store may leave out those of others.
        """

    @abstractmethod
    async def _look_up(self, run_id: str) -> requests.DeadLetter | None:
        """Read the letter that is recorded for the run's present life, if there is one."""

    @abstractmethod
    def _cursor(self, letter: requests.DeadLetter) -> str:
        """Make the cursor after a letter."""

    @abstractmethod
    async def _submit_again(
        self, letter: requests.DeadLetter, new_id: str, command: Create
    ) -> Answer:
        """Submit a run and remove the letter in one step; ("NOT_FOUND",) without the letter."""

    @abstractmethod
    async def _remove(self, letter: requests.DeadLetter) -> int:
        """Remove a letter; how many were removed."""

    @abstractmethod
    async def _purge(self, target: str | None, older_than_ms: int | None) -> int:
        """Remove the letters of a target or of all, and of an age or of any; how many."""

    def _new_id(self, letter: requests.DeadLetter) -> str:  # noqa: ARG002  # of some stores, it decides
        return new_run_id()

    async def list(
        self, target: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> requests.DeadLetterPage:
        """Read dead letters, target by target, the newest first (on Redis, of each partition).

        Args:
            target: only letters of this target.
            limit: 1 to 500.
            cursor: the ``cursor`` of the page before; None for the first page.
        """
        check_limit(limit, requests.MOST_LETTERS)
        letters: list[requests.DeadLetter] = []
        checked = None if target is None else check_target(target)
        async with aclosing(self._letters(checked, cursor)) as found:
            async for letter in found:
                if len(letters) == limit:
                    return requests.DeadLetterPage(tuple(letters), self._cursor(letters[-1]))
                letters.append(letter)
        return requests.DeadLetterPage(tuple(letters), None)

    async def get(self, run_id: str) -> requests.DeadLetter:
        """Read the dead letter of a run.

        One or two look-ups while the run is stored. Otherwise all letters are searched (on Redis,
        those of the run's partition), the newest first.

        Raises:
            DeadLetterNotFoundError: there is none: the run did not die, or its letter was requeued
                or purged.
        """
        letter = await self._look_up(check_run_id(run_id))
        if letter is not None:
            return letter
        # Of all targets: a run that exists again may have a letter of its life before.
        async with aclosing(self._letters(None, None, run_id)) as found:
            async for letter in found:
                if letter.run_id == run_id:
                    return letter
        raise DeadLetterNotFoundError(run_id)

    async def requeue(self, run_id: str) -> str:
        """Submit the run again under a new id, and remove its letter, in one step.

        The new run has the old one's input, tenant, priority and trace, and its deadline's span,
        counted from now.

        Returns:
            The new run's id. Its metadata holds the old one as ``requeued_from``.

        Raises:
            DeadLetterNotFoundError: the letter does not exist, or was taken meanwhile.
        """
        letter = await self.get(run_id)
        new_id = self._new_id(letter)
        command = requests.requeue_command(letter, new_id, self._limits)
        answer = await self._submit_again(letter, new_id, command)
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
            target: only letters of this target.
            older_than_seconds: only of runs that ended longer ago, by the store's clock.
            all: every letter; must be given alone.

        Returns:
            How many letters were removed.

        Raises:
            InvalidInputError: no argument says which letters, or ``all`` comes with another
                argument, or the age is negative or not a number. Nothing is removed.
        """
        requests.check_purge(run_id, target, older_than_seconds, all)
        if run_id is None:
            older_than_ms = None if older_than_seconds is None else round(older_than_seconds * 1000)
            return await self._purge(
                None if target is None else check_target(target), older_than_ms
            )
        try:
            letter = await self.get(run_id)
        except DeadLetterNotFoundError:
            return 0
        return await self._remove(letter)


def invalid_cursor(cursor: str) -> InvalidCursorError:
    """The error for a text that is not a cursor of dead letters."""
    return InvalidCursorError(
        f"{ascii(cursor)[:60]} is not a cursor of the dead letters; pass DeadLetterPage.cursor"
    )
