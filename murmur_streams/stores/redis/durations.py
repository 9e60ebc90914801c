"""The store's settings that its scripts take as arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], int]
"""Unix milliseconds, for the ids of entries."""


@dataclass(frozen=True, slots=True)
class Durations:
    """In milliseconds and entries."""

    ttl_ms: int
    live_ttl_ms: int
    late_event_ms: int
    feed_max_entries: int
    max_events: int = 0
    """The journal's cap; 0 for none."""
    owner: tuple[str, int] = ("", 0)
    """The owner id of runs that this store sets running, and its lease; ("", 0) for none."""

    @property
    def shared(self) -> tuple[int, int, int, int, int]:
        """ARGV 7 to 11 of each commit."""
        return (
            self.feed_max_entries,
            self.live_ttl_ms,
            self.max_events,
            self.ttl_ms,
            self.late_event_ms,
        )
