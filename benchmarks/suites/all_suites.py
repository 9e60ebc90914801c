"""The list of all suites."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.harness.session import Session
from benchmarks.suites import (
    delivery,
    http_streams,
    jobs,
    local_stores,
    redis_store,
    scale,
    soak,
)

SUITES: dict[str, Callable[[Session], Awaitable[None]]] = {
    "redis": redis_store.redis_store,
    "delivery": delivery.delivery,
    "jobs": jobs.jobs,
    "idle": scale.idle,
    "live": scale.live,
    "footprint": scale.footprint,
    "growth": scale.growth,
    "journals": scale.journals,
    **{kind: local_stores.local_store(kind) for kind in local_stores.KINDS},
    "http": http_streams.http_streams,
    "soak": soak.soak,
}
USUAL = [name for name in SUITES if name != "soak"]
"""The suites of a run that does not say which."""
