"""What the scripts should do, said by the pure core: a small model of one partition."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field, replace

from murmur_streams.core.commands import (
    Command,
    Create,
    Delete,
    Finish,
    Release,
    Seal,
    SetResult,
    Start,
)
from murmur_streams.core.decide import Answer, Decision, Now, decide
from murmur_streams.core.entries import Fields, JournalEntry
from murmur_streams.core.evolve import evolve
from murmur_streams.core.run import Run

WAKE_TOKENS = 64


@dataclass
class Life:
    """One run while it is there."""

    run: Run
    entries: list[JournalEntry] = field(default_factory=list)
    input: str | None = None
    result: str | None = None


@dataclass
class Model:
    """The runs of a partition and what is kept about them."""

    late_event_ms: int
    caller_ms: int
    lives: dict[str, Life] = field(default_factory=dict)
    tombstones: dict[str, list[JournalEntry]] = field(default_factory=dict)
    producers: dict[str, dict[str, tuple[int, Answer]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    queues: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    leases: dict[str, bool] = field(default_factory=dict)
    """run id -> whether the lease has run out."""
    wakes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    feed: list[tuple[str, str, int, Fields]] = field(default_factory=list)
    """run id, target, seq, fields of every entry."""

    def run(self, run_id: str) -> Run | None:
        life = self.lives.get(run_id)
        return None if life is None else life.run

    def execute(
        self, run_id: str, command: Command, producer: str, n: int, *, enqueue: bool = False
    ) -> Answer:
        """Send a numbered command: the producer rule first, then the core."""
        last, answer = self.producers[run_id].get(producer, (-1, ()))
        if n <= last:
            return answer if n == last else ("DROPPED",)
        decision = self._decide(run_id, command)
        self._apply(run_id, command, decision)
        if isinstance(command, Release) and decision.entries:
            self.leases.pop(run_id, None)
            self._enqueue(run_id)
        if enqueue and decision.entries:
            self._enqueue(run_id)
        if _is_remembered(command, decision):
            self.producers[run_id][producer] = (n, decision.answer)
        return decision.answer

    def claim(
        self,
        worker: str,
        targets: list[str],
        tokens: list[str],
        order: dict[str, list[str]],
        *,
        lost: bool,
    ) -> list[str]:
        """Pop the queues in the order the server has them; the flat answer of the script."""
        answer, free = ["OK"], list(tokens)
        for target in targets:
            for run_id in order[target][: len(free)]:
                self.queues[target].discard(run_id)
                decision = self._decide(run_id, Start(worker, free[0]))
                if not decision.entries:
                    continue
                claim = free.pop(0)
                self._apply(run_id, Start(worker, claim), decision)
                self.leases[run_id] = lost
                life = self.lives[run_id]
                run = life.run
                answer += [run_id, run.target, str(run.attempt), claim, str(run.version)]
                answer.append(life.input or "")
        return answer

    def heartbeat(self, beats: list[tuple[str, str]], *, lost: bool) -> list[str]:
        """Move leases on; the flat answer of the script."""
        answer = ["OK"]
        for run_id, claim in beats:
            run = self.run(run_id)
            if run is not None and run.claim == claim:
                self.leases[run_id] = lost
            else:
                answer.append(claim)
        return answer

    def due(self) -> set[str]:
        """The runs whose lease has run out."""
        return {run_id for run_id, lost in self.leases.items() if lost}

    def reclaim(self, run_ids: list[str]) -> None:
        """Take runs back, in this order."""
        for run_id in run_ids:
            del self.leases[run_id]
            command = Release("lease_expired")
            self._apply(run_id, command, self._decide(run_id, command))
            self._enqueue(run_id)

    def _decide(self, run_id: str, command: Command) -> Decision:
        now = Now(self.caller_ms, time.time_ns() // 1_000_000, self.late_event_ms)
        return decide(self.run(run_id), run_id, command, now)

    def _apply(self, run_id: str, command: Command, decision: Decision) -> None:
        if decision.progress is not None:
            life = self.lives[run_id]
            life.run = replace(life.run, progress=decision.progress, progress_dirty=True)
        if not decision.entries:
            return
        life = self._life(run_id, command, decision)
        for entry in decision.entries:
            life.run = evolve(life.run, entry)
            self.feed.append((run_id, life.run.target, entry.seq, entry.fields))
        life.entries += decision.entries
        if isinstance(command, SetResult | Finish) and command.result is not None:
            life.result = command.result.text
        if isinstance(command, Delete):
            self.tombstones[run_id] = self.lives.pop(run_id).entries
        if isinstance(command, Delete) or life.run.state.is_terminal:
            self.leases.pop(run_id, None)
            self.queues[life.run.target].discard(run_id)

    def _life(self, run_id: str, command: Command, decision: Decision) -> Life:
        if isinstance(command, Create):
            if self.tombstones.pop(run_id, None) is not None:
                self.producers[run_id].clear()
            run = evolve(None, decision.entries[0])
            given = None if command.input is None else command.input.text
            self.lives[run_id] = Life(replace(run, version=0), [], given)
        return self.lives[run_id]

    def _enqueue(self, run_id: str) -> None:
        target = self.lives[run_id].run.target
        self.queues[target].add(run_id)
        self.wakes[target] = min(WAKE_TOKENS, self.wakes[target] + 1)


def _is_remembered(command: Command, decision: Decision) -> bool:
    # What wrote nothing and would say the same again needs no record.
    if decision.answer[0] in {"NOT_FOUND", "EXISTS"}:
        return False
    return bool(decision.entries) or not isinstance(command, Seal)
