"""Principals, the authenticated callers, their scopes, and the stream tickets that stand for them.

A ticket is signed text; any pod with the same secret can read it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from enum import StrEnum

LONGEST_TICKET = 1_024
_PURPOSE = b"murmur-streams stream ticket 1\n"


class Scope(StrEnum):
    """A permission of a caller."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"
    """Everything, on the runs of all tenants."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller."""

    name: str
    """For logs and limits; never a secret."""
    scopes: frozenset[Scope]
    tenant: str | None = None
    """The tenant whose runs it sees; None: the runs without a tenant."""
    run_id: str | None = None
    """The only run that it may see, if it came with a stream ticket; None: no such limit."""
    expires_at: float | None = None
    """When its credentials expire, in Unix seconds; an open stream ends then. None: never."""

    @property
    def is_admin(self) -> bool:
        """Whether it sees the runs of all tenants."""
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether it has this scope."""
        return scope in self.scopes or self.is_admin

    def sees(self, run_id: str, tenant: str | None) -> bool:
        """Whether it may see a run with this id and tenant."""
        return self.run_id in {None, run_id} and (self.is_admin or self.tenant == tenant)


ANYONE = Principal("anyone", frozenset(Scope))
"""Every caller of a server that needs no credentials."""


def sign_ticket(secret: bytes, who: Principal, seconds: float) -> str:
    """A ticket that lets this caller stream its ``run_id`` for so many seconds from now."""
    fields = [who.run_id, who.tenant, time.time() + seconds, who.name, who.expires_at]
    body = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=")
    return b".".join((body, _signature(secret, body))).decode()


def read_ticket(secret: bytes, ticket: str) -> Principal | None:
    """The caller that it was signed for; None if it has another signature, or has expired."""
    if len(ticket) > LONGEST_TICKET:
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
    """The validity of a ticket: at most ``most``, and at most that of the caller's credentials."""
    if who.expires_at is None:
        return most
    return max(0.0, min(most, who.expires_at - time.time()))


def _signature(secret: bytes, body: bytes) -> bytes:
    # With the purpose, a text that was signed with the same secret for another use is not a ticket.
    made = hmac.digest(secret, _PURPOSE + body, hashlib.sha256)
    return base64.urlsafe_b64encode(made).rstrip(b"=")
