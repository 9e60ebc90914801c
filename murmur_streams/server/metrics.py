"""A pod's metrics for Prometheus. No label has a value that a client chose."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from murmur_streams.stores.redis.connection.checks import METRIC, METRIC_MEANING

_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self, open_streams: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "murmur_http_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "murmur_http_request_seconds",
            "From a request's headers to those of its answer.",
            ("method", "route"),
            registry=self._registry,
        )
        self._submitted = Counter(
            "murmur_runs_submitted", "Runs that were submitted here.", registry=self._registry
        )
        streams = Gauge(
            "murmur_open_streams",
            "Open streams, and requests that wait for a run.",
            registry=self._registry,
        )
        streams.set_function(open_streams)

        self._may_evict = Gauge(METRIC, METRIC_MEANING, registry=self._registry)

    def record_warning(self, warning: str | None) -> None:
        """Record the store's warning; None: it has none."""
        self._may_evict.set(warning is not None)

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
