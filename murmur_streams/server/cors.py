"""Which pages of other origins may use this server from a browser: none, unless they are named."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS = ("GET", "HEAD", "POST", "DELETE")
SENT = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "Traceparent",
    "Tracestate",
    "X-Request-Id",
)
"""Headers that a page may send."""
SEEN = (
    "Allow",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "Murmur-Warning",
    "Preference-Applied",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-Id",
)
"""Headers that a page may read, besides those that it always may."""


def with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The app, for pages of exactly these origins, too; they have been checked.

    It must be the outermost: a page is to read the refusals of what lies below. Cookies and the
    browser's other ambient credentials are never taken: a page sends a token or a ticket.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=SENT,
        expose_headers=SEEN,
        allow_credentials=False,
    )
