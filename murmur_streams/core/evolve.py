"""``evolve(run, entry) -> run``: the one fold from which every hash can be rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from murmur_streams.core.entries import EntryType, JournalEntry
from murmur_streams.core.events import RunEventType, is_closing
from murmur_streams.core.run import Run, run_from_fields
from murmur_streams.core.states import RunProgress, RunState


def evolve(run: Run | None, entry: JournalEntry) -> Run:
    """Fold one entry into the run's state.

    Raises:
        ValueError: the journal does not begin with ``run.created``.
    """
    if run is None:
        begin = _BEGINNINGS.get(entry.type)
        if begin is None:
            raise ValueError(f"a fold begins with run.created or run.snapshot, not {entry.type}")
        run = begin(entry)
    else:
        run = _LIFECYCLE.get(entry.type, _event)(run, entry)
    if entry.is_seal:
        run = replace(run, seal=entry.seq)
    return replace(run, version=entry.seq, last_ms=entry.ms)


def fold(entries: Iterable[JournalEntry]) -> Run | None:
    """Fold a journal; None when it is empty.

    One that was trimmed is folded from its oldest kept snapshot on.
    """
    run: Run | None = None
    for entry in entries:
        if run is not None or entry.type in _BEGINNINGS:
            run = evolve(run, entry)
    return run


def _created(entry: JournalEntry) -> Run:
    fields = entry.fields
    return Run(
        run_id=entry.run_id,
        target=fields["target"],
        epoch=fields["epoch"],
        created_ms=entry.ms,
        input_size=_int(fields.get("input_size")),
        input_sha256=fields.get("input_sha256"),
        metadata_json=fields.get("metadata_json"),
    )


def _from_snapshot(entry: JournalEntry) -> Run:
    run = run_from_fields(entry.run_id, entry.fields)
    return replace(run, snapshot=entry.seq)


def _snapshot(run: Run, entry: JournalEntry) -> Run:
    return replace(run, snapshot=entry.seq)


def _state(run: Run, entry: JournalEntry) -> Run:
    fields = entry.fields
    state = RunState(fields["state"])
    if state is RunState.RUNNING:
        return replace(
            run,
            state=state,
            started_ms=run.started_ms if run.started_ms is not None else entry.ms,
            attempt=_int(fields.get("attempt")) or run.attempt,
            claim=fields.get("claim"),
            worker=fields.get("worker") or run.worker,
        )
    run = replace(run, state=state, claim=None)
    if state.is_terminal:
        return replace(run, ended_ms=int(fields["at"]), error=fields.get("error"))
    return run


def _progress(run: Run, entry: JournalEntry) -> Run:
    fields = entry.fields
    progress = RunProgress(
        total=int(fields["total"]),
        completed=int(fields["completed"]),
        failed=int(fields["failed"]),
        running=int(fields["running"]),
    )
    return replace(run, progress=progress, progress_ms=int(fields["at"]), progress_dirty=False)


def _result(run: Run, entry: JournalEntry) -> Run:
    return replace(run, result_size=int(entry.fields["size"]), result_sha256=entry.fields["sha256"])


def _event(run: Run, entry: JournalEntry) -> Run:
    if entry.is_late:
        return run
    if run.closing is None and is_closing(entry.type, entry.fields.get("agent"), run.target):
        return replace(run, closing=entry.seq)
    if run.cancel_event is None and entry.type == RunEventType.RUN_CANCELLED:
        return replace(run, cancel_event=entry.seq)
    return run


def _unchanged(run: Run, entry: JournalEntry) -> Run:
    del entry
    return run


_LIFECYCLE: dict[str, Callable[[Run, JournalEntry], Run]] = {
    EntryType.STATE: _state,
    EntryType.PROGRESS: _progress,
    EntryType.RESULT: _result,
    EntryType.SEALED: _unchanged,
    EntryType.SNAPSHOT: _snapshot,
    EntryType.DELETED: _unchanged,
}

_BEGINNINGS: dict[str, Callable[[JournalEntry], Run]] = {
    EntryType.CREATED: _created,
    EntryType.SNAPSHOT: _from_snapshot,
}


def _int(text: str | None) -> int | None:
    return int(text) if text else None
