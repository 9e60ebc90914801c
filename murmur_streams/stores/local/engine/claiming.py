"""How workers get runs: signals wake them, and a claim chooses the next ones and starts each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from murmur_streams.core.model.commands import Start
from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.run import PayloadKind, Run
from murmur_streams.core.model.work import Claim, Claimed, ControlMessage, TargetRule
from murmur_streams.stores.local.engine.database import Reader, Space
from murmur_streams.stores.local.engine.transaction import Transaction, Written

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


LOOKED_AT, MOVED = 500, 100
"""The most waiting and the most delayed runs that one claim handles: other writes wait for it."""


def idle_until(reader: Reader, rules: Sequence[TargetRule], now_ms: int) -> Claimed | None:
    """The answer of a claim that finds no work, made without a write; None when there is work.

    Idle workers thus do not take the file's write lock.
    """
    due: list[int] = []
    for rule in rules:
        if reader.item(Space.PAUSED, rule.name) is None:
            if reader.queue(rule.name, is_ready=True, limit=1):
                return None
            due += [due_ms for due_ms, _ in reader.queue(rule.name, is_ready=False, limit=1)]
    if not due:
        return Claimed([], None)
    return None if min(due) <= now_ms else Claimed([], (min(due) - now_ms) / 1000)


@dataclass(slots=True)
class Claiming:
    """One claim of a worker.

    Args:
        group: a group of its own: other calls in it could change the rows that this one reads.
        worker: the worker that claims.
        host: where it runs; None when that is unknown.
        tokens: the fencing tokens of the claims, one for each that is wanted.
        lease_ms: how long they hold without a heartbeat.
    """

    group: Transaction
    worker: str
    host: str | None
    tokens: Sequence[str]
    lease_ms: int
    claims: list[Claim] = field(default_factory=list[Claim])
    refused: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Runs that ended on the way, and why."""
    _seen: set[str] = field(default_factory=set[str])
    _due_ms: list[int] = field(default_factory=list[int])
    """When the first delayed run of each target is due."""

    def serve(self, rules: Sequence[TargetRule]) -> Claimed:
        """Take runs of each target in order; paused targets are passed over."""
        for rule in rules:
            if self.group.database.item(Space.PAUSED, rule.name) is None:
                self._serve(rule)
        if self._is_over and self._wants_more:
            return Claimed(self.claims, 0.0)
        if not self._due_ms:
            return Claimed(self.claims, None)
        return Claimed(self.claims, max(0, min(self._due_ms) - self.group.now_ms) / 1000)

    @property
    def _wants_more(self) -> bool:
        return len(self.claims) < len(self.tokens)

    @property
    def _is_over(self) -> bool:
        return len(self._seen) >= LOOKED_AT

    def _serve(self, rule: TargetRule) -> None:
        self.group.promote_due(rule.name, MOVED)
        # Runs that end here are replaced by the next ones, which they would hide otherwise.
        while self._wants_more and not self._is_over:
            run_ids = self._next_ready(rule.name, len(self.tokens) - len(self.claims))
            if not run_ids:
                break
            for run_id in run_ids:
                self._seen.add(run_id)
                try:
                    self._take(run_id, rule)
                except RunDamagedError:
                    # On a local store it stays in its queue until an operator repairs it.
                    self.refused.append((run_id, "it is damaged"))
        changed = self.group.changes.runs
        rows = self.group.database.queue(rule.name, is_ready=False, limit=len(changed) + 1)
        self._due_ms += [due_ms for due_ms, run_id in rows if run_id not in changed][:1]

    def _take(self, run_id: str, rule: TargetRule) -> None:
        token = self.tokens[len(self.claims)]
        start = Start(self.worker, token, self.host, rule.max_attempts)
        decision = self.group.perform(run_id, start)
        stored = self.group.stored(run_id)
        if stored is None or stored.run.claim != token:
            self.refused.append((run_id, decision.dead or " ".join(decision.answer)))
            return
        now_ms = self.group.now_ms
        self.group.lease(run_id, now_ms + self.lease_ms)
        self.claims.append(self._claim(stored.run, token, now_ms))

    def _claim(self, run: Run, token: str, now_ms: int) -> Claim:
        deadline_ms, database = run.deadline_ms, self.group.database
        return Claim(
            run_id=run.run_id,
            target=run.target,
            attempt=run.attempt,
            token=token,
            version=run.version,
            input_json=database.payload(run.run_id, PayloadKind.INPUT),
            failures=run.failures,
            excused=run.excused,
            deadline_ms=deadline_ms,
            checkpoint_json=database.payload(run.run_id, PayloadKind.CHECKPOINT),
            trace=run.trace,
            deadline_left_seconds=None if deadline_ms is None else (deadline_ms - now_ms) / 1000,
        )

    def _next_ready(self, target: str, wanted: int) -> list[str]:
        """The first ready runs as the group has left them, of those not looked at yet."""
        changed = self.group.changes.runs
        limit = wanted + len(changed) + len(self._seen)
        rows = self.group.database.queue(target, is_ready=True, limit=limit)
        found = [row for row in rows if row[1] not in changed]
        for run_id, change in changed.items():
            after = change.after
            queue = None if after is None or after.run.target != target else after.queue
            if queue is not None and queue.is_ready:
                found.append((queue.score, run_id))
        return [run_id for _, run_id in sorted(found) if run_id not in self._seen][:wanted]
