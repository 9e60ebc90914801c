"""Archives whole runs, and restores them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import dropwhile, pairwise
from typing import Any

from murmur_streams.core.archive.lines import digest_of
from murmur_streams.core.archive.run_archive import RunArchive, check_same_life, pages
from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError, StoreError
from murmur_streams.core.model.run import Run
from murmur_streams.settings import DAY_SECONDS
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.live.tail import read_entry
from murmur_streams.stores.redis.server import Server, text

TRIES = 10
READ_ENTRIES = 256
KEEP_MS = DAY_SECONDS * 1000
"""How long the collected journal of an interrupted restore waits for the next try."""


async def archive_run(server: Server, run_id: str) -> RunArchive:
    """Read the journal and the payloads; entries that are written meanwhile are read, too.

    Raises:
        RunNotFoundError: no such run.
        StoreError: it is written to faster than it can be read.
    """
    keys = server.keys
    raws: list[Any] = []
    for tries_left in reversed(range(TRIES)):
        raws += await _entries_after(server, run_id, text(raws[-1][0]) if raws else None)
        after = f"({text(raws[-1][0])}" if raws else "-"
        # In this order: a payload and its entry are written in one step. If a payload changed after
        # the journal was read, its entry is among those that the second XRANGE finds, and the try
        # is repeated. With the payloads last, an archive could hold a result that its own journal
        # does not know.
        given, result, checkpoint, more, epoch = await server.read_all(
            ("GET", keys.input(run_id)),
            ("GET", keys.result(run_id)),
            ("GET", keys.checkpoint(run_id)),
            ("XRANGE", keys.journal(run_id), after, "+", "COUNT", READ_ENTRIES),
            ("HGET", keys.run(run_id), "epoch"),
        )
        if epoch is None:
            raise RunNotFoundError(run_id)
        raws += more
        if len(more) == READ_ENTRIES or any(_has_payload(run_id, raw) for raw in more):
            continue
        entries = tuple(read_entry(run_id, text(epoch), raw) for raw in raws)
        if tries_left and not _are_consistent(entries):
            raws = []
            continue
        payloads = (_text(given), _text(result), _text(checkpoint))
        return RunArchive(run_id, text(epoch), entries, *payloads)
    raise StoreError(
        f"run {run_id!r} is written to faster than its journal can be read; stop its writers first"
    )


def _has_payload(run_id: str, raw: Any) -> bool:
    """Whether the entry was written with a payload, newer than the one that was read."""
    return read_entry(run_id, "", raw).type in {EntryType.RESULT, EntryType.CHECKPOINT}


async def restore_run(server: Server, calls: Calls, archive: RunArchive, run: Run) -> bool:
    """Collect the journal page by page under another key, then make the run of it in one step.

    An interrupted restore is continued.

    Args:
        server: the target.
        calls: of the same store.
        archive: the run; it has been verified.
        run: the fold of its journal.

    Returns:
        False when the store has this run already.

    Raises:
        RunExistsError: the store has another run with the id, or an older copy of this run.
        StoreError: other callers delete and restore the same run at the same time.
    """
    restoring = None
    for _ in range(TRIES):
        if await _is_here(server, archive):
            return False
        restoring = restoring or server.keys.restoring(archive.run_id, digest_of(archive))
        await _collect(server, archive.run_id, restoring, archive.entries)
        answer = await calls.restore(archive, run, restoring)
        if answer[0] == "OK":
            return True
    raise StoreError(
        f"run {archive.run_id!r} is deleted or restored by others at the same time; try it again"
    )


async def _entries_after(server: Server, run_id: str, last_id: str | None) -> list[Any]:
    """Read the journal's entries after one, or all; as raw replies."""
    journal, raws = server.keys.journal(run_id), list[Any]()
    while True:
        start = "-" if last_id is None else f"({last_id}"
        page = await server.read("XRANGE", journal, start, "+", "COUNT", READ_ENTRIES)
        raws += page
        if len(page) < READ_ENTRIES:
            return raws
        last_id = text(page[-1][0])


def _are_consistent(entries: Sequence[JournalEntry]) -> bool:
    """False when the run was trimmed, or deleted and created again, while its journal was read."""
    is_dense = all(after.seq == before.seq + 1 for before, after in pairwise(entries))
    return is_dense and all(
        entry.fields.get("epoch", entry.epoch) == entry.epoch for entry in entries
    )


async def _is_here(server: Server, archive: RunArchive) -> bool:
    keys, run_id, last_id = server.keys, archive.run_id, archive.entries[-1].id
    epoch, oldest, last = await server.read_all(
        ("HGET", keys.run(run_id), "epoch"),
        ("XRANGE", keys.journal(run_id), "-", "+", "COUNT", 1),
        ("XRANGE", keys.journal(run_id), last_id, last_id),
    )
    if epoch is None:
        return False
    oldest_seq = int(text(oldest[0][0]).partition("-")[2]) if oldest else 0
    check_same_life(archive, epoch=text(epoch), oldest_seq=oldest_seq, has_last=bool(last))
    return True


async def _collect(
    server: Server, run_id: str, restoring: str, entries: Sequence[JournalEntry]
) -> None:
    """Write the entries that are missing; callers that do the same at once help each other."""
    newest = await server.read("XREVRANGE", restoring, "+", "-", "COUNT", 1)
    after = text(newest[0][0]) if newest else ""
    rest = entries[_index_after(entries, after) :]
    keys = [restoring, server.keys.base(server.keys.partition(run_id))]
    partitions = str(server.keys.partitions)
    for page in pages(rest):
        answer = await server.idempotent_script(
            "restore_page", keys, [after, KEEP_MS, len(page), partitions, *_groups(page)]
        )
        # The journal may have grown by a repeat of this call, or by another caller. If it ends with
        # this page all the same, the page is there exactly once.
        if answer[1] != page[-1].id:
            return
        after = answer[1]


def _index_after(entries: Sequence[JournalEntry], last_id: str) -> int:
    if not last_id:
        return 0
    behind = dropwhile(lambda index: entries[index].id != last_id, range(len(entries)))
    return next(behind, -1) + 1


def _groups(page: Sequence[JournalEntry]) -> list[str | int]:
    arguments: list[str | int] = []
    for entry in page:
        arguments += (entry.id, 2 * len(entry.fields))
        for name, value in entry.fields.items():
            arguments += (name, value)
    return arguments


def _text(value: Any) -> str | None:
    return None if value is None else text(value)
