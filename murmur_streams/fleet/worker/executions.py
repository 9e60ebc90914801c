"""The executions under way in a worker, and the check whether they block each other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Beat, Claim
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.current import Awaited
from murmur_streams.fleet.execution.end_writes import ExecutionOutcome
from murmur_streams.fleet.execution.execution import Execution, Verdict
from murmur_streams.fleet.logs import REPEAT_SECONDS, loggable_traceback
from murmur_streams.stores.work_store import WorkStore

logger = logging.getLogger("murmur_streams.worker")

MOST_EARLY = 1_000
"""How many cancels are remembered whose claims have not arrived yet; see ``stop``."""


class Executions:
    """Starts executions, passes verdicts on to them, and counts how they end.

    By token and not by run: a worker may claim a run again while its earlier execution of the same
    run, whose lease was lost, has not ended yet.
    """

    def __init__(self, worker: str, slot_free: Callable[[], None]) -> None:
        self._worker = worker
        self._slot_free = slot_free
        self._under_way: dict[str, tuple[Execution, asyncio.Task[ExecutionOutcome]]] = {}
        self._left_behind: set[asyncio.Task[None]] = set()
        self._early: OrderedDict[str, None] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def run_ids(self) -> list[str]:
        """The ids of the runs whose claims are held."""
        return [
            execution.claim.run_id for execution, _ in self._under_way.values() if execution.holds
        ]

    @property
    def awaited(self) -> list[list[Awaited]]:
        """The runs that each of the executions waits for."""
        return [execution.awaited for execution, _ in self._under_way.values()]

    @property
    def left_behind(self) -> int:
        """How many handlers still run although their executions have ended."""
        return len(self._left_behind)

    def tasks(self) -> list[asyncio.Task[ExecutionOutcome]]:
        """The executions' tasks."""
        return [task for _, task in self._under_way.values()]

    def beats(self) -> list[Beat]:
        """A heartbeat for each claim to keep, with its agent's ``silent_after_seconds``."""
        held = [each for each, _ in self._under_way.values() if each.holds]
        return [Beat(each.claim, each.agent.policy.silent_after_seconds) for each in held]

    def start(self, store: WorkStore, agent: Agent, claim: Claim) -> None:
        """Execute a claimed run."""
        execution = Execution(store, agent, claim, self._worker)
        if claim.token in self._early:
            del self._early[claim.token]
            execution.stop(Verdict.CANCELLED)
        task = execution.start()
        self._under_way[claim.token] = (execution, task)
        self.counts["claimed"] += 1
        task.add_done_callback(lambda done: self._ended(execution, done))

    def stop(self, token: str, verdict: Verdict) -> bool:
        """Pass a verdict on to the execution of a claim; False when it changes nothing.

        A cancel may arrive before its claim: the control stream is read on a connection of its
        own, and a caller may request the cancel while the claim's reply is still on its way. It is
        remembered until the claim arrives. Otherwise the execution would start and be cancelled
        only with the reply to its next heartbeat.
        """
        execution, _ = self._under_way.get(token, (None, None))
        if execution is not None:
            return execution.stop(verdict)
        if verdict is Verdict.CANCELLED:
            self._early[token] = None
            if len(self._early) > MOST_EARLY:
                self._early.popitem(last=False)
        return False

    def stop_all(self, verdict: Verdict) -> None:
        """Pass a verdict on to all executions."""
        for execution, _ in list(self._under_way.values()):
            execution.stop(verdict)

    def _ended(self, execution: Execution, task: asyncio.Task[ExecutionOutcome]) -> None:
        del self._under_way[execution.claim.token]
        self._slot_free()
        left = execution.left_behind
        if left is not None:
            self.counts["left_behind"] += 1
            self._left_behind.add(left)
            left.add_done_callback(self._left_behind.discard)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            run_id = execution.claim.run_id
            shown = loggable_traceback(error)
            logger.error("run %s: the worker could not end it: %s", run_id, shown)
        else:
            self.counts[task.result()] += 1


@dataclass(eq=False, slots=True)
class Blocked:
    """Whether a worker is blocked, found out by checks that are some seconds apart.

    A worker is blocked when every slot is taken, each execution waits for runs of agents that this
    worker serves, and none of those runs has ended or begun elsewhere, at two checks in a row. One
    check is not enough: a child run that was just submitted waits until another worker claims it.
    """

    worker: str
    """The worker's name, for the log."""
    concurrency: int
    """How many slots it has."""
    targets: Collection[str]
    """The agents that it serves."""
    clock: Callable[[], float] = time.monotonic
    """Returns seconds that only grow."""
    _seen: list[Awaited] = field(default_factory=list[Awaited])
    _logged: float | None = None

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
            logger.warning("worker %s is not blocked any more", self.worker)
        return is_blocked

    def _all_awaited(
        self, executions: Sequence[Sequence[Awaited]], held: frozenset[str]
    ) -> list[Awaited]:
        """The runs that all executions wait for; empty when an execution or a slot can go on."""
        if len(executions) < self.concurrency:
            return []
        for awaited in executions:
            if not awaited or any(self._may_go_on(each, held) for each in awaited):
                return []
        return [each for awaited in executions for each in awaited]

    def _may_go_on(self, awaited: Awaited, held: frozenset[str]) -> bool:
        if awaited.target not in self.targets or awaited.state.is_terminal:
            return True
        # A run that is executed here waits, too, as all executions do. One that is executed
        # elsewhere may end.
        return awaited.state is RunState.RUNNING and awaited.run_id not in held

    def _warn(self, awaited: Sequence[Awaited]) -> None:
        now = self.clock()
        if self._logged is not None and now - self._logged < REPEAT_SECONDS:
            return
        self._logged = now
        logger.warning(
            "worker %s is blocked: each of its %d slots waits for a run of %s, which it serves and "
            "has no slot for; unless another worker takes them, none of these runs ever ends. Give "
            "it a higher --concurrency, or serve the agents that wait and those that they wait "
            "for by different workers (--targets)",
            self.worker, self.concurrency, ", ".join(sorted({each.target for each in awaited})),
        )  # fmt: skip
