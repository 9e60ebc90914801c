"""A run that is moved between stores: its journal and payloads, and the checks of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice, pairwise

from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model import errors
from murmur_streams.core.model.entries import Cursor, EntryType, JournalEntry
from murmur_streams.core.model.limits import MAX_COUNT, check_run_id, check_target, check_tenant
from murmur_streams.core.model.results import decode_result
from murmur_streams.core.model.run import Run, run_to_fields
from murmur_streams.core.rules.audit import AuditReport, audit_run
from murmur_streams.core.rules.evolve import fold

PAGE_ENTRIES = 500
PAGE_BYTES = 1024 * 1024
LATEST_MS = 10**13 - 1
"""The last moment that a listing can order: its positions have 13 digits."""
MOST_FIELDS = 1_000
"""Entries have a few dozen at most, and a script takes only a limited number of arguments."""
MAX_QUOTED_PROBLEMS = 5
ANOTHER_LIFE = (
    "it is another run, or an older copy of this one: delete it first, or leave this one out"
)


@dataclass(frozen=True, slots=True)
class RunArchive:
    """All of a run that must be moved; everything else follows from its journal."""

    run_id: str
    epoch: str
    entries: tuple[JournalEntry, ...]
    """The whole journal in order, with its ids, so that old cursors stay valid."""
    input_json: str | None = None
    result_json: str | None = None
    checkpoint_json: str | None = None


def verify(archive: RunArchive) -> AuditReport:
    """Find the problems of an archive, which any program may have made.

    An audit compares payloads with their hashes, and finds holes in seq and a second seal. This
    also finds everything that a store could not hold or a reader could not read.

    Returns:
        A report that is ``ok`` when the archive can be restored.
    """
    count = len(archive.entries)
    problems = _shape_problems(archive)
    if problems:
        return AuditReport(archive.run_id, count, tuple(problems))
    try:
        folded = fold(archive.entries)
    except (ValueError, KeyError, errors.RunDamagedError):
        # The audit folds again, and reports the problem.
        folded = None
    report = audit_run(
        archive.run_id,
        {} if folded is None else run_to_fields(folded),
        archive.entries,
        archive.input_json,
        archive.result_json,
        archive.checkpoint_json,
    )
    if folded is None:
        return report
    more = [*_run_problems(archive, folded), *_content_problems(archive)]
    return replace(report, problems=(*report.problems, *more))


def restorable(archive: RunArchive) -> Run:
    """The run that an archive becomes: the fold of its journal.

    Raises:
        InvalidArchiveError: ``verify`` finds problems; the text has the first ones.
    """
    report = verify(archive)
    if report.problems:
        first = "; ".join(report.problems[:MAX_QUOTED_PROBLEMS])
        more = len(report.problems) - MAX_QUOTED_PROBLEMS
        raise errors.InvalidArchiveError(
            f"the archive of run {ascii(archive.run_id)[:140]} is damaged, and nothing of it was "
            f"written: {first}" + (f"; and {more} more" if more > 0 else "")
        )
    run = fold(archive.entries)
    assert run is not None  # noqa: S101  # verify has folded it
    return run


def check_same_life(archive: RunArchive, *, epoch: str, oldest_seq: int, has_last: bool) -> None:
    """Refuse to restore an archive where its id has another run.

    Args:
        archive: the archive to restore.
        epoch: the epoch of the run that has the id.
        oldest_seq: the seq of the oldest entry that this run still has.
        has_last: whether its journal has an entry with the id of the archive's last one.

    Raises:
        RunExistsError: it is another life of the id, or an older copy than the archive.
    """
    # An entry that this store has already trimmed counts as present.
    is_here = has_last or oldest_seq > archive.entries[-1].seq
    if epoch != archive.epoch or not is_here:
        raise errors.RunExistsError(archive.run_id, ANOTHER_LIFE)


def pages(entries: Sequence[JournalEntry]) -> Iterator[tuple[JournalEntry, ...]]:
    """Cut a journal into pages of at most 500 entries and about 1 MiB; one entry is never cut."""
    start = size = 0
    for at, entry in enumerate(entries):
        more = sum(len(name) + len(text) for name, text in entry.fields.items())
        if at > start and (at - start == PAGE_ENTRIES or size + more > PAGE_BYTES):
            yield tuple(entries[start:at])
            start, size = at, 0
        size += more
    if start < len(entries):
        yield tuple(entries[start:])


def _shape_problems(archive: RunArchive) -> list[str]:
    """Problems for which the journal cannot be folded, or would not fit into a store."""
    problems = [*_refusals(lambda: check_run_id(archive.run_id))]
    entries = archive.entries
    if not entries:
        return [*problems, "the journal is missing"]
    first, last = entries[0], entries[-1]
    problems += [*_refusals(lambda: Cursor.parse(str(Cursor(archive.epoch, first.ms, first.seq))))]
    if any((entry.run_id, entry.epoch) != (archive.run_id, archive.epoch) for entry in entries):
        problems.append("an entry is of another run, or of another life of its id")
    if not (first.ms >= 0 and first.seq >= 1 and last.ms <= LATEST_MS and last.seq <= MAX_COUNT):
        problems.append(f"the entries {first.id} to {last.id} are outside the range of ids")
    if any(entry.seq <= before.seq or entry.ms < before.ms for before, entry in pairwise(entries)):
        problems.append("the entries are not in order")
    if any(entry.type == EntryType.DELETED for entry in entries):
        problems.append("the run was deleted")
    if any(entry.type == EntryType.CREATED for entry in entries[1:]):
        problems.append("the run is created in the middle of its journal")
    problems += islice((found for entry in entries if (found := _field_problem(entry))), 1)
    texts = _payloads(archive)
    return problems + [
        f"{what}: not valid Unicode text" for what, text in texts if not _is_text(text)
    ]


def _field_problem(entry: JournalEntry) -> str:
    if not 1 <= len(entry.fields) <= MOST_FIELDS:
        return f"entry {entry.id} has {len(entry.fields)} fields, but must have 1 to {MOST_FIELDS}"
    if not _is_text("".join([*entry.fields, *entry.fields.values()])):
        return f"entry {entry.id} holds a text that is not valid Unicode"
    return ""


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _run_problems(archive: RunArchive, run: Run) -> list[str]:
    """Values of the folded run that would not fit into the keys and numbers of a store."""
    problems = [*_refusals(lambda: check_target(run.target), lambda: check_tenant(run.tenant))]
    if run.epoch != archive.epoch:
        problems.append(f"epoch: the archive says {archive.epoch!r}, its journal {run.epoch!r}")
    problems += [
        f"{name}: {value} is out of range"
        for name in (field.name for field in fields(run))
        if isinstance(value := getattr(run, name), int)
        and abs(value) > (LATEST_MS if name in _MOMENTS else MAX_COUNT)
    ]
    return problems


_MOMENTS = frozenset({"created_ms", "started_ms", "ended_ms", "progress_ms", "due_ms"})


def _content_problems(archive: RunArchive) -> list[str]:
    """Payloads and events that a reader of the restored run could not read."""
    problems: list[str] = []
    for what, text in _payloads(archive):
        read: Callable[[str], object] = decode_result if what == "result" else decode_json
        try:
            read(text)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problems.append(f"{what}: it cannot be read: {ascii(str(error))[:200]}")
    for entry in archive.entries:
        try:
            entry.event()
        except errors.RunDamagedError as error:
            problems.append(
                f"entry {entry.id}: its event cannot be read: {ascii(str(error.__cause__))[:200]}"
            )
            break
    return problems


def _payloads(archive: RunArchive) -> list[tuple[str, str]]:
    named = {
        "input": archive.input_json,
        "result": archive.result_json,
        "checkpoint": archive.checkpoint_json,
    }
    return [(what, text) for what, text in named.items() if text is not None]


def _refusals(*checks: Callable[[], object]) -> Iterator[str]:
    for check in checks:
        try:
            check()
        except errors.InvalidInputError as error:
            yield str(error)
