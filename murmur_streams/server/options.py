"""The options of a pod: its limits, and how it authenticates callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from murmur_streams.server.auth import Authenticator


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The limits of one pod. Times are seconds, sizes bytes."""

    authenticator: Authenticator | None = None
    """Finds the caller of a request; None: no credentials are needed, and all may do everything."""
    ticket_secret: bytes | None = None
    """The key that signs stream tickets, the same on every pod; None: the pod issues no tickets."""
    ticket_seconds: float = 60.0
    cors_origins: tuple[str, ...] = ()
    public_openapi: bool = False
    """Whether ``/openapi.json`` needs no credentials, though other routes do."""
    docs: bool = False
    """Whether ``/docs`` and ``/redoc`` show the document; their scripts come from a public CDN."""
    max_body_bytes: int = 2 * 1024 * 1024
    body_seconds: float = 30.0
    max_header_bytes: int = 16 * 1024
    max_headers: int = 100
    header_seconds: float = 10.0
    max_path_bytes: int = 8 * 1024
    max_json_depth: int = 64
    max_json_values: int = 100_000
    """Values of a body, without the names: parsing a million blocks the pod's event loop."""
    max_page: int = 500
    max_wait_seconds: float = 60.0
    """The longest wait of a long-poll or a ``Prefer: wait``."""
    run_seconds: float = 300.0
    """The longest time that ``run`` and ``gather`` wait for outcomes."""
    max_streams: int = 10_000
    """Open streams of the pod; a waiting request counts as one."""
    max_streams_per_caller: int = 1_000
    max_runs_per_stream: int = 20
    stream_seconds: float = 3_600.0
    """The longest time that a stream is open; its client then resumes on any pod."""
    heartbeat_seconds: float = 15.0
    send_seconds: float = 60.0
    """A stream is closed when its reader reads nothing for this long."""
    retry_ms: int = 1_000
    """The time after which a client should reconnect."""
    drain_seconds: float = 10.0
