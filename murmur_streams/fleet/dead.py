"""The fleet's dead letters: runs that have failed finally, to be read, requeued or removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from murmur_streams.core.model.dead_letters import DeadLetter, DeadLetterPage
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.handle import RunHandle
from murmur_streams.fleet.stores import StoreOfLoop
from murmur_streams.fleet.unserved import UnservedTargets
from murmur_streams.stores.dead_letters import DeadLetterBox


@dataclass(frozen=True, slots=True)
class DeadRuns:
    """``fleet.dead``. A letter holds everything that a new run needs, and never expires."""

    _stores: StoreOfLoop
    _agents: Mapping[str, Agent]
    _unserved: UnservedTargets

    async def list(
        self, target: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> DeadLetterPage:
        """Read a page of letters, target by target, the newest first.

        Args:
            target: only letters of this agent; None for all.
            limit: 1 to 500.
            cursor: the cursor of the page before; None for the first.
        """
        return await (await self._letters()).list(target, limit=limit, cursor=cursor)

    async def get(self, run_id: str) -> DeadLetter:
        """Read the letter of a run; DeadLetterNotFoundError when there is none."""
        return await (await self._letters()).get(run_id)

    async def requeue(self, run_id: str) -> RunHandle[Any]:
        """Submit the run again as a new one, and remove its letter, in one step.

        The new run's metadata has the old one's id as ``requeued_from``.

        Raises:
            DeadLetterNotFoundError: the letter does not exist, or not any more.
        """
        store = await self._stores.get()
        letters = store.dead_letters()
        target = (await letters.get(run_id)).target
        again = await letters.requeue(run_id)
        look = self._unserved.look(store, target)
        return RunHandle(again, self._stores, self._agents.get(target), look)

    async def purge(
        self,
        *,
        run_id: str | None = None,
        target: str | None = None,
        older_than_seconds: float | None = None,
        all: bool = False,  # noqa: A002  # as the command line's option
    ) -> int:
        """Remove the letters of a run, of an agent, of an age, or all; returns how many.

        Raises:
            InvalidInputError: no selection is passed, or ``all`` together with one.
        """
        letters = await self._letters()
        return await letters.purge(
            run_id=run_id, target=target, older_than_seconds=older_than_seconds, all=all
        )

    async def _letters(self) -> DeadLetterBox:
        return (await self._stores.get()).dead_letters()
