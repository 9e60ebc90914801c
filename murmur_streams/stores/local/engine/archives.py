"""Reads a run whole from a database: for audits, and to move it to another store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, RunNotFoundError, StoreError
from murmur_streams.core.model.run import PayloadKind, run_to_fields
from murmur_streams.core.rules.audit import AuditReport, audit_run
from murmur_streams.stores.local.engine.bookkeeping import is_due, keeping_problems
from murmur_streams.stores.local.engine.database import Reader, Stored

T = TypeVar("T")

PAGE = 500
TRIES = 20
"""How often a run is read again because it was written to meanwhile."""


class ReadCall(Protocol):
    """Calls something with a reader, in the reader's thread."""

    async def __call__(self, call: Callable[[Reader], T]) -> T:
        """Return what the call returned."""
        ...


@dataclass(frozen=True, slots=True)
class _Whole:
    stored: Stored
    entries: list[JournalEntry]
    payloads: dict[PayloadKind, str | None]


async def gather_audit(read: ReadCall, run_id: str, clock: Callable[[], int]) -> AuditReport:
    """Compare what is stored of a run with the fold of its journal.

    Raises:
        RunNotFoundError: the run does not exist.
        StoreError: its result or checkpoint was written again and again while it was read.
    """
    try:
        whole = await _gather(read, run_id, clock)
    except RunDamagedError as error:
        return AuditReport(run_id, 0, (str(error),))
    report = audit_run(
        run_id,
        run_to_fields(whole.stored.run),
        whole.entries,
        whole.payloads[PayloadKind.INPUT],
        whole.payloads[PayloadKind.RESULT],
        whole.payloads[PayloadKind.CHECKPOINT],
    )
    problems = (*report.problems, *keeping_problems(whole.stored))
    return AuditReport(run_id, report.entries, problems, report.notes)


async def gather_archive(read: ReadCall, run_id: str, clock: Callable[[], int]) -> RunArchive:
    """Read a run whole.

    Raises:
        RunNotFoundError: the run does not exist.
        StoreError: its result or checkpoint was written again and again while it was read.
    """
    whole = await _gather(read, run_id, clock)
    return RunArchive(
        run_id,
        whole.stored.run.epoch,
        tuple(whole.entries),
        whole.payloads[PayloadKind.INPUT],
        whole.payloads[PayloadKind.RESULT],
        whole.payloads[PayloadKind.CHECKPOINT],
    )


async def _gather(read: ReadCall, run_id: str, clock: Callable[[], int]) -> _Whole:
    for _ in range(TRIES):
        whole = await read(lambda reader: _read_whole(reader, run_id, clock()))
        if whole is not None:
            return whole
    raise StoreError(f"run {run_id!r} was written to all the while; try again")


def _read_whole(reader: Reader, run_id: str, now_ms: int) -> _Whole | None:
    """Everything that is stored of a run; None when a payload was written meanwhile."""
    stored = reader.stored(run_id)
    if stored is None or is_due(stored, now_ms):
        raise RunNotFoundError(run_id)
    entries: list[JournalEntry] = []
    while page := reader.journal(run_id, entries[-1].seq if entries else 0, PAGE):
        entries += page[1]
        if len(page[1]) < PAGE:
            break
    payloads = {kind: reader.payload(run_id, kind) for kind in PayloadKind}
    again = reader.stored(run_id)
    if again is None or _payloads_of(again) != _payloads_of(stored):
        return None
    # Entries that were appended meanwhile do not belong to this moment.
    version = stored.run.version
    return _Whole(stored, [entry for entry in entries if entry.seq <= version], payloads)


def _payloads_of(stored: Stored) -> tuple[str | None, ...]:
    """The life of the run, and the digests of the payloads that a write may replace."""
    run = stored.run
    return run.epoch, run.result_sha256, run.checkpoint_sha256
