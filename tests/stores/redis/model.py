"""A small model of one partition: the pure core does what the scripts should do."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from murmur_streams.core.model.commands import (
    Append,
    Checkpoint,
    Command,
    Create,
    Delete,
    Finish,
    NoteSilence,
    PushEvent,
    Reclaim,
    RequestCancel,
    SetResult,
    Start,
)
from murmur_streams.core.model.entries import Fields, JournalEntry
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.decide import Answer, Decision, Now, decide
from murmur_streams.core.rules.evolve import evolve, fold

WAKE_TOKENS = 64
MERGED = (Append, PushEvent)
"""The commands of several callers to one run become one command of a call."""
Group = tuple[str, Sequence[Command]]
"""A run id and what is executed on it together: one command, or several of those."""


@dataclass
class Life:
    """One run while it is there."""

    run: Run
    entries: list[JournalEntry] = field(default_factory=list)
    input: str | None = None
    result: str | None = None
    checkpoint: str | None = None


@dataclass
class Record:
    """The last call of a producer, and the answers of it and of the call before it."""

    n: int
    answers: list[str]
    earlier: list[str]


@dataclass
class Model:
    """The runs of a partition, and the records of their producers."""

    late_event_ms: int
    caller_ms: int
    max_events: int = 0
    lives: dict[str, Life] = field(default_factory=dict)
    tombstones: dict[str, list[JournalEntry]] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict[str, "Record"])
    """producer -> its last calls."""
    queues: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    leases: dict[str, bool] = field(default_factory=dict)
    """run id -> whether the lease has run out."""
    dead: dict[str, list[dict[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """target -> its letters."""
    controls: dict[str, list[dict[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """worker -> what it was woken with."""
    sweeper: str | None = None
    wakes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    feed: list[tuple[str, str, int, Fields]] = field(default_factory=list)
    """run id, target, seq, fields of every entry."""

    def run(self, run_id: str) -> Run | None:
        life = self.lives.get(run_id)
        return None if life is None else life.run

    def execute(self, groups: Sequence[Group], producer: str, n: int) -> list[str]:
        """Send a numbered call: the producer rule first, then the core; the script's reply."""
        record = self.records.get(producer)
        if record is not None and n == record.n:
            return ["OK", *record.answers]
        if record is not None and n == record.n - 1 and record.earlier:
            return ["OK", *record.earlier]
        if record is not None and n < record.n:
            return ["DROPPED"]
        answers = [self._execute_group(run_id, commands) for run_id, commands in groups]
        is_next = record is not None and n == record.n + 1
        earlier = record.answers if record is not None and is_next else []
        self.records[producer] = Record(n, answers, earlier)
        return ["OK", *answers]

    def _execute_group(self, run_id: str, commands: Sequence[Command]) -> str:
        run = self.run(run_id)
        if run is None or not isinstance(commands[0], MERGED):
            (decision,) = (self._decide(run_id, command, run) for command in commands[:1])
            self._apply(run_id, commands[0], decision)
            return _untimed(decision.answer)
        decisions: list[Decision] = []
        written: list[tuple[int, Run]] = []
        for index, command in enumerate(commands):
            decisions.append(self._decide(run_id, command, run, max_events=0))
            if decisions[-1].entries:
                written.append((index, run))
            for entry in decisions[-1].entries:
                run = evolve(run, entry)
        if written:
            # A command has one snapshot at most, after all that it writes.
            index, before = written[-1]
            decisions[index] = self._decide(run_id, commands[index], before)
        for command, decision in zip(commands, decisions, strict=True):
            self._apply(run_id, command, decision)
        return "|".join(_untimed(decision.answer) for decision in decisions)

    def rebuild(self, run_id: str) -> None:
        """Fold the journal: progress that only the hash had is gone."""
        life = self.lives[run_id]
        life.run = fold(life.entries) or life.run
        if life.run.state is RunState.PENDING and life.run.queued:
            self._enqueue(run_id)
        if life.run.claim is not None:
            # A lease that was lost is made anew, and is over at once.
            self.leases.setdefault(run_id, True)

    def heal(self) -> None:
        """Queues and leases were deleted, and are made again from the runs."""
        self.leases.clear()
        for run_id, life in self.lives.items():
            if life.run.state is RunState.PENDING and life.run.queued:
                self._enqueue(run_id)
            if life.run.claim is not None:
                self.leases[run_id] = False

    def claim(
        self,
        start: Start,
        targets: list[str],
        tokens: list[str],
        order: dict[str, list[str]],
        *,
        lost: bool,
    ) -> list[tuple[str, dict[str, str]]]:
        """Pop the queues in the order the server has them; what the script returns for each run."""
        reported: list[tuple[str, dict[str, str]]] = []
        free = list(tokens)
        for run_id in itertools.chain.from_iterable(order[target] for target in targets):
            if not free:
                break
            command = replace(start, claim=free[0])
            decision = self._decide(run_id, command, self.run(run_id))
            self._apply(run_id, command, decision)
            life = self.lives[run_id]
            if decision.dead is not None:
                reported.append(("ended", {"run_id": run_id, "reason": decision.dead}))
                continue
            self.leases[run_id] = lost
            reported.append(("claimed", _claimed(life, free.pop(0))))
        return reported

    def heartbeat(self, beats: list[tuple[str, str]], silent_ms: int, *, lost: bool) -> list[str]:
        """Move leases on; the flat answer of the script."""
        answer = ["OK"]
        for run_id, claim in beats:
            run = self.run(run_id)
            if run is None or run.claim != claim:
                answer += [claim, "lost"]
                continue
            self.leases[run_id] = lost
            if run.cancel_requested is not None:
                answer += [claim, "cancel"]
            elif silent_ms:
                command = NoteSilence(claim, silent_ms)
                decision = self._decide(run_id, command, run)
                self._apply(run_id, command, decision)
                answer += [claim, "silent"] if decision.entries else []
        return answer

    def due(self) -> set[str]:
        """The runs whose lease has run out."""
        return {run_id for run_id, lost in self.leases.items() if lost}

    def reclaim(self, run_ids: list[str]) -> list[str]:
        """Take runs back, in this order; what became of each."""
        fates: list[str] = []
        for run_id in run_ids:
            decision = self._decide(run_id, Reclaim(), self.run(run_id))
            self._apply(run_id, Reclaim(), decision)
            fates.append("queued" if decision.answer == ("OK", "pending") else "ended")
        return fates

    def _decide(
        self, run_id: str, command: Command, run: Run | None, max_events: int | None = None
    ) -> Decision:
        cap = self.max_events if max_events is None else max_events
        now = Now(self.caller_ms, time.time_ns() // 1_000_000, self.late_event_ms, cap)
        return decide(run, run_id, command, now)

    def _apply(self, run_id: str, command: Command, decision: Decision) -> None:
        if decision.progress is not None:
            life = self.lives[run_id]
            life.run = replace(life.run, progress=decision.progress, progress_dirty=True)
        if not decision.entries:
            return
        before = self.run(run_id)
        life = self._life(run_id, command, decision)
        for entry in decision.entries:
            life.run = evolve(life.run, entry)
            self.feed.append((run_id, life.run.target, entry.seq, entry.fields))
        life.entries += decision.entries
        self._keep_payload(life, command, decision)
        if isinstance(command, RequestCancel) and before is not None and before.claim is not None:
            message = {"kind": "cancel", "run": run_id, "claim": before.claim}
            self.controls[before.worker or ""].append(message)
        if isinstance(command, Delete):
            self.tombstones[run_id] = self.lives.pop(run_id).entries
        self._move_rows(run_id, before, life)

    def _keep_payload(self, life: Life, command: Command, decision: Decision) -> None:
        # Parts of a command that the core drops leave no entry.
        reported = {entry.type for entry in decision.entries}
        if isinstance(command, SetResult | Finish) and command.result is not None:
            life.result = command.result.text if "run.result" in reported else life.result
        if isinstance(command, Checkpoint):
            life.checkpoint = command.value.text
        if decision.dead is not None:
            self.dead[life.run.target].append(_letter(life, decision.dead))

    def _move_rows(self, run_id: str, before: Run | None, life: Life) -> None:
        run = life.run
        waits = run.state is RunState.PENDING and run_id in self.lives
        if run.claim is None or run_id not in self.lives:
            self.leases.pop(run_id, None)
        if not waits:
            self.queues[run.target].discard(run_id)
        elif run.queued and (before is None or before.state is not RunState.PENDING):
            self._enqueue(run_id)

    def _life(self, run_id: str, command: Command, decision: Decision) -> Life:
        if isinstance(command, Create):
            self.tombstones.pop(run_id, None)
            run = evolve(None, decision.entries[0])
            given = None if command.input is None else command.input.text
            self.lives[run_id] = Life(replace(run, version=0), [], given)
        return self.lives[run_id]

    def _enqueue(self, run_id: str) -> None:
        target = self.lives[run_id].run.target
        self.queues[target].add(run_id)
        self.wakes[target] = min(WAKE_TOKENS, self.wakes[target] + 1)


def _untimed(answer: Answer) -> str:
    return "WAIT" if answer[0] == "WAIT" else " ".join(answer)


def _claimed(life: Life, claim: str) -> dict[str, str]:
    run = life.run
    deadline = None if run.deadline_ms is None else str(run.deadline_ms)
    reported = {
        "run_id": run.run_id,
        "target": run.target,
        "attempt": str(run.attempt),
        "claim": claim,
        "version": str(run.version),
        "failures": str(run.failures),
        "excused": str(run.excused),
        "input": life.input,
        "checkpoint": life.checkpoint,
        "deadline_ms": deadline,
        **run.trace,
    }
    return {name: text for name, text in reported.items() if text is not None}


def _letter(life: Life, reason: str) -> dict[str, str]:
    run = life.run
    reported = {
        "run_id": run.run_id,
        "reason": reason,
        "attempts": str(run.attempt),
        "failures": str(run.failures),
        "error": run.error,
        "errors": run.errors,
        "input": life.input,
        "metadata_json": run.metadata_json,
        "tenant": run.tenant,
        "priority": str(run.priority) if run.priority else None,
        "deadline_span": None if run.deadline_span_ms is None else str(run.deadline_span_ms),
        **run.trace,
    }
    return {name: text for name, text in reported.items() if text is not None}
