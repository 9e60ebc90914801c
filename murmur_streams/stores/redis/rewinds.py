"""Tells callers that the server has lost writes of theirs that it had acknowledged.

A failover takes away what the old primary had not replicated, and a restart what was not on its
disk. The producer's record of calls goes back together with the runs: the server then has call n,
and the store knows the answer to a later one. So the runs of the calls after n are those that lost
writes, and the next write of this store that continues one of them fails with StoreRewoundError.
Without that, a program would add the end of a story whose middle is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from murmur_streams.core.model.errors import StoreRewoundError
from murmur_streams.stores.redis.numbered_calls import NumberedCalls
from murmur_streams.stores.redis.writes import WaitingRuns, WaitingWrite

logger = logging.getLogger("murmur_streams.redis")

OnRewind = Callable[[frozenset[str]], None]
CONTINUING_COMMANDS = frozenset(
    {
        *("append", "push_event", "checkpoint", "update_progress"),
        *("finish", "set_result", "set_state"),
    }
)
"""Commands of a program that goes on with a run, and so builds on its earlier writes. The others
mean the same after a loss: they create or delete a run, ask for its cancellation, seal it, or give
a claim back, and their answers report what they found."""
REWINDS_METRIC = "murmur_store_rewinds_total"
"""The name of the Prometheus counter of pods and workers."""
REWINDS_MEANING = "How often the store found that its server had lost acknowledged writes."
_MOST_NAMED = 5
_MOST_REMEMBERED = 10_000
"""Runs of earlier losses that were not written to since are forgotten beyond this number."""


class Rewinds:
    """The losses that a store has found; all of its partitions share it.

    Args:
        where: the server's address, without a password.
        on_rewind: called with the ids of the runs that lost writes.
    """

    def __init__(self, where: str, on_rewind: OnRewind | None) -> None:
        self.count = 0
        """How many there were."""
        self.where = where
        self._on_rewind = on_rewind

    def report(self, run_ids: Collection[str], *, is_complete: bool) -> None:
        """Count and log a loss, and call the store's user."""
        self.count += 1
        named = ", ".join(sorted(run_ids)[:_MOST_NAMED]) or "none"
        more = len(run_ids) - _MOST_NAMED
        logger.warning(
            "%s has lost writes that it had acknowledged: a failover or a restart without its last "
            "data; runs of this program that lost writes: %s%s%s",
            self.where,
            named,
            f" and {more} more" if more > 0 else "",
            "" if is_complete else ", and runs that were written to before them",
        )
        if self._on_rewind is None:
            return
        try:
            self._on_rewind(frozenset(run_ids))
        except Exception:
            logger.exception("on_rewind failed")


class LostRuns:
    """The runs of a partition whose writers must still be told of a loss."""

    def __init__(self, rewinds: Rewinds) -> None:
        self._rewinds = rewinds
        self.run_ids: set[str] = set()
        """Runs that lost writes, and were not written to since."""

    def concerns(self, write: WaitingWrite) -> bool:
        """Whether a write continues a run that lost writes, as the first one since."""
        return write.run_id in self.run_ids and write.command in CONTINUING_COMMANDS

    def error(self, write: WaitingWrite) -> StoreRewoundError:
        """The error for such a write; a caller that still waits is told, and no later one."""
        if not write.answer.done():
            self.run_ids.discard(write.run_id)
        return StoreRewoundError(write.run_id, self._rewinds.where)

    def rewind(self, last: int, calls: NumberedCalls, waiting: WaitingRuns) -> list[WaitingWrite]:
        """Take in that the server has no call after ``last``.

        What is in flight gets new numbers: a call that came after lost ones is not on that server.

        Returns:
            The writes that fail: they were removed from the calls in flight, and from what waits.
        """
        lost, is_complete = calls.written.after(last)
        self.run_ids = lost if len(self.run_ids) > _MOST_REMEMBERED else self.run_ids | lost
        # A loss from before the memory of this store: what was about to be written fails.
        fails = self.concerns if is_complete else _continues
        failed = [write for call in calls.in_flight for write in call.remove(fails)]
        for call in tuple(calls.in_flight):
            if not call.groups:
                calls.drop(call)
        failed += waiting.remove(fails)
        calls.restart()
        self._rewinds.report(lost, is_complete=is_complete)
        return failed


def _continues(write: WaitingWrite) -> bool:
    return write.command in CONTINUING_COMMANDS
