"""Archives whole runs, restores them, and rebuilds damaged ones from their journals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from murmur_streams.core.archive.lines import digest_of
from murmur_streams.core.archive.run_archive import RunArchive, check_same_life, pages
from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError, StoreError
from murmur_streams.core.model.run import Run, run_to_fields
from murmur_streams.core.rules.evolve import fold
from murmur_streams.settings import DAY_SECONDS
from murmur_streams.stores.redis.audit import read_journal, whole_journal
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.keys import RECORDED_COUNTS
from murmur_streams.stores.redis.replies import counted, flatten, read_entry, text, text_or_none
from murmur_streams.stores.redis.server import Server

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
        raws += await read_journal(server, run_id, _after(raws))
        # In this order: a payload and its entry are written in one step. If a payload changed after
        # the journal was read, its entry is among those that the second XRANGE finds, and the try
        # is repeated. With the payloads last, an archive could hold a result that its own journal
        # does not know.
        await server.locator.locate(run_id)
        given, result, checkpoint, more, epoch = await server.read_all(
            ("GET", keys.input(run_id)),
            ("GET", keys.result(run_id)),
            ("GET", keys.checkpoint(run_id)),
            ("XRANGE", keys.journal(run_id), _after(raws), "+", "COUNT", READ_ENTRIES),
            ("HGET", keys.run(run_id), "epoch"),
        )
        if epoch is None:
            raise RunNotFoundError(run_id)
        raws += more
        # An entry of these types was written with a payload, newer than the one that was read.
        types = {read_entry(run_id, "", raw).type for raw in more}
        if len(more) == READ_ENTRIES or types & {EntryType.RESULT, EntryType.CHECKPOINT}:
            continue
        entries = tuple(read_entry(run_id, text(epoch), raw) for raw in raws)
        if tries_left and not _are_consistent(entries):
            raws = []
            continue
        payloads = map(text_or_none, (given, result, checkpoint))
        return RunArchive(run_id, text(epoch), entries, *payloads)
    raise _busy(run_id)


def _after(raws: Sequence[Any]) -> str:
    """Where a range begins that continues after these entries."""
    return f"({text(raws[-1][0])}" if raws else "-"


def _busy(run_id: str) -> StoreError:
    return StoreError(
        f"run {run_id!r} is written to faster than its journal can be read; stop its writers first"
    )


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
    digest = digest_of(archive)
    for _ in range(TRIES):
        if await _is_here(server, archive):
            return False
        server.keys.locate(archive.run_id, server.keys.counts.of_new_run(archive.run_id))
        restoring = server.keys.restoring(archive.run_id, digest)
        await _collect(server, restoring, archive.entries)
        answer = await calls.restore(archive, run, digest)
        if answer[0] == "OK":
            return True
    raise StoreError(
        f"run {archive.run_id!r} is deleted or restored by others at the same time; try it again"
    )


def _are_consistent(entries: Sequence[JournalEntry]) -> bool:
    """False when the run was trimmed, or deleted and created again, while its journal was read."""
    is_dense = all(after.seq == before.seq + 1 for before, after in pairwise(entries))
    return is_dense and all(
        entry.fields.get("epoch", entry.epoch) == entry.epoch for entry in entries
    )


async def _is_here(server: Server, archive: RunArchive) -> bool:
    keys, run_id, last_id = server.keys, archive.run_id, archive.entries[-1].id
    await server.locator.look_at_counts()
    await server.locator.locate(run_id)
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


async def _collect(server: Server, restoring: str, entries: Sequence[JournalEntry]) -> None:
    """Write the entries that are missing; callers that do the same at once help each other."""
    newest = await server.read("XREVRANGE", restoring, "+", "-", "COUNT", 1)
    after = text(newest[0][0]) if newest else ""
    # After the entry that the collected journal ends with; all of them, if that is not one of ours.
    behind = (index for index, entry in enumerate(entries, 1) if entry.id == after)
    rest = entries[next(behind, 0) :]
    keys = [restoring, server.keys.base(server.keys.partition_of_key(restoring))]
    for page in pages(rest):
        entries_of_page = [part for each in page for part in (each.id, *counted([each.fields]))]
        answer = await server.idempotent_script(
            "restore_page", keys, [after, KEEP_MS, len(page), RECORDED_COUNTS, *entries_of_page]
        )
        # The journal may have grown by a repeat of this call, or by another caller. If it ends with
        # this page all the same, the page is there exactly once.
        if answer[1] != page[-1].id:
            return
        after = answer[1]


async def rebuild_run(server: Server, durations: Durations, run_id: str) -> None:
    """Fold the journal and replace the hash; if it grows meanwhile, fold it again.

    Entries that repeat the seq of earlier entries are moved behind those first.

    Raises:
        RunNotFoundError: the run has no journal, or was deleted.
        StoreError: the journal cannot be folded, or grew faster than it could be read.
    """
    for _ in range(TRIES):
        if await _rebuild_once(server, durations, run_id):
            return
    raise _busy(run_id)


async def _rebuild_once(server: Server, durations: Durations, run_id: str) -> bool:
    entries = await whole_journal(server, run_id)
    if not entries or entries[-1].type == EntryType.DELETED:
        raise RunNotFoundError(run_id)
    repeated = _from_first_repeated(entries)
    if repeated:
        await _renumber(server, run_id, entries, repeated)
        return False
    try:
        run = fold(entries)
    except (ValueError, KeyError) as error:
        raise StoreError(f"the journal of run {run_id!r} cannot be folded: {error!r}") from None
    if run is None:
        raise StoreError(
            f"the journal of run {run_id!r} holds neither run.created nor run.snapshot: "
            "it was trimmed by hand and cannot be folded"
        )
    await server.locator.locate(run_id)
    keys = [server.keys.base(server.keys.partition(run_id))]
    arguments = [run_id, entries[-1].id, durations.ttl_ms, durations.live_ttl_ms, str(run.state)]
    fields = flatten(run_to_fields(run))
    answer = await server.idempotent_script("rebuild", keys, [*arguments, *fields])
    return answer[0] == "OK"


def _from_first_repeated(entries: Sequence[JournalEntry]) -> Sequence[JournalEntry]:
    """The entries from the first that repeats the seq of an earlier one; none in a sound journal.

    There are two ways to such a journal. An earlier version left the entries of an append whose
    last command the server denied, and the next append used their seqs again. Or the version in a
    run's hash was lowered by hand. A reader cannot get past such an entry: it would see a seq
    twice, or skip an entry. Which of the two was acknowledged cannot be known, so both stay.
    """
    highest = 0
    for index, entry in enumerate(entries):
        if entry.seq <= highest:
            return entries[index:]
        highest = entry.seq
    return ()


async def _renumber(
    server: Server, run_id: str, entries: Sequence[JournalEntry], repeated: Sequence[JournalEntry]
) -> None:
    # A stream takes only ids above its last one: the next millisecond is above it for every seq.
    ms, before = entries[-1].ms + 1, entries[len(entries) - len(repeated) - 1]
    arguments: list[str | int] = [entries[-1].id, len(repeated)]
    for seq, entry in enumerate(repeated, before.seq + 1):
        arguments += (entry.id, f"{ms}-{seq}", *counted([entry.fields]))
    await server.locator.locate(run_id)
    await server.idempotent_script("renumber", [server.keys.journal(run_id)], arguments)
