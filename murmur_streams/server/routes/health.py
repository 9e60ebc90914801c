"""Probes and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Depends, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.server.inputs import READERS, ThePod, check_query
from murmur_streams.server.openapi import make_router
from murmur_streams.server.pod import Pod
from murmur_streams.server.responses import json_answer
from murmur_streams.wire.answers import Health, Readiness

router = make_router("health")

READY_SECONDS = 2.0
"""The longest time that a readiness probe waits for the store."""
READY = "ready"
_UNREADY: dict[int | str, dict[str, Any]] = {
    503: {"model": Readiness, "description": "It is not, and why"}
}
_OPEN = [Depends(check_query)]


@router.get("/healthz", dependencies=_OPEN)
async def is_alive() -> Health:
    """Whether the process answers."""
    return Health(status="ok")


@router.get("/health", dependencies=_OPEN)
async def is_alive_too() -> Health:
    """The same, under its older name."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses=_UNREADY, dependencies=_OPEN)
async def is_ready(pod: ThePod) -> Response:
    """Whether it may be sent requests: its store is there with our scripts, and it does not end."""
    status = await _readiness(pod)
    warnings = await pod.warnings() if status == READY else {}
    warning = "; ".join(warnings.values()) or None
    answer = json_answer(Readiness(status=status, warning=warning), 200 if status == READY else 503)
    if status != READY:
        answer.headers["Retry-After"] = "5" if status == "shutting_down" else "1"
    return answer


@router.get("/metrics", response_class=PlainTextResponse, dependencies=READERS)
async def read_metrics(pod: ThePod) -> Response:
    """The pod's counters, as Prometheus reads them."""
    pod.metrics.record_store(await pod.warnings(), await pod.rewinds())
    return Response(pod.metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def _readiness(pod: Pod) -> str:
    if pod.drain.is_set():
        return "shutting_down"
    try:
        async with asyncio.timeout(READY_SECONDS):
            await (await pod.store()).ping()
    except MurmurError as error:
        pod.ready_log.failed(error)
        return "store_unreachable"
    except TimeoutError:
        pod.ready_log.failed(TimeoutError(f"the store did not answer within {READY_SECONDS} s"))
        return "store_unreachable"
    pod.ready_log.recovered()
    return READY
