"""The rules of a run in the hands of workers: its executions, their ends, and its cancellation.

- A cancel that was requested is kept: the run never starts (again), and however its worker lets go
  of it, it ends cancelled.
- An execution that was excused (its worker was stopped, it asked to be called later) does not
  count against the most attempts; every other one does, a crash too.
- What fails here goes to the dead letters.
"""

from __future__ import annotations

from dataclasses import replace

from murmur_streams.core.model.commands import (
    Checkpoint,
    DeliverCancel,
    NoteSilence,
    Reclaim,
    Release,
    RequestCancel,
    Start,
)
from murmur_streams.core.model.entries import EntryType, Fields
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.decision import Decision, Now, ended, written
from murmur_streams.core.rules.failure_texts import DEADLINE_TEXT, given_up

ATTEMPTS_EXHAUSTED = "attempts_exhausted"
DEADLINE_EXCEEDED = "deadline_exceeded"
LEASE_EXPIRED = "lease_expired"


def start(run: Run, command: Start, now: Now) -> Decision:
    """Begin an execution, or end a run that had its last one."""
    if run.state is not RunState.PENDING:
        return Decision(("NO", str(run.state)))
    reason = _refusal(run, command, now)
    if reason is not None:
        told, error = {"reason": reason}, _failure_text(reason, run)
        end = ended(run, RunState.FAILED, now, seal=True, error=error, told=told)
        return replace(end, dead=reason)
    attempt = str(run.attempt + 1)
    state = {
        "type": str(EntryType.STATE),
        "state": str(RunState.RUNNING),
        "attempt": attempt,
        "worker": command.worker,
        "claim": command.claim,
    }
    if command.host is not None:
        state["host"] = command.host
    started = {
        "type": str(RunEventType.AGENT_STARTED),
        "agent": run.target,
        "attempt": attempt,
    }
    return written(run, now.server_ms, [state, started])


def _failure_text(reason: str, run: Run) -> str:
    if reason == DEADLINE_EXCEEDED:
        return DEADLINE_TEXT
    return given_up(run.attempt, run.attempt - run.failures - run.excused)


def _refusal(run: Run, command: Start, now: Now) -> str | None:
    if run.deadline_ms is not None and now.server_ms >= run.deadline_ms:
        return DEADLINE_EXCEEDED
    counted = run.attempt - run.excused
    return ATTEMPTS_EXHAUSTED if 0 < command.max_attempts <= counted else None


def release(run: Run, command: Release, now: Now) -> Decision:
    """Hand a run back by its worker."""
    if run.state is not RunState.RUNNING:
        return Decision(("NO", str(run.state)))
    told = {"reason": command.reason}
    if command.delay_ms > 0:
        told["due"] = str(now.server_ms + command.delay_ms)
    if command.error is not None:
        told["error"] = command.error
    return _let_go(run, told, "handler", now)


def reclaim(run: Run, command: Reclaim, now: Now) -> Decision:
    """Take a run from a worker that is gone."""
    del command
    if run.state is not RunState.RUNNING or run.claim is None:
        return Decision(("NO", str(run.state)))
    return _let_go(run, {"reason": LEASE_EXPIRED}, "worker_lost", now)


def _let_go(run: Run, told: dict[str, str], stopped: str, now: Now) -> Decision:
    if run.cancel_requested is not None:
        why = {**execution(run), "stopped": stopped}
        end = ended(run, RunState.CANCELLED, now, seal=True, told=why)
        return replace(end, answer=("OK", str(RunState.CANCELLED)))
    decision = written(run, now.server_ms, [waiting({**told, "attempt": str(run.attempt)})])
    return replace(decision, answer=("OK", str(RunState.PENDING)))


def waiting(told: Fields) -> dict[str, str]:
    """The entry of a run that waits again."""
    return {"type": str(EntryType.STATE), "state": str(RunState.PENDING), **told}


def execution(run: Run) -> dict[str, str]:
    """Which execution of the run it is that something is told of."""
    told = {"attempt": str(run.attempt), "worker": run.worker, "host": run.host}
    return {name: text for name, text in told.items() if text is not None}


def request_cancel(run: Run, command: RequestCancel, now: Now) -> Decision:
    """Ask for a run's end; the answer is its state afterwards."""
    if run.state.is_terminal:
        return Decision(("NO", str(run.state)))
    if run.cancel_requested is not None:
        return Decision(("OK", str(run.state)))
    fields = {"type": str(EntryType.CANCEL_REQUESTED), "attempt": str(run.attempt)}
    if command.host is not None:
        fields["host"] = command.host
    if command.reason is not None:
        fields["reason"] = command.reason
    fields["at"] = str(now.server_ms)
    if run.state is RunState.RUNNING:
        return replace(written(run, now.server_ms, [fields]), answer=("OK", str(run.state)))
    told = {"stopped": "pending"}
    end = ended(run, RunState.CANCELLED, now, seal=True, before=[fields], told=told)
    return replace(end, answer=("OK", str(RunState.CANCELLED)))


def deliver_cancel(run: Run, command: DeliverCancel, now: Now) -> Decision:
    """Note that the request has reached the execution."""
    del command
    if run.cancel_requested is None:
        return Decision(("NO", str(run.state)))
    if run.cancel_delivered is not None:
        return Decision(("OK", str(run.version)))
    fields = {"type": str(EntryType.CANCEL_DELIVERED), **execution(run), "at": str(now.server_ms)}
    return written(run, now.server_ms, [fields])


def checkpoint(run: Run, command: Checkpoint, now: Now) -> Decision:
    """Keep a value."""
    value = command.value
    fields = {
        "type": str(EntryType.CHECKPOINT),
        "attempt": str(run.attempt),
        "size": str(value.size),
        "sha256": value.sha256,
    }
    return written(run, now.caller_ms, [fields])


def note_silence(run: Run, command: NoteSilence, now: Now) -> Decision:
    """Tell of a silence once: what is written later begins another one."""
    silent_ms = now.server_ms - run.last_ms
    if silent_ms <= command.silent_ms or run.silent == run.version:
        return Decision(("NO", str(run.state)))
    fields = {
        "type": str(EntryType.SILENT),
        "attempt": str(run.attempt),
        "worker": run.worker or "",
        "seconds": str(silent_ms // 1000),
    }
    return written(run, now.server_ms, [fields])
