"""A run made anew from its journal, if that can be. Pure."""

from __future__ import annotations

from itertools import pairwise

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.run import Run
from murmur_streams.core.rules.evolve import fold
from murmur_streams.stores.local.engine.database import Stored


def folded(run_id: str, entries: list[JournalEntry], before: Stored | None) -> Run:
    """The fold of a whole journal; RunDamagedError when it has holes, or cannot be folded."""
    for one, next_one in pairwise(entries):
        if next_one.seq != one.seq + 1:
            what = f"entry {one.seq + 1} of its journal is missing or cannot be read"
            raise RunDamagedError(run_id, what, can_rebuild=False)
    try:
        run = fold(entries)
    except (ValueError, KeyError, RunDamagedError) as error:
        what = f"its journal cannot be folded: {ascii(str(error))[:80]}"
        raise RunDamagedError(run_id, what, can_rebuild=False) from error
    if run is None or (before is not None and run.version < before.run.version):
        raise RunDamagedError(run_id, "its journal is not whole", can_rebuild=False)
    return run
