"""What every rule uses: the moment of a command, a decision and its entries, errors of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from murmur_streams.core.model import errors
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
    entries = tuple(
        [
            JournalEntry(run_id, epoch, ms, seq, fields)
            for seq, fields in enumerate(drafts, start=first)
        ]
    )
    return Decision(("OK", str(run.version + len(entries))), entries)


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
