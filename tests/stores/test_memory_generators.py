"""A subscriber that leaves an InMemoryRunStore leaves nothing behind it."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.stores.local.memory.store import InMemoryRunStore

READERS = {
    "stream": lambda store: store.stream("run"),
    "journal": lambda store: store.journal("run", follow=True),
    "feed": lambda store: store.feed(),
}


@pytest.mark.parametrize("name", READERS)
async def test_closing_a_reader_closes_what_it_reads_from(name: str) -> None:
    """No generator is left for the garbage collector."""
    async with InMemoryRunStore() as store:
        await store.create("run", "t")
        await store.append("run", RunEvent(type=RunEventType.LOG, run_id="run"))
        left: list[AsyncGenerator[Any, Any]] = []
        before = sys.get_asyncgen_hooks()
        # A generator that is closed in time is never finalized by the collector.
        sys.set_asyncgen_hooks(finalizer=left.append)
        try:
            reader = READERS[name](store)
            await anext(reader)
            await reader.aclose()
            del reader
        finally:
            sys.set_asyncgen_hooks(*before)
        for each in left:
            await each.aclose()
        assert left == []
