"""Pages of a listing, and the cursor between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from murmur_streams.core.errors import InvalidCursorError, InvalidInputError
from murmur_streams.core.run import Run

MOST_RUNS = 500

_CURSOR = re.compile(r"[0-9]{13}:[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first."""

    runs: tuple[Run, ...]
    cursor: str | None
    """Pass it to get the next page; None when this was the last."""


def listing_key(created_ms: int, run_id: str) -> str:
    """The place of a run in every listing: by creation, then by id."""
    return f"{created_ms:013d}:{run_id}"


def check_limit(limit: object, most: int) -> None:
    """Refuse a limit that no page has, with an InvalidInputError."""
    if type(limit) is not int or not 1 <= limit <= most:
        raise InvalidInputError(
            f"limit is {ascii(limit)[:40]}, but must be an integer from 1 to {most}"
        )


def check_listing(limit: int, cursor: str | None) -> None:
    """Refuse a limit or a cursor that no listing has.

    Raises:
        InvalidInputError: ``limit`` is not from 1 to 500.
        InvalidCursorError: ``cursor`` is none of a listing.
    """
    check_limit(limit, MOST_RUNS)
    if cursor is not None and not (
        isinstance(cast("object", cursor), str) and _CURSOR.fullmatch(cursor)
    ):
        raise InvalidCursorError(
            f"{ascii(cursor)[:60]} is no cursor of a listing; pass RunPage.cursor, or None"
        )
