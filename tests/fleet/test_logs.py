"""Log records of an execution tell its run and attempt."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from murmur_streams import Fleet, RunLogFilter
from tests.fleet.working import working


class Kept(logging.Handler):
    """Keeps the records that pass its filter."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RunLogFilter())
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, message: str) -> list[tuple[object, object]]:
        """Run id and attempt of the records with this text."""
        found = [each for each in self.records if each.getMessage() == message]
        return [(each.run_id, each.attempt) for each in found]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """A handler of a library's logger."""
    handler, library = Kept(), logging.getLogger("some.library")
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    yield handler
    library.removeHandler(handler)


async def test_every_record_of_an_execution_has_its_run_and_attempt(
    fleet: Fleet, kept: Kept
) -> None:
    library = logging.getLogger("some.library")

    @fleet.agent
    async def logs() -> None:
        library.info("here")
        await asyncio.gather(asyncio.to_thread(library.info, "thread"), in_a_task())

    async def in_a_task() -> None:
        library.info("task")

    @fleet.agent
    def logs_in_a_thread() -> None:
        time.sleep(0)
        library.info("def")

    library.info("outside")
    async with working(fleet):
        handles = [await fleet.submit(agent) for agent in (logs, logs_in_a_thread)]
        for handle in handles:
            await handle.output(timeout=30)
    library.info("outside")
    one, two = ((handle.run_id, 1) for handle in handles)
    assert [kept.of(text) for text in ("here", "thread", "task")] == [[one], [one], [one]]
    assert kept.of("def") == [two]
    assert kept.of("outside") == [("-", "-")] * 2
    shown = {each.getMessage(): each.execution for each in kept.records}
    assert (shown["here"], shown["outside"]) == (f" [{handles[0].run_id} #1]", "")
