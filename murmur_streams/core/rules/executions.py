"""The rules of a run that workers execute: starts, ends, and cancellation.

- Once a cancel was requested, the run is not started again, and it ends cancelled whichever way its
  execution ends.
- An execution that was excused (its worker was stopped, or the handler asked to be called later)
  does not count against the most attempts. Every other one does, also one that crashed.
- A run that fails by these rules goes to the dead letters.

The decision and its entries, which every rule uses, are here, too. The Lua scripts get the error
texts of runs that end without a handler from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from murmur_streams.core.model import commands, errors
from murmur_streams.core.model.entries import EntryType, Fields, JournalEntry, progress_fields
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunProgress, RunState

Answer = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of a command, in Unix milliseconds by two clocks."""

    caller_ms: int
    server_ms: int
    late_event_ms: int = 2_000
    """For this long after the end a closing event may still come, and seals the run."""
    max_events: int = 0
    """The journal's cap; a snapshot is written after each half of it. 0: no cap."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The effect of a command: an answer, entries to append, and progress for the hash alone."""

    answer: Answer
    entries: tuple[JournalEntry, ...] = ()
    progress: RunProgress | None = None
    dead: str | None = None
    """Why the run goes to its target's dead letters; None when it does not."""


def written(run: Run, ms: int, drafts: Sequence[Fields]) -> Decision:
    """Append entries. Their ms is at least the last entry's, even if the caller's clock is slow."""
    ms = max(ms, run.last_ms)
    run_id, epoch, first = run.run_id, run.epoch, run.version + 1
    entries: list[JournalEntry] = []
    for seq, fields in enumerate(drafts, start=first):
        entries.append(JournalEntry(run_id, epoch, ms, seq, fields))
    return Decision(("OK", str(run.version + len(entries))), tuple(entries))


