"""Wakes the workers of this process: for queued runs, and with messages about their claims."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress

from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.work import ControlMessage
from murmur_streams.stores.local.engine.transaction import Written

MOST_MESSAGES = 1_000
"""A worker that does not listen gets the rest with its heartbeats."""


class Signals:
    """Hints that follow a commit; a worker that misses one finds the rows a little later.

    Args:
        moved: called when ``waiting`` may have changed.
    """

    def __init__(self, moved: Callable[[], None]) -> None:
        self._moved = moved
        self._queued: dict[asyncio.Event, frozenset[str]] = {}
        """The waiting workers, and for which targets each waits."""
        self._missed: set[str] = set()
        """Targets that got a run while no worker waited for one."""
        self._missed_a_look = False
        """Whether another process wrote while no worker waited."""
        self._messages: dict[str, deque[tuple[int, ControlMessage]]] = {}
        """By worker of this process."""
        self._listening: dict[str, asyncio.Event] = {}
        self._n = 0
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many workers wait for queued runs."""
        return len(self._queued)

    def close(self) -> None:
        """Wake all waiting calls, and let later ones return at once."""
        self._is_closed = True
        self.look()
        for event in self._listening.values():
            event.set()

    def notify(self, written: Collection[Written]) -> None:
        """Wake the workers that a write concerns."""
        for each in written:
            after = each.after
            if after is None:
                continue
            known = None if each.before is None else each.before.queue
            if after.queue is not None and after.queue != known:
                self._wake(after.run.target)
            if after.run.claim is not None and any(
                entry.type == EntryType.CANCEL_REQUESTED for entry in each.entries
            ):
                message = ControlMessage("cancel", each.run_id, after.run.claim)
                self._send(after.run.worker or "", message)

    def look(self) -> None:
        """Let all workers look at the queues: another process wrote."""
        self._missed_a_look = not self._queued
        for event in self._queued:
            event.set()

    async def queued(self, targets: Collection[str], seconds: float) -> None:
        """Wait until a run of these targets is queued, at most ``seconds``; may be early."""
        wanted = frozenset(targets)
        if self._missed & wanted or self._missed_a_look:
            # A run was queued between this worker's last claim and this wait.
            self._missed -= wanted
            self._missed_a_look = False
            return
        event = asyncio.Event()
        self._queued[event] = wanted
        self._moved()
        try:
            await self._until(event, seconds)
        finally:
            self._queued.pop(event, None)
            self._moved()

    def listen(self, worker: str) -> deque[tuple[int, ControlMessage]]:
        """Keep messages for a worker of this process from now on, until ``forget``."""
        return self._messages.setdefault(worker, deque(maxlen=MOST_MESSAGES))

    async def messages(
        self, worker: str, after: int, seconds: float
    ) -> tuple[list[ControlMessage], int]:
        """Wait for messages to a worker that come after the one with this number.

        Returns:
            The messages, and the number to pass as ``after``.
        """
        stored = self.listen(worker)
        if not (stored and stored[-1][0] > after):
            event = self._listening.setdefault(worker, asyncio.Event())
            event.clear()
            await self._until(event, seconds)
        found = [(n, message) for n, message in stored if n > after]
        return [message for _, message in found], found[-1][0] if found else after

    def forget(self, worker: str) -> None:
        """Drop the messages of a worker that has stopped."""
        self._messages.pop(worker, None)
        self._listening.pop(worker, None)

    def _wake(self, target: str) -> None:
        waiting = [event for event, targets in self._queued.items() if target in targets]
        for event in waiting:
            event.set()
        if not waiting:
            self._missed.add(target)

    def _send(self, worker: str, message: ControlMessage) -> None:
        if worker not in self._messages:
            # A worker of another process: it learns of the cancel with its next heartbeat.
            return
        self._n += 1
        self._messages[worker].append((self._n, message))
        if worker in self._listening:
            self._listening[worker].set()

    async def _until(self, event: asyncio.Event, seconds: float) -> None:
        if not self._is_closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
