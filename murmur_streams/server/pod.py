"""What all routes of one pod share: the fleet, the limits, who asks, and the open streams."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from murmur_streams.core.model.errors import MurmurError, RunNotFoundError
from murmur_streams.core.model.run import Run
from murmur_streams.fleet.fleet import Fleet
from murmur_streams.fleet.log_throttle import Trouble
from murmur_streams.server.auth.principal import Principal
from murmur_streams.server.options import ServerOptions
from murmur_streams.server.problems import ProblemError
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.problems import DRAINING, TOO_MANY

logger = logging.getLogger("murmur_streams.server")


class Drain(asyncio.Event):
    """Set when the pod shuts down; whoever is to let go then is called, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: set[Callable[[], None]] = set()
        """What is called, once; for a pod's thousands of streams no task has to wait."""

    def set(self) -> None:
        """Shut down."""
        super().set()
        for call in list(self.calls):
            call()


class Pod:
    """One server process's side of the routes. Makes no I/O until it is used."""

    def __init__(self, fleet: Fleet, options: ServerOptions) -> None:
        self.fleet = fleet
        self.options = options
        self.drain = Drain()
        """Set: no new work is taken, and open streams let their clients go."""
        self.streams: Counter[str] = Counter()
        """Open streams by caller."""
        self.in_flight: set[tuple[str | None, str]] = set()
        """Tenant and key of submissions with an idempotency key that are under way here."""
        self.trouble = Trouble(logger, "the pod is not ready")

    async def store(self) -> WorkStore:
        """The store of the running loop."""
        return await self.fleet.store()

    async def warning(self) -> str | None:
        """What to mend on the store though it works; None for nothing, or when it is not open."""
        try:
            return (await self.store()).warning
        except MurmurError:
            return None

    async def find(self, who: Principal, run_id: str) -> Run:
        """The run, when it is there for this caller.

        Raises:
            RunNotFoundError: there is none, or it is another tenant's: both look the same.
        """
        run = await (await self.store()).snapshot(run_id)
        if not who.sees(run_id, run.tenant):
            raise RunNotFoundError(run_id)
        return run

    @contextmanager
    def streaming(self, who: Principal) -> Generator[None]:
        """Count one open stream while the context is.

        Raises:
            ProblemError: the pod is draining (503), or there are too many (429).
        """
        if self.drain.is_set():
            raise ProblemError(DRAINING)
        if self.streams[who.name] >= self.options.max_streams_per_caller:
            raise ProblemError(TOO_MANY, "these credentials have too many open streams")
        if self.streams.total() >= self.options.max_streams:
            raise ProblemError(TOO_MANY, "this pod has too many open streams; ask another")
        self.streams[who.name] += 1
        try:
            yield
        finally:
            self.streams[who.name] -= 1
            if not self.streams[who.name]:
                del self.streams[who.name]
