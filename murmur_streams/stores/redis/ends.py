"""Waits for the ends of single runs, without their events: each on a connection of its own."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError

from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.replies import text, text_or_none
from murmur_streams.stores.redis.retries import Retries
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.work_store import NoteState

BLOCK_SECONDS = 20.0
"""Bounded, because neither a frozen server nor a deleted key ends a blocking read."""
MOST_WAITS = 16
"""Above this many, following the runs on a connection that all share is cheaper."""
_FIELDS = ("epoch", "state", "target", "last_ms", "version")


class EndWaits:
    """The waits of one store.

    A wait is one round trip for each entry of the run: a read that blocks on the journal, and
    behind it the reads of the state and the result, which the server executes in the moment in
    which the first one ends.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.waits = 0
        """How many are under way."""

    @property
    def is_full(self) -> bool:
        """Whether no more runs should be awaited in this way."""
        return self.waits >= MOST_WAITS

    async def wait(self, run_id: str, note: NoteState) -> str | None:
        """Wait until the run has ended; return the JSON of its result, None without one.

        Raises:
            RunNotFoundError: the run does not exist, or was deleted meanwhile.
        """
        await self._server.ready()
        self.waits += 1
        try:
            return await self._wait(run_id, note)
        finally:
            self.waits -= 1

    async def _wait(self, run_id: str, note: NoteState) -> str | None:
        retries = Retries(self._server, "while the end of a run was awaited")
        epoch, last_id = None, None
        while True:
            try:
                fields, result = await self._look(run_id, last_id)
            except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
                failure = error
            else:
                retries.restart()
                epoch = fields[0] if epoch is None else epoch
                if fields[1] is None or fields[0] != epoch:
                    raise RunNotFoundError(run_id)
                state = RunState(text(fields[1]))
                note(text(fields[2]), state)
                if state.is_terminal:
                    return text_or_none(result)
                # If the journal was lost, the entry that comes next is also behind this one.
                last_id = f"{text(fields[3])}-{text(fields[4])}"
                continue
            await retries.after(failure)
            # The server may be another one now, whose journal ends before the entry.
            last_id = None

    async def _look(self, run_id: str, last_id: str | None) -> list[Any]:
        """Read state and result: at once, or when the journal has an entry after ``last_id``."""
        await self._server.locator.locate(run_id)
        keys, seconds = self._server.keys, 0.0 if last_id is None else BLOCK_SECONDS
        commands: list[tuple[object, ...]] = [
            ("HMGET", keys.run(run_id), *_FIELDS),
            ("GET", keys.result(run_id)),
        ]
        if last_id is not None:
            block = ("BLOCK", round(seconds * 1000))
            commands.insert(
                0, ("XREAD", "COUNT", 1, *block, "STREAMS", keys.journal(run_id), last_id)
            )
        replies = await self._server.blocking_all(*commands, seconds=seconds)
        found: list[Any] = replies or []
        for reply in found:
            if isinstance(reply, RedisError):
                raise reply
        return found[-2:]
