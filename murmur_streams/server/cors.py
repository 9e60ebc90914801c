"""Pages of other origins may use this server from a browser only if their origins are listed."""

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
"""Headers that a page may read, besides those that browsers always allow."""


def with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The app, open to pages of exactly these origins, which have been checked before.

    It must be around ``RequestLimits``, so that a page can read its problem documents. Cookies and
    other credentials that a browser adds by itself are not used: a page sends a token or a ticket.
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
