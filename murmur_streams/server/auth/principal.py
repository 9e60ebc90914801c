"""Principals, the authenticated callers, and their scopes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
