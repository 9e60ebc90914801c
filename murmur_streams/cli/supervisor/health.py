"""The health of workers, of one process or of all of a supervisor, and how probes ask for it.

By a file that is touched at each beat, or by ``GET /livez``, ``/readyz`` and ``/metrics``: the
smallest server that satisfies a probe.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from murmur_streams.cli.supervisor.child import Child
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.fleet.worker.worker import REGISTER_SECONDS
from murmur_streams.settings import Settings
from murmur_streams.stores.redis.connection.server_warnings import (
    EVICTION_MEANING,
    EVICTION_METRIC,
    METRIC,
    METRIC_MEANING,
    WarningKind,
)
from murmur_streams.stores.redis.rewinds import REWINDS_MEANING, REWINDS_METRIC

logger = logging.getLogger("murmur_streams.worker")
_process_logger = logging.getLogger("murmur_streams.processes")

REQUEST_SECONDS = 5.0
"""How long a probe may take to send its request."""
_LONGEST_REQUEST = 8_192
_READS = frozenset({"GET", "HEAD"})
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
BEATS = 3
"""A worker beats every few seconds; after so many missed beats it counts as silent."""
BLOCKED_SECONDS = 5.0
"""How long after a beat is too old a process counts as stuck: its event loop does not run."""
MOST_TARGETS = 20
"""How many targets an answer names; `murmur-streams workers` names them all."""


def fresh_seconds(lease_seconds: float) -> float:
    """How old the last beat of a ready worker may be."""
    return max(lease_seconds, BEATS * REGISTER_SECONDS)


class Status(StrEnum):
    """Where a worker process is in its life."""

    STARTING = "starting"
    WORKING = "working"
    DRAINING = "draining"


@dataclass
class WorkerHealth:
    """The health of one worker process, by its beats.

    Args:
        fresh_seconds: how old its last beat may be while it is ready.
        changed: called at each beat and each change.
    """

    fresh_seconds: float
    changed: Callable[[WorkerHealth], None] = lambda _: None
    status: Status = Status.STARTING
    worker: str | None = None
    targets: tuple[str, ...] = ()
    warnings: Callable[[], Mapping[str, str]] = field(default=dict[str, str], repr=False)
    """What should be mended on a store that works: the advice by its kind."""
    refusal: Callable[[], str | None] = field(default=lambda: None, repr=False)
    """Why the server lets the worker claim no runs."""
    rewinds: Callable[[], int] = field(default=lambda: 0, repr=False)
    """How often the server was found to have lost writes of this process."""
    beats: int = 0
    beaten_at: float | None = field(default=None, repr=False)

    def beat(self) -> None:
        """The server has just answered a beat of this worker."""
        self.beats += 1
        self.beaten_at = time.monotonic()
        if self.status is Status.STARTING:
            self.status = Status.WORKING
        self.changed(self)

    def set_draining(self) -> None:
        """The worker claims no more runs."""
        self.status = Status.DRAINING
        self.changed(self)

    @property
    def is_fresh(self) -> bool:
        """Whether its last beat is recent enough."""
        return self.beaten_at is not None and time.monotonic() - self.beaten_at < self.fresh_seconds

    @property
    def is_live(self) -> bool:
        """Always true: an answer itself shows that the event loop runs."""
        return True

    @property
    def is_ready(self) -> bool:
        """Whether it claims runs: it works, the server took its last beat and refuses no claim."""
        return self.status is Status.WORKING and self.is_fresh and self.refusal() is None

    @property
    def warned_of(self) -> set[str]:
        """The kinds of the store's warnings."""
        return {*self.warnings()}

    def as_json(self) -> dict[str, Any]:
        """The body of a probe's answer."""
        beaten, refusal = self.beaten_at, self.refusal()
        warning = "; ".join(self.warnings().values())
        rewinds = self.rewinds()
        is_silent = self.status is Status.WORKING and not self.is_fresh
        return {
            "status": "no heartbeat" if is_silent else str(self.status),
            "worker": self.worker,
            "targets": list(self.targets[:MOST_TARGETS]),
            "last_beat_seconds_ago": None
            if beaten is None
            else round(time.monotonic() - beaten, 1),
            **({"warning": warning} if warning else {}),
            **({} if refusal is None else {"refused": refusal}),
            **({"rewinds": rewinds} if rewinds else {}),
        }


