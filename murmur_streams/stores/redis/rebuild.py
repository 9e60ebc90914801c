"""Writes a run's hash again from its journal, which decides."""

from __future__ import annotations

from collections.abc import Sequence

from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError, StoreError
from murmur_streams.core.model.run import run_to_fields
from murmur_streams.core.rules.evolve import fold
from murmur_streams.stores.redis.audit import whole_journal
from murmur_streams.stores.redis.calls import Durations
from murmur_streams.stores.redis.server import Server

TRIES = 10


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
    raise StoreError(
        f"run {run_id!r} is written to faster than its journal can be read; stop its writers first"
    )


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
    fields = [part for pair in run_to_fields(run).items() for part in pair]
    answer = await server.idempotent_script(
        "rebuild",
        [*server.keys.given(run_id), server.keys.base(server.keys.partition(run_id))],
        [
            run_id,
            entries[-1].id,
            durations.ttl_ms,
            durations.live_ttl_ms,
            str(run.state),
            *fields,
        ],
    )
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
    arguments: list[str | int] = []
    for seq, entry in enumerate(repeated, before.seq + 1):
        arguments += (entry.id, f"{ms}-{seq}", 2 * len(entry.fields))
        for name, value in entry.fields.items():
            arguments += (name, value)
    await server.idempotent_script(
        "renumber",
        [server.keys.journal(run_id)],
        [entries[-1].id, len(repeated), *arguments],
    )
