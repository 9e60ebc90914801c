"""Worker: the order of its parts. Claim, execute, keep the leases, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import secrets
import socket
from collections.abc import Coroutine, Sequence
from typing import Any

from murmur_streams.core.errors import (
    AgentNotRegisteredError,
    EmbeddedServerError,
    InvalidInputError,
    StoreClosedError,
    StoreConfigurationError,
    StoreError,
)
from murmur_streams.fleet.fleet import Fleet
from murmur_streams.fleet.worker.execution import Execution
from murmur_streams.fleet.worker.leases import hand_on, keep_leases
from murmur_streams.fleet.worker.tasks import guard_tasks
from murmur_streams.stores.redis.queue import Claim, Queue
from murmur_streams.stores.redis.store import RedisRunStore

logger = logging.getLogger("murmur_streams.worker")

IDLE_SECONDS = 5.0
"""How long an idle worker waits for a wake-up before it looks at the queue by itself."""
CANCEL_SECONDS = 1.0
"""How long a cancelled handler may take to clean up."""
HAND_BACK_SECONDS = 5.0
"""How long a stopping worker tries to hand its runs back."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]")


class Worker:
    """Executes a fleet's runs in this process until it is stopped.

    Guarantee: a run is executed at least once and ends once. When this worker dies, its runs are
    taken over by others after ``lease_seconds``, and nothing that it still writes counts.
    A cancelled ``def`` agent goes on in its thread until it returns: it writes nothing more, and
    its slot is free. Code that keeps the event loop or the GIL for longer than the lease loses it.

    Args:
        fleet: whose agents; their targets are claimed.
        concurrency: how many runs at the same time.
        lease_seconds: how long this worker may be silent before its runs are taken over; >= 1.
        drain_seconds: how long ``stop`` waits for the runs under way before it hands them back.
        targets: only these agents; None for all.
        worker_id: 1 to 128 characters of A-Z a-z 0-9 . _ - that begin with a letter or a digit;
            None makes one of host, process id and four random digits.
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
    ) -> None:
        if concurrency < 1 or lease_seconds < 1 or drain_seconds < 0:
            raise InvalidInputError(
                "a worker needs concurrency >= 1, lease_seconds >= 1 and drain_seconds >= 0"
            )
        self.worker_id = _new_worker_id() if worker_id is None else _checked_id(worker_id)
        self._fleet = fleet
        self._targets = _checked_targets(fleet, targets)
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._drain_seconds = drain_seconds
        self._held: dict[str, tuple[Execution, asyncio.Task[None]]] = {}
        """By claim token: a run may come back while its lost execution has yet to end."""
        self._slot_free = asyncio.Event()
        self._handed_on = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()

    @property
    def held(self) -> list[str]:
        """The ids of the runs that it executes now."""
        return [claim.run_id for claim in self._claims()]

    def stop(self) -> None:
        """Claim no more and drain; a second call hands the runs under way back at once."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def run(self) -> None:
        """Work until ``stop`` is called, then drain.

        Raises:
            StoreConfigurationError: the server does not fit or refuses this user.
        """
        guard_tasks(asyncio.get_running_loop())
        store = await self._fleet.store()
        queue = Queue(store, self._lease_seconds)
        await queue.prepare(self._targets)
        logger.info("worker %s executes %s", self.worker_id, ", ".join(self._targets))
        care = [
            asyncio.create_task(keep_leases(queue, self._lease_seconds, self._claims, self._lost)),
            asyncio.create_task(hand_on(queue, self._lease_seconds, self._handed_on.set)),
        ]
        for task in care:
            # They end by a bug only, and a worker without them is worse than none.
            task.add_done_callback(lambda _: self._stopping.set())
        try:
            await self._work(store, queue)
            await self._drain(queue)
        finally:
            await asyncio.gather(self._cancel_held(), _cancel(care))
        for task in care:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        logger.info("worker %s has stopped", self.worker_id)

    async def _work(self, store: RedisRunStore, queue: Queue) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                await self._take(store, queue)
                failures = 0
            except StoreError as error:
                if _is_for_good(error):
                    raise
                logger.warning("worker %s tries again to claim runs: %s", self.worker_id, error)
                await self._until_stopping(queue.recover(failures))
                failures += 1

    async def _take(self, store: RedisRunStore, queue: Queue) -> None:
        """Fill the free slots, then wait for a free one or for more to do."""
        free = self._concurrency - len(self._held)
        if free <= 0:
            self._slot_free.clear()
            await self._until_stopping(self._slot_free.wait())
            return
        self._handed_on.clear()
        claims = await self._claim(queue, free)
        for claim in claims:
            self._start(store, claim)
        if len(claims) < free:
            wake_up = queue.wait(self._targets, _idle_seconds())
            await self._until_stopping(_first_of(wake_up, self._handed_on.wait(), seconds=None))

    async def _claim(self, queue: Queue, count: int) -> list[Claim]:
        # Another order each time, so that a full queue does not starve the targets behind it.
        targets = random.sample(self._targets, len(self._targets))
        return await queue.claim(self.worker_id, targets, count)

    def _start(self, store: RedisRunStore, claim: Claim) -> None:
        execution = Execution(store, self._fleet.agents[claim.target], claim, self.worker_id)
        task = asyncio.create_task(execution.run(), name=f"run {claim.run_id}")
        self._held[claim.token] = (execution, task)
        task.add_done_callback(lambda done: self._ended(claim, done))

    def _ended(self, claim: Claim, task: asyncio.Task[None]) -> None:
        del self._held[claim.token]
        self._slot_free.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("run %s: the worker could not end it", claim.run_id, exc_info=error)

    def _claims(self) -> list[Claim]:
        return [execution.claim for execution, _ in self._held.values()]

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for _, task in self._held.values()]

    def _lost(self, claim: Claim) -> None:
        execution, _ = self._held.get(claim.token, (None, None))
        if execution is None or execution.is_ending:
            return
        logger.warning("run %s: the claim is over, its execution is cancelled", claim.run_id)
        execution.cancel()

    async def _drain(self, queue: Queue) -> None:
        if not self._held:
            return
        logger.info("worker %s drains %d runs", self.worker_id, len(self._held))
        finished = asyncio.wait(self._tasks())
        await _first_of(finished, self._hurrying.wait(), seconds=self._drain_seconds)
        claims = self._claims()
        await self._cancel_held()
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await asyncio.gather(*(queue.release(claim, "worker_stopped") for claim in claims))
        except (StoreError, TimeoutError) as error:
            logger.warning("runs are handed on when their leases have run out: %r", error)

    async def _cancel_held(self) -> None:
        tasks = self._tasks()
        for execution, _ in self._held.values():
            execution.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        # A handler that will not be cancelled is left behind: nothing that it writes counts.
        await _cancel(tasks)

    async def _until_stopping(self, waiting: Coroutine[Any, Any, object]) -> None:
        await _first_of(waiting, self._stopping.wait(), seconds=None)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_SECONDS)