def ended(
    run: Run,
    state: RunState,
    now: Now,
    *,
    seal: bool,
    before: Sequence[Fields] = (),
    error: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> Decision:
    """End the run.

    Args:
        run: the run.
        state: its terminal state.
        now: the moment.
        seal: whether its stream ends here; a cancellation always seals.
        before: entries to write before the last one.
        error: why it failed.
        extra: more fields of the last entry.
    """
    drafts: list[Fields] = []
    if run.progress_dirty and run.progress is not None:
        drafts.append({**progress_fields(run.progress), "at": str(now.server_ms)})
    drafts.extend(before)
    if state is RunState.CANCELLED:
        has_event = any(fields["type"] == RunEventType.RUN_CANCELLED for fields in drafts)
        if run.cancel_event is None and not has_event:
            drafts.append({"type": str(RunEventType.RUN_CANCELLED)})
        seal = True
    last = {"type": str(EntryType.STATE), "state": str(state), "at": str(now.server_ms)}
    if error is not None:
        last["error"] = error
    if seal:
        last["seal"] = "1"
    drafts.append({**last, **(extra or {})})
    return written(run, now.server_ms, drafts)


def check_answer(answer: Answer, run_id: str, expected_version: int | None = None) -> Answer:
    """Return an answer that is a success, or raise the error that its tag stands for.

    Raises:
        RunNotFoundError, RunExistsError, RunTerminatedError, RunNotTerminalError,
        WrongExpectedVersionError, LeaseLostError: by the answer's tag.
        OutcomeUnknownError: a later call of the same producer was applied first.
    """
    match answer:
        case ("OK" | "NO" | "WAIT", *_):
            return answer
        case ("NOT_FOUND",):
            raise errors.RunNotFoundError(run_id)
        case ("EXISTS",):
            raise errors.RunExistsError(run_id)
        case ("TERMINAL", state):
            raise errors.RunTerminatedError(run_id, state)
        case ("NOT_TERMINAL", state):
            raise errors.RunNotTerminalError(run_id, state)
        case ("WRONG_VERSION", actual):
            raise errors.WrongExpectedVersionError(run_id, expected_version or 0, int(actual))
        case ("FENCED", *_):
            raise errors.LeaseLostError(run_id)
        case _:
            raise errors.OutcomeUnknownError(f"run {run_id!r}: unexpected answer {answer!r}")


DEADLINE_TEXT = "the run did not end before its deadline"
NEGLECTED_TEXT = "it got no write for {seconds} seconds (live_ttl_seconds)"
GIVEN_UP_TEXTS = {
    "one": "given up after 1 attempt",
    "some": "given up after {attempts} attempts",
    "one_lost": "given up after 1 attempt: its lease ran out",
    "all_lost": "given up after {attempts} attempts: the lease of each ran out",
    "some_lost": "given up after {attempts} attempts: the lease of {lost} ran out",
}
"""By how many attempts there were, and of how many the lease ran out."""


def given_up(attempts: int, lost: int) -> str:
    """The error of a run that has used all its attempts.

    Args:
        attempts: how many executions began.
        lost: how many of them neither failed nor were excused: their leases ran out.
    """
    name = "one" if attempts == 1 else "some"
    if lost > 0:
        name = f"{'all' if lost == attempts > 1 else name}_lost"
    return GIVEN_UP_TEXTS[name].format(attempts=attempts, lost=lost)


ATTEMPTS_EXHAUSTED = "attempts_exhausted"
DEADLINE_EXCEEDED = "deadline_exceeded"
LEASE_EXPIRED = "lease_expired"


def start(run: Run, command: commands.Start, now: Now) -> Decision:
    """Begin an execution, or fail a run that has no attempts or no time left."""
    if run.state is not RunState.PENDING:
        return Decision(("NO", str(run.state)))
    reason = _refusal(run, command, now)
    if reason is not None:
        error, extra = _failure_text(reason, run), {"reason": reason}
        end = ended(run, RunState.FAILED, now, seal=True, error=error, extra=extra)
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
    started = {"type": str(RunEventType.AGENT_STARTED), "agent": run.target, "attempt": attempt}
    return written(run, now.server_ms, [state, started])


def _failure_text(reason: str, run: Run) -> str:
    if reason == DEADLINE_EXCEEDED:
        return DEADLINE_TEXT
    return given_up(run.attempt, run.attempt - run.failures - run.excused)


def _refusal(run: Run, command: commands.Start, now: Now) -> str | None:
    if run.deadline_ms is not None and now.server_ms >= run.deadline_ms:
        return DEADLINE_EXCEEDED
    counted = run.attempt - run.excused
    return ATTEMPTS_EXHAUSTED if 0 < command.max_attempts <= counted else None


def release(run: Run, command: commands.Release, now: Now) -> Decision:
    """Take a run back that its worker releases, to be executed again."""
    if run.state is not RunState.RUNNING:
        return Decision(("NO", str(run.state)))
    extra = {"reason": command.reason}
    if command.delay_ms > 0:
        extra["due"] = str(now.server_ms + command.delay_ms)
    if command.error is not None:
        extra["error"] = command.error
    return _requeued(run, extra, "handler", now)


def reclaim(run: Run, command: commands.Reclaim, now: Now) -> Decision:
    """Take a run from a worker whose lease has expired."""
    del command
    if run.state is not RunState.RUNNING or run.claim is None:
        return Decision(("NO", str(run.state)))
    return _requeued(run, {"reason": LEASE_EXPIRED}, "worker_lost", now)


def _requeued(run: Run, extra: Fields, stopped: str, now: Now) -> Decision:
    # The cancel may have been recorded after the worker last looked. Pending again, the run would
    # wait for ever: no start takes a run with a recorded cancel, and no worker would end it.
    if run.cancel_requested is not None:
        why = {**execution_fields(run), "stopped": stopped}
        end = ended(run, RunState.CANCELLED, now, seal=True, extra=why)
        return replace(end, answer=("OK", str(RunState.CANCELLED)))
    fields = {
        "type": str(EntryType.STATE),
        "state": str(RunState.PENDING),
        **extra,
        "attempt": str(run.attempt),
    }
    return replace(written(run, now.server_ms, [fields]), answer=("OK", str(RunState.PENDING)))


def execution_fields(run: Run) -> dict[str, str]:
    """The fields that name the run's current execution in an entry."""
    texts = {"attempt": str(run.attempt), "worker": run.worker, "host": run.host}
    return {name: text for name, text in texts.items() if text is not None}


def request_cancel(run: Run, command: commands.RequestCancel, now: Now) -> Decision:
    """Request that a run ends cancelled; the answer is its state afterwards."""
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
    extra = {"stopped": "pending"}
    end = ended(run, RunState.CANCELLED, now, seal=True, before=[fields], extra=extra)
    return replace(end, answer=("OK", str(RunState.CANCELLED)))


def deliver_cancel(run: Run, command: commands.DeliverCancel, now: Now) -> Decision:
    """Record that the cancel request has reached the execution."""
    del command
    if run.cancel_requested is None:
        return Decision(("NO", str(run.state)))
    if run.cancel_delivered is not None:
        return Decision(("OK", str(run.version)))
    fields = {
        "type": str(EntryType.CANCEL_DELIVERED),
        **execution_fields(run),
        "at": str(now.server_ms),
    }
    return written(run, now.server_ms, [fields])


def checkpoint(run: Run, command: commands.Checkpoint, now: Now) -> Decision:
    """Record a checkpoint for the next execution."""
    fields = {
        "type": str(EntryType.CHECKPOINT),
        "attempt": str(run.attempt),
        **command.value.fields(),
    }
    return written(run, now.caller_ms, [fields])


def note_silence(run: Run, command: commands.NoteSilence, now: Now) -> Decision:
    """Record a silence, once: another one begins only after the execution has written again."""
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
