"""``evolve(run, entry) -> run``: the fold from which every stored run can be rebuilt.

And how far a request to cancel a run has come, read from the run and its journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from murmur_streams.core.model.commands import CREATED_TEXTS
from murmur_streams.core.model.entries import EntryType, Fields, JournalEntry
from murmur_streams.core.model.events import RunEventType, is_closing
from murmur_streams.core.model.run import Run, changed, moment_of, run_from_fields
from murmur_streams.core.model.states import PROGRESS_FIELDS, RunProgress, RunState

FAILED = "failed"
"""The reason in the journal for a run that is pending again after a failed execution."""
EXCUSED = frozenset({"worker_stopped", "retry_later"})
"""The reasons of executions that do not count against the most attempts."""
ERRORS_BYTES = 4_000
"""A failure's text is recorded while the texts before it are shorter than this."""


def evolve(run: Run | None, entry: JournalEntry) -> Run:
    """Fold one entry into the run's state.

    Raises:
        ValueError: the journal begins neither with ``run.created`` nor with ``run.snapshot``.
    """
    if run is None:
        begin = _BEGINNINGS.get(entry.type)
        if begin is None:
            raise ValueError(f"a fold begins with run.created or run.snapshot, not {entry.type}")
        run = begin(entry)
    else:
        run = _LIFECYCLE.get(entry.type, _event)(run, entry)
    seal = entry.seq if entry.is_seal else run.seal
    return changed(run, version=entry.seq, last_ms=entry.ms, seal=seal)


def fold(entries: Iterable[JournalEntry]) -> Run | None:
    """Fold a journal; None when it is empty.

    A trimmed journal is folded from the oldest snapshot that it still has.
    """
    run: Run | None = None
    for entry in entries:
        if run is not None or entry.type in _BEGINNINGS:
            run = evolve(run, entry)
    return run


_BLANK = Run("", "", "")
_CREATED_TEXTS = frozenset({*CREATED_TEXTS, "input_sha256"})
_CREATED_NUMBERS = {
    "input_size": "input_size",
    "priority": "priority",
    "due": "due_ms",
    "deadline": "deadline_ms",
    "deadline_span": "deadline_span_ms",
}
"""By the name in the entry: the name in the run."""


def _created(entry: JournalEntry) -> Run:
    fields = entry.fields
    values: dict[str, Any] = {
        "run_id": entry.run_id,
        "target": fields["target"],
        "epoch": fields["epoch"],
        "created_ms": entry.ms,
        "queued": fields.get("queued") == "1",
    }
    # This loops over the entry's fields, of which most have few, not over all that a run may have.
    for name, text in fields.items():
        if name in _CREATED_TEXTS:
            values[name] = text
        elif text and name in _CREATED_NUMBERS:
            values[_CREATED_NUMBERS[name]] = int(text)
    return changed(_BLANK, **values)


def _state(run: Run, entry: JournalEntry) -> Run:
    fields = entry.fields
    state = RunState(fields["state"])
    if state is RunState.RUNNING:
        claim = fields.get("claim")
        return changed(
            run,
            state=state,
            started_ms=run.started_ms if run.started_ms is not None else entry.ms,
            attempt=_int(fields.get("attempt")) or run.attempt,
            claim=claim,
            worker=fields.get("worker") or run.worker,
            host=fields.get("host") or run.host,
            # Only queued runs are claimed, so a claim shows that the run was queued.
            queued=run.queued or claim is not None,
        )
    run = changed(run, state=state, claim=None)
    if state is RunState.PENDING:
        return _pending_again(run, fields)
    run = changed(run, ended_ms=int(fields["at"]), error=fields.get("error"))
    if state is RunState.FAILED and "attempt" in fields:
        return _with_error(changed(run, failures=run.failures + 1), fields.get("error"))
    return run


def _pending_again(run: Run, fields: Fields) -> Run:
    reason = fields.get("reason")
    failed = _with_error(run, fields.get("error")) if reason == FAILED else run
    return changed(
        failed,
        failures=run.failures + (reason == FAILED),
        excused=run.excused + (reason in EXCUSED),
        due_ms=_int(fields.get("due")) or run.due_ms,
    )


def _with_error(run: Run, error: str | None) -> Run:
    before = run.errors or ""
    if error is None or len(before.encode()) >= ERRORS_BYTES:
        return run
    line = f"{run.attempt} " + error.replace("\n", " ")
    return changed(run, errors=f"{before}\n{line}" if before else line)