async def _first_of(
    one: Coroutine[Any, Any, object],
    other: Coroutine[Any, Any, object],
    *,
    seconds: float | None,
) -> None:
    tasks = [asyncio.create_task(each) for each in (one, other)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _checked_targets(fleet: Fleet, targets: Sequence[str] | None) -> list[str]:
    if not fleet.agents:
        raise AgentNotRegisteredError(
            "this fleet has no agents to execute; register one with @fleet.agent"
        )
    for target in targets or ():
        if target not in fleet.agents:
            raise AgentNotRegisteredError(
                f"this fleet has no agent {target!r}; it has: {', '.join(sorted(fleet.agents))}"
            )
    return list(targets or fleet.agents)


def _checked_id(worker_id: str) -> str:
    if _ID.fullmatch(worker_id):
        return worker_id
    raise InvalidInputError(
        f"worker id {ascii(worker_id)[:60]} is refused: use 1 to 128 characters of "
        "A-Z a-z 0-9 . _ - that begin with a letter or a digit"
    )


def _is_for_good(error: StoreError) -> bool:
    # An embedded server that does not start now may start later, when there is room on the disk.
    wrong = isinstance(error, StoreConfigurationError) and not isinstance(
        error, EmbeddedServerError
    )
    return wrong or isinstance(error, StoreClosedError)


def _idle_seconds() -> float:
    return IDLE_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311  # jitter, no secret


def _new_worker_id() -> str:
    host = _NOT_IN_AN_ID.sub("-", socket.gethostname()).lstrip("._-")[:60] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(2)}"
