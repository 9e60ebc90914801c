"""Writes a run's hash anew from its journal, the truth."""

from __future__ import annotations

from murmur_streams.core.entries import EntryType
from murmur_streams.core.errors import RunNotFoundError, StoreError
from murmur_streams.core.evolve import fold
from murmur_streams.core.run import run_to_fields
from murmur_streams.stores.redis.audit import whole_journal
from murmur_streams.stores.redis.calls import Durations
from murmur_streams.stores.redis.server import Server

TRIES = 10


async def rebuild_run(server: Server, durations: Durations, run_id: str) -> None:
    """Fold the journal and replace the hash; written to meanwhile, it is folded again.

    Raises:
        RunNotFoundError: there is no journal, or the run was deleted.
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