def _cancel_requested(run: Run, entry: JournalEntry) -> Run:
    fields = entry.fields
    return changed(run, cancel_requested=int(fields["at"]), cancel_reason=fields.get("reason"))


def _payload(what: str) -> Callable[[Run, JournalEntry], Run]:
    size_field, sha256_field = f"{what}_size", f"{what}_sha256"

    def fold_payload(run: Run, entry: JournalEntry) -> Run:
        size, sha256 = int(entry.fields["size"]), entry.fields["sha256"]
        return changed(run, **{size_field: size, sha256_field: sha256})

    return fold_payload


def _progress(run: Run, entry: JournalEntry) -> Run:
    fields = entry.fields
    progress = RunProgress(**{name: int(fields[name]) for name in PROGRESS_FIELDS})
    return changed(run, progress=progress, progress_ms=int(fields["at"]), progress_dirty=False)


def _event(run: Run, entry: JournalEntry) -> Run:
    if entry.is_late:
        return run
    kind = entry.type
    if run.closing is None and is_closing(kind, entry.fields.get("agent"), run.target):
        return changed(run, closing=entry.seq)
    if run.cancel_event is None and kind == RunEventType.RUN_CANCELLED:
        return changed(run, cancel_event=entry.seq)
    return run


_LIFECYCLE: dict[str, Callable[[Run, JournalEntry], Run]] = {
    EntryType.STATE: _state,
    EntryType.PROGRESS: _progress,
    EntryType.RESULT: _payload("result"),
    EntryType.CHECKPOINT: _payload("checkpoint"),
    EntryType.SEALED: lambda run, _: run,
    EntryType.DELETED: lambda run, _: run,
    EntryType.SNAPSHOT: lambda run, entry: changed(run, snapshot=entry.seq),
    EntryType.SILENT: lambda run, entry: changed(run, silent=entry.seq),
    EntryType.CANCEL_REQUESTED: _cancel_requested,
    EntryType.CANCEL_DELIVERED: lambda run, entry: changed(
        run, cancel_delivered=int(entry.fields["at"])
    ),
}

_BEGINNINGS: dict[str, Callable[[JournalEntry], Run]] = {
    EntryType.CREATED: _created,
    EntryType.SNAPSHOT: lambda entry: changed(
        run_from_fields(entry.run_id, entry.fields), snapshot=entry.seq
    ),
}


def _int(text: str | None) -> int | None:
    return int(text) if text else None


CANCEL_ENTRY_TYPES = {EntryType.CANCEL_REQUESTED, EntryType.CANCEL_DELIVERED, EntryType.STATE}
"""The types of the entries that record the steps of a cancel."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """How far a cancel has come. Times are UTC, by the server's clock."""

    state: RunState
    """The run's state. ``running``: the handler is being notified, the run will end cancelled."""
    requested: datetime | None = None
    """When the cancel was first requested; None when the run had ended before."""
    delivered: datetime | None = None
    """When a worker last delivered it to a handler; None while none has, or when no handler ran."""
    stopped: datetime | None = None
    """When the run ended cancelled; None when it has not, or ended otherwise."""
    how: str | None = None
    """How the run stopped: ``handler`` (the handler ended), ``grace`` (it did not end within its
    grace time and was abandoned), ``pending`` (it never ran), ``worker_lost``. None when the run
    has not stopped, or the reason was not recorded."""


def recorded_cancellation(run: Run) -> Cancellation:
    """The part that is stored in the run itself."""
    ended = run.ended_ms if run.state is RunState.CANCELLED else None
    return Cancellation(
        run.state,
        moment_of(run.cancel_requested),
        moment_of(run.cancel_delivered),
        moment_of(ended),
    )


def cancellation_after(entries: Iterable[JournalEntry], before: Cancellation) -> Cancellation:
    """A cancellation as it stands after further entries of the journal."""
    found = before
    for entry in entries:
        at = moment_of(int(entry.fields.get("at") or entry.ms))
        if entry.type == EntryType.CANCEL_REQUESTED:
            found = replace(found, requested=at)
        elif entry.type == EntryType.CANCEL_DELIVERED:
            found = replace(found, delivered=at)
        elif entry.type == EntryType.STATE:
            found = replace(found, state=RunState(entry.fields["state"]))
            if found.state is RunState.CANCELLED:
                found = replace(found, stopped=at, how=entry.fields.get("stopped"))
    return found
