"""Worker: claims runs, executes them, and drains when it is stopped; see Worker.run."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from murmur_streams.core.model import errors, work
from murmur_streams.fleet.agents import checked_targets
from murmur_streams.fleet.execution.execution import STOP_SECONDS, Verdict
from murmur_streams.fleet.execution.tasks import end_within, first_of, guard_callbacks, guard_tasks
from murmur_streams.fleet.fleet import Fleet
from murmur_streams.fleet.logs import LogThrottle
from murmur_streams.fleet.worker import loops
from murmur_streams.fleet.worker.executions import Blocked, Executions
from murmur_streams.fleet.worker.process import host_name, let_go_of_children, name_of, worker_id_of
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.protocol import WorkerList, WorkQueue
from murmur_streams.stores.work_store import WorkStore

logger = logging.getLogger("murmur_streams.worker")

IDLE_SECONDS = 5.0
"""How long an idle worker waits for a wake-up token before it looks at the queue anyway."""
MOST_AFTER_A_WAIT = 2
"""For how many runs an idle worker asks while it waits. The server makes this claim also for a
worker whose machine has just died, and so many runs then wait until their leases run out. Two and
not one: a claim that is answered with fewer runs than it asked for has emptied the queue."""
REGISTER_SECONDS = 5.0
_REFUSALS = (errors.StoreConfigurationError, errors.StoreFullError, errors.StoreReadOnlyError)
HAND_BACK_SECONDS = 5.0
"""How long a stopping worker tries to hand its runs back."""
UNREGISTER_SECONDS = 1.0


class Worker:
    """Executes a fleet's runs in this process until it is stopped.

    Guarantee: a run is executed at least once and ends once. When this worker dies, other workers
    take its runs over within one and three quarters of ``lease_seconds``; the store rejects
    whatever it still writes. A handler that does not end within its grace time after it was
    cancelled is left behind: its writes are rejected, its slot is free, and neither ``run`` nor
    ``asyncio.run`` waits for it.
    Code that blocks the event loop or the GIL for longer than the lease loses the lease.

    Args:
        fleet: the fleet whose agents it executes.
        concurrency: how many runs at the same time.
        lease_seconds: how long this worker may send no heartbeat before other workers take its
            runs over; >= 1.
        drain_seconds: how long ``stop`` waits for the runs under way before it hands them back.
        targets: only these agents, one at least; None for all.
        worker_id: 1 to 128 characters of A-Z a-z 0-9 . _ - that begin with a letter or a digit;
            None makes one of host, process id and four random digits.
        on_beat: called on the event loop every few seconds, each time that the server has accepted
            this worker's entry in the list of workers: for probes.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        concurrency: int = 10,
        lease_seconds: float = 15.0,
        drain_seconds: float = 30.0,
        targets: Sequence[str] | None = None,
        worker_id: str | None = None,
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        if concurrency < 1 or lease_seconds < 1 or drain_seconds < 0:
            raise errors.InvalidInputError(
                "a worker needs concurrency >= 1, lease_seconds >= 1 and drain_seconds >= 0"
            )
        self.worker_id = worker_id_of(worker_id)
        self.name = name_of(self.worker_id)
        """Its name in runs and in the list of workers; no other process has the same."""
        self._fleet = fleet
        self._targets = checked_targets(fleet, targets)
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._drain_seconds = drain_seconds
        self._on_beat = on_beat
        self._bell: Bell | None = None
        """While the worker waits: what ends the wait. Rung, it asks for a look at the queue."""
        self._waits_for_slot = False
        self._may_find_work = True
        """Whether the next claim is made at once, and not when a wake-up token has come."""
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._changed = asyncio.Event()
        self._executions = Executions(self.name, self._on_slot_free)
        self._blocked = Blocked(self.name, concurrency, self._targets)
        self._logged_errors: dict[str, float] = {}
        self._host = host_name()
        self._next_due_seconds: float | None = None
        self.refusal: str | None = None
        """Why the server refuses its claims; None while it accepts them or cannot be reached."""
        self._started_ms = time.time_ns() // 1_000_000

    @property
    def held(self) -> list[str]:
        """The ids of the runs that it executes now."""
        return self._executions.run_ids

    @property
    def left_behind(self) -> int:
        """How many handlers still run in this process although their executions have ended.

        If there are some when the process ends, flush its logs and call ``os._exit``: their
        threads may keep the interpreter from ending.
        """
        return self._executions.left_behind

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of its executions ended in each way.

        claimed, completed, failed, retried, cancelled, handed_back, lost (the claim was over),
        left (the store failed), left_behind (a handler did not end), silent.
        """
        return dict(self._executions.counts)

    def stop(self) -> None:
        """Claim no more and drain; a second call hands the runs under way back at once."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()
        self._changed.set()
        self._ring()

    async def run(self) -> None:
        """Work until ``stop`` is called, then drain.

        An error at the start is raised. Once the worker has begun, it outlasts every error of the
        server: it logs the error once a minute and tries again.

        Raises:
            StoreConfigurationError: the server does not fit or refuses this user.
            StoreUnavailableError: the server cannot be reached.
        """
        loop = asyncio.get_running_loop()
        guard_tasks(loop)
        guard_callbacks(loop)
        let_go_of_children()
        with self._fleet.keep_store_open():
            await self._run()

    async def _run(self) -> None:
        store = await self._fleet.store()
        queue, workers = store.queue(self._lease_seconds), store.workers(REGISTER_SECONDS)
        await self._begin(queue)
        logger.info("worker %s executes %s", self.name, ", ".join(self._targets))
        running = self._start_loops(store, queue, workers)
        try:
            await self._work(store, queue)
            await self._let_finish()
        finally:
            await self._hand_back()
            await end_within(STOP_SECONDS, running)
            await loops.unregister(workers, self.name, UNREGISTER_SECONDS)
        for task in running:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        logger.info("worker %s has stopped", self.name)

    def _start_loops(
        self, store: WorkStore, queue: WorkQueue, workers: WorkerList
    ) -> list[asyncio.Task[None]]:
        lease = self._lease_seconds
        every = loops.heartbeat_seconds(lease, store.live_ttl_ms)
        of_queue = loops.WorkerLoops(queue, self.name, self._targets, lease, self._log_throttle)
        coroutines = (
            of_queue.heartbeats(every, self._executions.beats, self._on_notice),
            of_queue.housekeeping(self._ring),
            of_queue.control_messages(self._on_control_message),
            loops.registration(workers, self._info, REGISTER_SECONDS, self._changed, self._on_beat),
        )
        tasks = [asyncio.create_task(each) for each in coroutines]
        for task in tasks:
            # Only a bug ends them. A worker without heartbeats would lose its leases and go on
            # claiming runs, so it stops.
            task.add_done_callback(self._on_loop_ended)
        return tasks

    def _on_loop_ended(self, _: asyncio.Task[None]) -> None:
        self._stopping.set()
        self._ring()

    def _log_throttle(self, what: str) -> LogThrottle:
        return LogThrottle(logger, what, logged=self._logged_errors)

    async def _begin(self, queue: WorkQueue) -> None:
        """Prepare the queue; a server that takes no writes now may take them later."""
        failures, log = 0, self._log_throttle(f"worker {self.name} waits to begin")
        while not self._stopping.is_set():
            try:
                await self._until_stopping(queue.prepare(self._targets))
            except (errors.StoreReadOnlyError, errors.StoreFullError) as error:
                log.failed(error)
                await self._until_stopping(queue.recover(failures))
                failures += 1
            else:
                log.recovered()
                return

    async def _work(self, store: WorkStore, queue: WorkQueue) -> None:
        failures, log = 0, self._log_throttle(f"worker {self.name} tries again to claim runs")
        while not self._stopping.is_set():
            try:
                await self._take(store, queue, log)
                failures = 0
            except errors.StoreClosedError:
                raise
            except errors.StoreError as error:
                log.failed(error)
                self.refusal = str(error) if isinstance(error, _REFUSALS) else None
                self._may_find_work = True
                await self._until_stopping(queue.recover(failures))
                failures += 1

    async def _take(self, store: WorkStore, queue: WorkQueue, log: LogThrottle) -> None:
        """Fill the free slots; without one wait for a slot, and without work for work.

        The bell is made anew before a claim and not after it. Housekeeping may requeue a run while
        the claim is on its way, and rings: the wait that follows then ends at once. If a new bell
        were made after the claim, that run would wait for the next wake-up token, or for the look
        that an idle worker takes every few seconds.
        """
        if self._bell is None or self._bell.is_rung:
            self._bell, self._may_find_work = Bell(), True
        free = self._concurrency - len(self._executions)
        if free <= 0:
            self._waits_for_slot = True
            await self._bell.wait()
            return
        self._waits_for_slot = False
        claimed, asked = await self._claimed(queue, free, self._bell)
        log.recovered()
        self.refusal = None
        for claim in claimed.claims:
            self._executions.start(store, self._fleet.agents[claim.target], claim)
        waited, found = not self._may_find_work, len(claimed.claims)
        self._may_find_work = found >= asked or claimed.next_due_seconds == 0
        self._next_due_seconds = claimed.next_due_seconds
        if waited and found:
            # The agents begin before the next wait is sent, which takes longer than their start.
            await asyncio.sleep(0)

    async def _claimed(self, queue: WorkQueue, free: int, bell: Bell) -> tuple[work.Claimed, int]:
        """Claim at once, or when there is work again; also returns for how many it asked."""
        if self._may_find_work:
            return await queue.claim(self.name, self._rules(), free, self._host), free
        asked, seconds = min(free, MOST_AFTER_A_WAIT), _idle_seconds(self._next_due_seconds)
        claimed = await queue.wait_and_claim(
            self.name, self._rules(), asked, self._host, seconds=seconds, bell=bell
        )
        return claimed, asked

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.ring()

    def _on_slot_free(self) -> None:
        if self._waits_for_slot:
            self._ring()

    def _rules(self) -> list[work.TargetRule]:
        # In random order, so that a full queue does not starve the targets after it.
        targets = random.sample(self._targets, len(self._targets))
        agents = self._fleet.agents
        return [work.TargetRule(target, agents[target].policy.most_attempts) for target in targets]

    def _on_notice(self, notice: work.ClaimNotice) -> None:
        claim = notice.claim
        if notice.kind is work.NoticeKind.SILENT:
            self._executions.counts["silent"] += 1
            logger.warning("run %s: its handler has written nothing for long", claim.run_id)
        elif notice.kind is work.NoticeKind.CANCEL:
            self._executions.stop(claim.token, Verdict.CANCELLED)
        elif self._executions.stop(claim.token, Verdict.LOST):
            logger.warning("run %s: the claim is over, its execution is cancelled", claim.run_id)

    def _on_control_message(self, message: work.ControlMessage) -> None:
        if message.kind == "cancel":
            self._executions.stop(message.claim, Verdict.CANCELLED)

    def _info(self) -> work.WorkerInfo:
        held = self._executions.run_ids
        return work.WorkerInfo(
            id=self.name,
            host=self._host,
            pid=os.getpid(),
            version=loops.VERSION,
            python=loops.PYTHON,
            targets=sorted(self._targets),
            concurrency=self._concurrency,
            started_ms=self._started_ms,
            state=self._state(held),
            held=len(held),
            runs=held[: work.MAX_REPORTED_RUNS],
        )

    def _state(self, held: list[str]) -> str:
        is_blocked = self._blocked.look(self._executions.awaited, held)
        if self._stopping.is_set():
            return "draining"
        return "blocked" if is_blocked else "working"

    async def _let_finish(self) -> None:
        if not self._executions:
            return
        logger.info("worker %s drains %d runs", self.name, len(self._executions))
        finished = asyncio.wait(self._executions.tasks())
        await first_of(finished, self._hurrying.wait(), seconds=self._drain_seconds)

    async def _hand_back(self) -> None:
        """Cancel the handlers under way and put their runs back into the queue, within a limit."""
        tasks = self._executions.tasks()
        if not tasks:
            return
        self._executions.stop_all(Verdict.HANDED_BACK)
        _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS + HAND_BACK_SECONDS)
        if late:
            logger.warning("%d runs are handed on when their leases have run out", len(late))
        await end_within(STOP_SECONDS, list(late))

    async def _until_stopping(self, waiting: Coroutine[Any, Any, object]) -> None:
        await first_of(waiting, self._stopping.wait())


def _idle_seconds(next_due_seconds: float | None) -> float:
    idle = IDLE_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311  # jitter, not a secret
    return idle if next_due_seconds is None else min(idle, next_due_seconds)
