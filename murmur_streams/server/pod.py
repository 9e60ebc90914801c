"""The state that all routes of one pod share: fleet, limits, open streams and metrics."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from murmur_streams.core.model.errors import MurmurError, RunNotFoundError
from murmur_streams.core.model.results import AgentResult, GroupResult
from murmur_streams.core.model.run import Run
from murmur_streams.fleet.fleet import Fleet
from murmur_streams.fleet.logs import LogThrottle
from murmur_streams.server.auth import Principal
from murmur_streams.server.options import ServerOptions
from murmur_streams.server.responses import logger
from murmur_streams.stores.redis.connection.server_warnings import (
    EVICTION_MEANING,
    EVICTION_METRIC,
    METRIC,
    METRIC_MEANING,
    WarningKind,
)
from murmur_streams.stores.redis.rewinds import REWINDS_MEANING, REWINDS_METRIC
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.answers import AgentOutcome, AnyOutcome, GroupOutcome
from murmur_streams.wire.problems import DRAINING, TOO_MANY, ProblemError

_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one app for Prometheus, in a registry of its own.

    No label has a value that a client chose.
    """

    def __init__(self, open_streams: Callable[[], float]) -> None:
        own = self._registry = CollectorRegistry()
        self._requests = Counter(
            "murmur_http_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=own,
        )
        self._seconds = Histogram(
            "murmur_http_request_seconds",
            "From a request's headers to those of its answer.",
            ("method", "route"),
            registry=own,
        )
        self._submitted = Counter(
            "murmur_runs_submitted", "Runs that were submitted here.", registry=own
        )
        streams = Gauge(
            "murmur_open_streams", "Open streams, and requests that wait for a run.", registry=own
        )
        streams.set_function(open_streams)

        self._may_evict = Gauge(EVICTION_METRIC, EVICTION_MEANING, registry=own)
        self._warnings = Gauge(METRIC, METRIC_MEANING, ("kind",), registry=own)
        name = REWINDS_METRIC.removesuffix("_total")
        self._rewinds = Counter(name, REWINDS_MEANING, registry=own)
        self._rewinds_seen = 0
        self.record_store((), 0)

    def record_store(self, kinds: Collection[str], rewinds: int) -> None:
        """Record of which kinds the store has warnings, and how often its server lost writes."""
        self._rewinds.inc(max(0, rewinds - self._rewinds_seen))
        self._rewinds_seen = rewinds
        self._may_evict.set(WarningKind.EVICTION in kinds)
        for kind in WarningKind:
            self._warnings.labels(kind.value).set(kind in kinds)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; ``route`` is the path template."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)

    def submitted(self) -> None:
        """Count a run that was submitted."""
        self._submitted.inc()

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        return generate_latest(self._registry)


class Drain(asyncio.Event):
    """Set when the pod shuts down; it then calls every callback in ``calls``."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: set[Callable[[], None]] = set()
        """Each is called once. For thousands of streams, callbacks cost less than waiting tasks."""

    def set(self) -> None:
        """Shut down."""
        super().set()
        for call in list(self.calls):
            call()


class Pod:
    """The state of one server process. Does no I/O until it is used."""

    def __init__(self, fleet: Fleet, options: ServerOptions) -> None:
        self.fleet = fleet
        self.options = options
        self.drain = Drain()
        """Set: the pod accepts no new work, and open streams end."""
        self.streams: collections.Counter[str] = collections.Counter()
        """Number of open streams by caller."""
        self.metrics = Metrics(self.streams.total)
        self.in_flight: set[tuple[str | None, str]] = set()
        """Tenant and idempotency key of the submissions that this pod is working on."""
        self.ready_log = LogThrottle(logger, "the pod is not ready")

    async def store(self) -> WorkStore:
        """The store of the running loop."""
        return await self.fleet.store()

    async def warnings(self) -> dict[str, str]:
        """What an operator should mend on a store that works; empty also if it cannot be opened."""
        try:
            return (await self.store()).warnings
        except MurmurError:
            return {}

    async def rewinds(self) -> int:
        """How often the store lost writes; 0 also if it cannot be opened."""
        try:
            return (await self.store()).rewinds
        except MurmurError:
            return 0

    async def find(self, who: Principal, run_id: str) -> Run:
        """The run, if it exists and the caller may see it.

        Raises:
            RunNotFoundError: it does not exist, or belongs to another tenant: the same answer, so
                that a caller cannot find out which ids others use.
        """
        run = await (await self.store()).snapshot(run_id)
        if not who.sees(run_id, run.tenant):
            raise RunNotFoundError(run_id)
        return run

    async def outcome(self, run: Run) -> AnyOutcome:
        """The outcome of a run that has ended; for a run without a result, its error."""
        result = await (await self.store()).get_result(run.run_id)
        if isinstance(result, GroupResult):
            return GroupOutcome.of(result)
        if result is None:
            error = run.error_without_result
            result = AgentResult[Any](error=error, agent_name=run.target, task_id=run.run_id)
        return AgentOutcome.of(result)

    @contextmanager
    def streaming(self, who: Principal) -> Generator[None]:
        """Count one open stream while the context is open.

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