class SupervisorHealth:
    """The health of all processes, for probes.

    Args:
        processes: how many there should be.
        fresh_seconds: how old the last beat of a ready process may be.
        on_beat: called at a beat while all of them are ready.
    """

    def __init__(
        self, processes: int, fresh_seconds: float, on_beat: Callable[[], None] = lambda: None
    ) -> None:
        self._processes = processes
        self._fresh_seconds = fresh_seconds
        self._on_beat = on_beat
        self._draining = False
        self.children: dict[int, Child] = {}
        """The processes that run, by their numbers; the supervisor adds and removes them."""

    def on_report(self, child: Child) -> None:
        """Take notice of a report."""
        if child.beaten_at == child.reported_at and self._all(self._is_fresh):
            self._on_beat()

    def set_draining(self) -> None:
        """The processes are stopping."""
        self._draining = True

    @property
    def is_live(self) -> bool:
        """Whether no process is stuck; one that loads its code, or is replaced, is not."""
        return not any(map(self._is_stuck, self.children.values()))

    @property
    def is_ready(self) -> bool:
        """Whether all of them take runs."""
        return not self._draining and self._all(self._is_ready)

    @property
    def warned_of(self) -> set[str]:
        """The kinds of the warnings that they report."""
        reports = [child.report for child in self.children.values()]
        return {kind for report in reports for kind in report.get("warned_of", ())}

    def rewinds(self) -> int:
        """The sum over all of them."""
        return sum(child.report.get("rewinds", 0) for child in self.children.values())

    def as_json(self) -> dict[str, Any]:
        """The body of a probe's answer."""
        started = all(child.was_ready for child in self.children.values())
        status = Status.WORKING if started and self.children else Status.STARTING
        return {
            "status": str(Status.DRAINING if self._draining else status),
            "processes": [
                {"pid": child.pid, **_shown(child), "stuck": self._is_stuck(child)}
                for _, child in sorted(self.children.items())
            ],
        }

    def _all(self, check: Callable[[Child], bool]) -> bool:
        return len(self.children) == self._processes and all(map(check, self.children.values()))

    def _is_fresh(self, child: Child) -> bool:
        beaten = child.beaten_at
        return beaten is not None and time.monotonic() - beaten < self._fresh_seconds

    def _is_ready(self, child: Child) -> bool:
        is_working = child.report.get("status") == Status.WORKING and "refused" not in child.report
        return is_working and self._is_fresh(child)

    def _is_stuck(self, child: Child) -> bool:
        longest = self._fresh_seconds + BLOCKED_SECONDS
        last = child.reported_at
        return last is not None and time.monotonic() - last > longest


def _shown(child: Child) -> dict[str, Any]:
    report = child.report
    shown = {"worker": report.get("worker"), "status": report.get("status", str(Status.STARTING))}
    return shown | {
        name: report[name] for name in ("warning", "refused", "rewinds") if name in report
    }


AnyHealth = WorkerHealth | SupervisorHealth


@contextmanager
def touched_file(path: Path | None) -> Generator[Callable[[], None]]:
    """Yield a function that touches the file at a beat; the file is removed at the end.

    A full disk or a missing folder is logged at each beat, and the worker goes on.

    Raises:
        InvalidInputError: it cannot be written.
    """
    if path is None:
        yield lambda: None
        return
    try:
        # A process that was killed left its file: it must not count as a beat of this one.
        path.unlink(missing_ok=True)
        if not path.parent.is_dir():
            raise FileNotFoundError(2, "its folder does not exist")
    except OSError as error:
        raise InvalidInputError(f"--health-file {path}: {error.strerror}") from None
    has_ended = False

    def touch() -> None:
        try:
            if not has_ended:
                path.touch()
        except OSError as error:
            logger.warning("the health file %s cannot be touched: %s", path, error.strerror)

    try:
        yield touch
    finally:
        has_ended = True
        with suppress(OSError):
            path.unlink(missing_ok=True)


@asynccontextmanager
async def serve_probes(settings: Settings, health: AnyHealth) -> AsyncGenerator[str | None]:
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
        _process_logger.info("probes are answered at %s/livez and %s/readyz", address, address)
        yield address
    finally:
        server.close()


def _answer(request: str, health: AnyHealth) -> bytes:
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


def _found(method: str, path: str, health: AnyHealth) -> tuple[int, dict[str, Any]]:
    checks = {"/livez": lambda: health.is_live, "/readyz": lambda: health.is_ready}
    if path not in checks:
        return 404, {"error": "there are /livez, /readyz and /metrics"}
    if method not in _READS:
        return 405, {"error": "GET it"}
    ok = checks[path]()
    return (200 if ok else 503), {"ok": ok, **health.as_json()}


def _metrics(health: AnyHealth) -> str:
    """A worker's metrics in the text format of Prometheus."""
    kinds = health.warned_of
    lines = [
        *_head(EVICTION_METRIC, EVICTION_MEANING),
        f"{EVICTION_METRIC} {int(WarningKind.EVICTION in kinds)}",
        *_head(METRIC, METRIC_MEANING),
        *(f'{METRIC}{{kind="{each.value}"}} {int(each in kinds)}' for each in WarningKind),
        *_head(REWINDS_METRIC, REWINDS_MEANING, "counter"),
        f"{REWINDS_METRIC} {health.rewinds()}",
    ]
    return "\n".join(lines) + "\n"


def _head(name: str, meaning: str, kind: str = "gauge") -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
