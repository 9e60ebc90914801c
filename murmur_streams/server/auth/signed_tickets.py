"""A stream ticket as text: signed here, read again on any pod that has the secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

from murmur_streams.server.auth.principal import Principal, Scope

LONGEST = 1_024
_PURPOSE = b"murmur-streams stream ticket 1\n"


def sign_ticket(secret: bytes, who: Principal, seconds: float) -> str:
    """A ticket that lets this caller read its ``run_id``, when it is shown in so many seconds."""
    fields = [who.run_id, who.tenant, time.time() + seconds, who.name, who.expires_at]
    body = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=")
    return b".".join((body, _signature(secret, body))).decode()


def read_ticket(secret: bytes, ticket: str) -> Principal | None:
    """Who carries it; None when it was not signed with this secret, or its time is over."""
    if len(ticket) > LONGEST:
        return None
    body, _, signature = ticket.encode(errors="replace").partition(b".")
    if not hmac.compare_digest(_signature(secret, body), signature):
        return None
    fields = base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4))
    run_id, tenant, until, name, expires_at = json.loads(fields)
    if time.time() >= until:
        return None
    return Principal(name, frozenset({Scope.READ}), tenant, run_id, expires_at)


def seconds_left(who: Principal, most: float) -> float:
    """How long a ticket may be good: no longer than the credentials it was given for."""
    if who.expires_at is None:
        return most
    return max(0.0, min(most, who.expires_at - time.time()))


def _signature(secret: bytes, body: bytes) -> bytes:
    # The purpose keeps what is signed with the same secret for something else from being a ticket.
    made = hmac.digest(secret, _PURPOSE + body, hashlib.sha256)
    return base64.urlsafe_b64encode(made).rstrip(b"=")
