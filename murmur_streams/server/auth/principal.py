"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a caller may do."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"
    """Everything, on the runs of all tenants."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credentials were good."""

    name: str
    """For logs and limits; never a secret."""
    scopes: frozenset[Scope]
    tenant: str | None = None
    """Whose runs it sees; None: those that belong to no tenant."""
    run_id: str | None = None
    """The one run that a stream ticket is good for; None: all."""
    expires_at: float | None = None
    """When its credentials end, as Unix seconds; an open stream ends then. None: never."""

    @property
    def is_admin(self) -> bool:
        """Whether it sees the runs of all tenants."""
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether it has this scope."""
        return scope in self.scopes or self.is_admin

    def sees(self, run_id: str, tenant: str | None) -> bool:
        """Whether a run of this tenant is there for it."""
        return self.run_id in {None, run_id} and (self.is_admin or self.tenant == tenant)


ANYONE = Principal("anyone", frozenset(Scope))
"""Everybody, where the server asks for no credentials."""
