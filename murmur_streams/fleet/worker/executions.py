"""The executions under way in a worker, by their claims' tokens."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping

from murmur_streams.core.model.work import Beat, Claim
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.awaiting import Awaited
from murmur_streams.fleet.execution.end_writes import ExecutionOutcome
from murmur_streams.fleet.execution.execution import Execution, Verdict
from murmur_streams.fleet.logs import loggable_traceback
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

    def beats(self, agents: Mapping[str, Agent]) -> list[Beat]:
        """A heartbeat for each claim to keep, with its agent's ``silent_after_seconds``."""
        beats: list[Beat] = []
        for execution, _ in self._under_way.values():
            if execution.holds:
                agent = agents.get(execution.claim.target)
                silent_after = None if agent is None else agent.policy.silent_after_seconds
                beats.append(Beat(execution.claim, silent_after))
        return beats

    def start(self, store: WorkStore, agent: Agent, claim: Claim) -> None:
        """Execute a claimed run."""
        execution = Execution(store, agent, claim, self._worker)
        if claim.token in self._early:
            del self._early[claim.token]
            execution.stop(Verdict.CANCELLED)
        task = asyncio.create_task(execution.run(), name=f"run {claim.run_id}")
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
