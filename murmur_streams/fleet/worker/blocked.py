"""Detects a blocked worker: each of its slots waits for a run that it would have to start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

from murmur_streams.core.model.states import RunState
from murmur_streams.fleet.awaiting import Awaited
from murmur_streams.fleet.log_throttle import REPEAT_SECONDS

logger = logging.getLogger("murmur_streams.worker")


class Blocked:
    """Whether a worker is blocked, found out by checks that are some seconds apart.

    A worker is blocked when every slot is taken, each execution waits for runs of agents that this
    worker serves, and none of those runs has ended or begun elsewhere, at two checks in a row. One
    check is not enough: a child run that was just submitted waits until another worker claims it.

    Args:
        worker: the worker's name, for the log.
        concurrency: how many slots it has.
        targets: the agents that it serves.
        clock: returns seconds that only grow.
    """

    def __init__(
        self,
        worker: str,
        concurrency: int,
        targets: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._concurrency = concurrency
        self._targets = frozenset(targets)
        self._clock = clock
        self._seen: list[Awaited] = []
        self._logged: float | None = None

    def look(self, executions: Sequence[Sequence[Awaited]], held: Collection[str]) -> bool:
        """Check once; a warning is logged once a minute while the worker is blocked.

        Args:
            executions: the runs that each execution under way waits for.
            held: the ids of the runs that are executed.
        """
        awaited = self._all_awaited(executions, frozenset(held))
        is_blocked = bool(awaited) and awaited == self._seen
        self._seen = awaited
        if is_blocked:
            self._warn(awaited)
        elif not awaited and self._logged is not None:
            self._logged = None
            logger.warning("worker %s is not blocked any more", self._worker)
        return is_blocked

    def _all_awaited(
        self, executions: Sequence[Sequence[Awaited]], held: frozenset[str]
    ) -> list[Awaited]:
        """The runs that all executions wait for; empty when an execution or a slot can go on."""
        if len(executions) < self._concurrency:
            return []
        for awaited in executions:
            if not awaited or any(self._may_go_on(each, held) for each in awaited):
                return []
        return [each for awaited in executions for each in awaited]

    def _may_go_on(self, awaited: Awaited, held: frozenset[str]) -> bool:
        if awaited.target not in self._targets or awaited.state.is_terminal:
            return True
        # A run that is executed here waits, too, as all executions do. One that is executed
        # elsewhere may end.
        return awaited.state is RunState.RUNNING and awaited.run_id not in held

    def _warn(self, awaited: Sequence[Awaited]) -> None:
        now = self._clock()
        if self._logged is not None and now - self._logged < REPEAT_SECONDS:
            return
        self._logged = now
        logger.warning(
            "worker %s is blocked: each of its %d slots waits for a run of %s, which it serves and "
            "has no slot for; unless another worker takes them, none of these runs ever ends. Give "
            "it a higher --concurrency, or serve the agents that wait and those that they wait "
            "for by different workers (--targets)",
            self._worker, self._concurrency, ", ".join(sorted({each.target for each in awaited})),
        )  # fmt: skip
