"""``GET /livez``, ``/readyz`` and ``/metrics``: the smallest server that satisfies a probe."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.settings import Settings
from murmur_streams.stores.redis.connection.checks import METRIC, METRIC_MEANING

logger = logging.getLogger("murmur_streams.processes")

REQUEST_SECONDS = 5.0
"""How long a client may take to send its request."""
_LONGEST_REQUEST = 8_192
_READS = frozenset({"GET", "HEAD"})
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Probed(Protocol):
    """The health that probes read: of one worker, or of all processes of a supervisor."""

    @property
    def is_live(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def is_warned(self) -> bool: ...
    def as_json(self) -> dict[str, Any]: ...


@asynccontextmanager
async def serve_probes(settings: Settings, health: Probed) -> AsyncGenerator[str | None]:
    """Answer probes while the block runs, and yield the address; None when no port was chosen.

    Raises:
        InvalidInputError: the port is not free, or this process may not listen on it.
    """
    if settings.health_port is None:
        yield None
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answer(head.split(b"\r\n", 1)[0].decode("latin-1"), health))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(
            answer, settings.health_host, settings.health_port, limit=_LONGEST_REQUEST
        )
    except OSError as error:
        where = f"--health-port {settings.health_port} on {settings.health_host}"
        raise InvalidInputError(f"{where}: {error.strerror or error}") from None
    try:
        host, port = server.sockets[0].getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        logger.info("probes are answered at %s/livez and %s/readyz", address, address)
        yield address
    finally:
        server.close()


def _answer(request: str, health: Probed) -> bytes:
    method, _, rest = request.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    kind = "application/json"
    if path == "/metrics" and method in _READS:
        code, text, kind = 200, _metrics(health), "text/plain; version=0.0.4; charset=utf-8"
    else:
        code, body = _found(method, path, health)
        text = json.dumps(body) + "\n"
    content = b"" if method == "HEAD" else text.encode()
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


def _found(method: str, path: str, health: Probed) -> tuple[int, dict[str, Any]]:
    checks = {"/livez": lambda: health.is_live, "/readyz": lambda: health.is_ready}
    if path not in checks:
        return 404, {"error": "there are /livez, /readyz and /metrics"}
    if method not in _READS:
        return 405, {"error": "GET it"}
    ok = checks[path]()
    return (200 if ok else 503), {"ok": ok, **health.as_json()}


def _metrics(health: Probed) -> str:
    """A worker's metrics in the text format of Prometheus."""
    value = int(health.is_warned)
    return f"# HELP {METRIC} {METRIC_MEANING}\n# TYPE {METRIC} gauge\n{METRIC} {value}\n"
