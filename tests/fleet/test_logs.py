"""Log records of an execution have its run and attempt."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from murmur_streams import Fleet, RetryLater, RunContext, RunLogFilter
from murmur_streams.cli.work.worker import _EscapingFormatter
from tests.fleet.working import working


class RecordList(logging.Handler):
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
def records() -> Iterator[RecordList]:
    """A handler of a library's logger."""
    handler, library = RecordList(), logging.getLogger("some.library")
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    yield handler
    library.removeHandler(handler)


async def test_every_record_of_an_execution_has_its_run_and_attempt(
    fleet: Fleet, records: RecordList
) -> None:
    """Also records of libraries, tasks and threads; outside they have none."""
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
    assert [records.of(text) for text in ("here", "thread", "task")] == [
        [one],
        [one],
        [one],
    ]
    assert records.of("def") == [two]
    assert records.of("outside") == [("-", "-")] * 2
    shown = {each.getMessage(): each.execution for each in records.records}
    assert (shown["here"], shown["outside"]) == (f" [{handles[0].run_id} #1]", "")


async def test_what_an_error_says_drives_no_terminal(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """Control characters of an exception are escaped in the log."""

    @fleet.agent
    async def breaks() -> None:
        raise ValueError("\x1b[31m\0\r red\tünd\u202e")

    @fleet.agent
    async def begs(run: RunContext) -> None:
        if run.attempt == 1:
            raise RetryLater(0.1, "\x1b[32m")

    caplog.set_level(logging.INFO, "murmur_streams")
    async with working(fleet):
        handle = await fleet.submit(breaks)
        result = await handle.result(timeout=30)
        await (await fleet.submit(begs)).output(timeout=30)
    assert "\x1b[31m\0" in str(result.error), "what is kept is what was said"
    for raw in "\x1b\0\r\u202e":
        assert raw not in caplog.text
    assert r"\x1b[31m\x00\r red" in caplog.text
    assert "\tünd" in caplog.text
    assert r"\x1b[32m" in caplog.text


def test_only_this_packages_records_are_escaped() -> None:
    """The command line escapes the log records of this package and of no other."""
    formatter = _EscapingFormatter("%(message)s")

    def shown(name: str) -> str:
        record = logging.LogRecord(name, logging.ERROR, "f", 1, "\x1b%s\n", ("a\0",), None)
        return formatter.format(record)

    assert shown("murmur_streams.worker") == "\\x1ba\\x00\n"
    assert shown("shop") == "\x1ba\0\n"
