"""Events with names, and how to read the names from a journal."""

from __future__ import annotations

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.stores.redis.store import RedisRunStore


def note(run_id: str, name: str) -> RunEvent:
    """An event with a name that distinguishes it."""
    return RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name=name)


async def names_in_journal(store: RedisRunStore, run_id: str) -> list[str]:
    """The names of the run's events, in order."""
    entries = [entry async for entry in store.journal(run_id)]
    return [entry.fields["name"] for entry in entries if "name" in entry.fields]


async def names_in_stream(
    store: RedisRunStore, run_id: str, after: str | None = None
) -> list[str | None]:
    """The names that a subscriber sees, up to the end of the stream."""
    return [event.name async for event in store.stream(run_id, after=after)]
