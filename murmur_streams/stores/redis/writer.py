"""Writes that are applied once: numbered per producer, and one in flight per run.

Each is retried with the same number until the server's answer is known or time is over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from murmur_streams.core.decide import Answer
from murmur_streams.core.errors import OutcomeUnknownError, StoreClosedError
from murmur_streams.stores.redis.failures import Fate, clear_error, fate_of
from murmur_streams.stores.redis.server import Server, is_cancelled, reason_of

logger = logging.getLogger("murmur_streams.redis")

Arguments = Sequence[str | int]


@dataclass(slots=True)
class _Turn:
    """Whose turn it is to write to one run."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Writer:
    """Sends the numbered writes of one store.

    Guarantee: a call that returns was applied exactly once, and calls of one store to one run are
    applied in the order in which they were made. A call that raises OutcomeUnknownError was
    applied once or not at all, and never later than its successor. A cancelled caller leaves its
    call to finish on its own.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._producer, self._pid = _new_producer(), os.getpid()
        self._n = 0
        self._turns: dict[str, _Turn] = {}
        self._under_way: set[asyncio.Task[Answer]] = set()
        self._closed = False

    async def write(
        self,
        name: str,
        run_id: str,
        keys: list[str],
        now_ms: int,
        shared: Arguments,
        own: Arguments,
    ) -> Answer:
        """Execute a script for a run, exactly once.

        Args:
            name: the script.
            run_id: the run that it changes.
            keys: its KEYS.
            now_ms: the caller's clock, Unix milliseconds.
            shared: ARGV 5 and on that every write has.
            own: the script's own ARGV.

        Raises:
            StoreUnavailableError: the server was never reached; nothing was written.
            OutcomeUnknownError: the connection broke, and retries ran out or the store was closed.
            StoreError: the server refused the write; nothing was written.
        """
        if self._closed:
            raise StoreClosedError("the store is closed; open a new one")
        task = asyncio.create_task(
            self._in_turn(name, run_id, keys, [now_ms, *shared, *own]), name=f"{name} {run_id}"
        )
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._closed and task.cancelled() and not is_cancelled():
                raise OutcomeUnknownError(
                    f"the store was closed before the {name} of run {run_id!r} was answered; "
                    "it was applied once or not at all: read the run to know"
                ) from None
            raise

    async def close(self, seconds: float) -> None:
        """Take no more calls; let those under way finish, for at most ``seconds``, then cancel."""
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _finished(self, task: asyncio.Task[Answer]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Retrieved here, so that a cancelled caller's failure is told once, in the log.
            logger.debug("%s ended with %r", task.get_name(), task.exception())

    async def _in_turn(
        self, name: str, run_id: str, keys: list[str], args: list[str | int]
    ) -> Answer:
        turn = self._turns.setdefault(run_id, _Turn())
        turn.waiting += 1
        try:
            async with turn.lock:
                await self._server.ready()
                return await self._until_known(name, keys, [run_id, *self._number(), *args])
        finally:
            turn.waiting -= 1
            if turn.waiting == 0:
                self._turns.pop(run_id, None)

    def _number(self) -> tuple[str, int]:
        if os.getpid() != self._pid:
            # A forked child shares our memory; with our name its numbers would collide with ours.
            self._producer, self._pid = _new_producer(), os.getpid()
        self._n += 1
        return self._producer, self._n

    async def _until_known(self, name: str, keys: list[str], args: list[str | int]) -> Answer:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._server.retry_seconds
        attempt, maybe_applied = 0, False
        while True:
            try:
                return await self._server.script(name, keys, args)
            except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
                reason = reason_of(error)
                # A NeverSentError has a fate of its own: whatever its reason, nothing was applied.
                maybe_applied |= fate_of(error) is Fate.UNKNOWN
            if fate_of(reason) is Fate.REFUSED and not maybe_applied:
                raise clear_error(reason, self._server.where) from None
            if loop.time() >= give_up or self._server.closed:
                raise self._lost(name, args[0], maybe_applied, reason) from None
            logger.debug("%s failed, trying again with the same number: %r", name, reason)
            await self._server.recover(attempt)
            attempt += 1

    def _lost(
        self, name: str, run_id: object, maybe_applied: bool, reason: BaseException
    ) -> Exception:
        if not maybe_applied:
            return self._server.unavailable(reason)
        said = str(reason) or type(reason).__name__
        return OutcomeUnknownError(
            f"the {name} of run {run_id!r} was sent to {self._server.where}, but no answer came "
            f"back ({said}); it was applied once or not at all: read the run to know"
        )


def _new_producer() -> str:
    return secrets.token_hex(8)
