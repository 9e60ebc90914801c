"""Compares a stored run with the fold of its journal. Stores gather what is compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.run import FOLDED_FIELDS, PROGRESS_FIELDS, Run, run_to_fields
from murmur_streams.core.rules.evolve import fold


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of an audit."""

    run_id: str
    entries: int
    """How many journal entries were folded."""
    problems: tuple[str, ...] = ()
    """Each names one field or entry and both values; empty when all is well."""
    notes: tuple[str, ...] = ()
    """Differences that are by design, such as progress newer than the journal's."""

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems


def audit_run(
    run_id: str,
    stored: Mapping[str, str],
    entries: Sequence[JournalEntry],
    input_json: str | None,
    result_json: str | None,
    checkpoint_json: str | None = None,
) -> AuditReport:
    """Compare a run's stored fields and payloads with the fold of its journal.

    Args:
        run_id: the run.
        stored: the text fields of its hash.
        entries: its whole journal, in order.
        input_json: the stored input, None when there is none.
        result_json: the stored result, None when there is none.
        checkpoint_json: the stored checkpoint, None when there is none.
    """
    problems = order_problems(entries)
    notes: list[str] = []
    try:
        folded = fold(entries)
    except (ValueError, KeyError, RunDamagedError) as error:
        problems.append(f"the journal cannot be folded: {error!r}")
        return AuditReport(run_id, len(entries), tuple(problems))
    if folded is None:
        problems.append("the journal is missing, or nothing of it can be folded")
    else:
        problems += field_problems(stored, folded, notes)
        payloads = {"input": input_json, "result": result_json, "checkpoint": checkpoint_json}
        for what, text in payloads.items():
            size, sha256 = getattr(folded, f"{what}_size"), getattr(folded, f"{what}_sha256")
            problems += _payload_problems(what, size, sha256, text)
    return AuditReport(run_id, len(entries), tuple(problems), tuple(notes))


def order_problems(entries: Sequence[JournalEntry]) -> list[str]:
    """What is wrong with the order of a journal, its seal and its late entries."""
    problems: list[str] = []
    for before, after in pairwise(entries):
        if after.seq != before.seq + 1:
            problems.append(f"entry {after.id} follows {before.id}: seq is not dense")
        if after.ms < before.ms:
            problems.append(f"entry {after.id} follows {before.id}: ms goes back")
    seals = [entry.seq for entry in entries if entry.is_seal]
    if len(seals) > 1:
        problems.append(f"entries {seals} each seal the run; only one may")
    if seals:
        late = [
            entry.id
            for entry in entries
            if entry.seq > seals[0] and not entry.is_late and not entry.type.startswith("run.")
        ]
        if late:
            problems.append(f"entries {late} came after the seal and are not marked late")
    return problems


def field_problems(stored: Mapping[str, str], folded: Run, notes: list[str]) -> list[str]:
    """How the fields of a stored run differ from the fold of its journal.

    Args:
        stored: the run's fields, as text.
        folded: the fold.
        notes: gets the differences that are by design.
    """
    expected = run_to_fields(folded)
    compared = FOLDED_FIELDS
    if stored.get("progress_dirty") == "1" and not folded.state.is_terminal:
        notes.append("progress: the hash is newer than the journal, as it may be while a run lives")
        compared = FOLDED_FIELDS - _PROGRESS
    return [
        f"{name}: the hash has {stored.get(name, '')!r}, "
        f"the journal says {expected.get(name, '')!r}"
        for name in sorted(compared)
        if stored.get(name, "") != expected.get(name, "")
    ]


_PROGRESS = frozenset({"progress_dirty", *(f"progress_{name}" for name in PROGRESS_FIELDS)})


def _payload_problems(
    what: str, size: int | None, sha256: str | None, text: str | None
) -> list[str]:
    if size is None:
        return [] if text is None else [f"{what}: stored, but the journal has none"]
    if text is None:
        return [f"{what}: the journal has one of {size} bytes, but none is stored"]
    raw = text.encode()
    if len(raw) != size or hashlib.sha256(raw).hexdigest() != sha256:
        return [f"{what}: what is stored is not what the journal's size and hash say"]
    return []
