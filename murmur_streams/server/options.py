"""What a pod is started with: limits of size, time and number, and who may use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from murmur_streams.server.auth.bearer import Authenticator


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The limits of one pod. Times are seconds, sizes bytes."""

    authenticator: Authenticator | None = None
    """Who is who; None: no credentials are asked for, everybody may do everything."""
    ticket_secret: bytes | None = None
    """What stream tickets are signed with, the same on every pod; None: there are none."""
    ticket_seconds: float = 60.0
    cors_origins: tuple[str, ...] = ()
    public_openapi: bool = False
    """Whether ``/openapi.json`` asks for no credentials, where everything else does."""
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
    """Values of a body, names not counted: reading a million holds up all that a pod does."""
    max_page: int = 500
    max_wait_seconds: float = 60.0
    """The longest wait of a long-poll or a ``Prefer: wait``."""
    run_seconds: float = 300.0
    """How long a request that runs an agent waits for its end at most."""
    max_streams: int = 10_000
    """Open streams of the pod; a request that waits counts as one."""
    max_streams_per_caller: int = 1_000
    max_runs_per_stream: int = 20
    stream_seconds: float = 3_600.0
    """How long a stream may be open; then its client resumes on any pod."""
    heartbeat_seconds: float = 15.0
    send_seconds: float = 60.0
    """How long a reader may take nothing before its stream is closed."""
    retry_ms: int = 1_000
    """What clients are told to wait before they come back."""
    drain_seconds: float = 10.0
