"""Pages of a listing, and the cursor between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self, cast

from murmur_streams.core.model.errors import InvalidCursorError, InvalidInputError
from murmur_streams.core.model.identifiers import check_target, check_tenant
from murmur_streams.core.model.limits import check_state
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState

MOST_RUNS = 500

_CURSOR = re.compile(r"[0-9]{13}:[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first."""

    runs: tuple[Run, ...]
    cursor: str | None
    """Pass it to get the next page; None when this was the last."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """The runs that a listing has; None for any state, target or tenant."""

    state: RunState | None = None
    target: str | None = None
    tenant: str | None = None

    @classmethod
    def of(cls, state: RunState | None, target: str | None, tenant: str | None) -> Self:
        """Check a caller's filter.

        Raises:
            InvalidInputError: a state, target or tenant is not valid.
        """
        return cls(
            None if state is None else check_state(state),
            None if target is None else check_target(target),
            check_tenant(tenant),
        )

    def wants(self, run: Run) -> bool:
        """Whether the run passes the filter."""
        return (
            self.state in {None, run.state}
            and self.target in {None, run.target}
            and self.tenant in {None, run.tenant}
        )


def listing_key(created_ms: int, run_id: str) -> str:
    """The position of a run in every listing: by creation, then by id."""
    return f"{created_ms:013d}:{run_id}"


def check_limit(limit: object, most: int) -> None:
    """Refuse a page's limit that is not from 1 to ``most``, with InvalidInputError."""
    if type(limit) is not int or not 1 <= limit <= most:
        raise InvalidInputError(
            f"limit is {ascii(limit)[:40]}, but must be an integer from 1 to {most}"
        )


def check_listing(limit: int, cursor: str | None) -> None:
    """Refuse a limit or a cursor that is not valid for a listing.

    Raises:
        InvalidInputError: ``limit`` is not from 1 to 500.
        InvalidCursorError: ``cursor`` is not from a listing.
    """
    check_limit(limit, MOST_RUNS)
    if cursor is not None and not (
        isinstance(cast("object", cursor), str) and _CURSOR.fullmatch(cursor)
    ):
        raise InvalidCursorError(
            f"{ascii(cursor)[:60]} is not a cursor of a listing; pass RunPage.cursor, or None"
        )
