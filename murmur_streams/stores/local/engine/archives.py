"""Reads a run whole from a database: for audits, and to move it to another store."""

from __future__ import annotations

from collections.abc import Callable

from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, RunNotFoundError, StoreError
from murmur_streams.core.model.run import PayloadKind, run_to_fields
from murmur_streams.core.rules.audit import AuditReport, audit_run
from murmur_streams.stores.local.engine.access import Access
from murmur_streams.stores.local.engine.bookkeeping import is_due, keeping_problems
from murmur_streams.stores.local.engine.database import Reader, Stored

PAGE = 500
TRIES = 20
"""How often a run is read again because it was written to meanwhile."""


async def gather_audit(access: Access, run_id: str, clock: Callable[[], int]) -> AuditReport:
    """Compare what is stored of a run with the fold of its journal; raises as ``gather``."""
    try:
        stored, whole = await gather(access, run_id, clock)
    except RunDamagedError as error:
        return AuditReport(run_id, 0, (str(error),))
    payloads = whole.input_json, whole.result_json, whole.checkpoint_json
    report = audit_run(run_id, run_to_fields(stored.run), whole.entries, *payloads)
    problems = (*report.problems, *keeping_problems(stored))
    return AuditReport(run_id, report.entries, problems, report.notes)


async def gather(
    access: Access, run_id: str, clock: Callable[[], int]
) -> tuple[Stored, RunArchive]:
    """Read a run whole.

    Raises:
        RunNotFoundError: the run does not exist.
        StoreError: its result or checkpoint was written again and again while it was read.
    """
    for _ in range(TRIES):
        whole = await access.read(lambda reader: _read_whole(reader, run_id, clock()))
        if whole is not None:
            return whole
    raise StoreError(f"run {run_id!r} was written to all the while; try again")


def _read_whole(reader: Reader, run_id: str, now_ms: int) -> tuple[Stored, RunArchive] | None:
    """Everything that is stored of a run; None when a payload was written meanwhile."""
    stored = reader.stored(run_id)
    if stored is None or is_due(stored, now_ms):
        raise RunNotFoundError(run_id)
    entries: list[JournalEntry] = []
    while page := reader.journal(run_id, entries[-1].seq if entries else 0, PAGE):
        entries += page[1]
        if len(page[1]) < PAGE:
            break
    kinds = (PayloadKind.INPUT, PayloadKind.RESULT, PayloadKind.CHECKPOINT)
    payloads = [reader.payload(run_id, kind) for kind in kinds]
    again = reader.stored(run_id)
    if again is None or _payloads_of(again) != _payloads_of(stored):
        return None
    # Entries that were appended meanwhile do not belong to this moment.
    whole = tuple(entry for entry in entries if entry.seq <= stored.run.version)
    return stored, RunArchive(run_id, stored.run.epoch, whole, *payloads)


def _payloads_of(stored: Stored) -> tuple[str | None, ...]:
    """The life of the run, and the digests of the payloads that a write may replace."""
    run = stored.run
    return run.epoch, run.result_sha256, run.checkpoint_sha256
