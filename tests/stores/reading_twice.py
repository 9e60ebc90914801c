"""Compares two ways to read the entries of a run."""

from __future__ import annotations

from collections.abc import Callable

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.core.model.events import RunEvent


def outcome(read: Callable[[], list[RunEvent]]) -> str:
    """The events that were read, or the error, as a text: NaN is not equal to itself."""
    try:
        events = read()
    except MurmurError as error:
        return repr((type(error), str(error)))
    return repr(
        [(event.model_dump(), type(event.data), event.timestamp.tzinfo) for event in events]
    )
