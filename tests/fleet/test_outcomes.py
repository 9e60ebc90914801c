"""An agent's return value or exception ends its run, and never its worker."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from pydantic import BaseModel, field_serializer

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import (
    InvalidEventError,
    RemoteAgentError,
    RunFailedError,
    RunNotFoundError,
)
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.states import RunState
from tests.fleet.stage import wait_until
from tests.fleet.working import outcome, working
from tests.servers import Space

MEBIBYTE = 1024 * 1024


class StoppedByHandError(BaseException):
    """An exception that no ``except Exception`` sees."""


class UnspeakableError(Exception):
    """An exception without a text."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Number(BaseModel):
    """A typed input and output."""

    value: int


class Unwritable(BaseModel):
    """A model whose own serialiser fails."""

    value: int

    @field_serializer("value")
    def refuse(self, value: int) -> int:
        raise RuntimeError("not today")


RAISED: list[tuple[BaseException, str, str]] = [
    (ValueError("no luck"), "ValueError", "no luck"),
    (FileNotFoundError("a\udc80b"), "FileNotFoundError", "a\\udc80b"),
    (UnspeakableError(), "UnspeakableError", "(its text cannot be read)"),
    (ValueError("x" * 100_000), "ValueError", "x" * 8_192),
    (SystemExit(3), "SystemExit", "3"),
    (StoppedByHandError("enough"), "StoppedByHandError", "enough"),
    (KeyboardInterrupt("by hand"), "KeyboardInterrupt", "by hand"),
    (GeneratorExit("closed"), "GeneratorExit", "closed"),
    (asyncio.CancelledError("mine"), "CancelledError", "mine"),
    (RunNotFoundError("another"), "RunNotFoundError", "run_id 'another' not found"),
]


@pytest.mark.parametrize(("error", "name", "text"), RAISED, ids=[row[1] for row in RAISED])
@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "def"])
async def test_what_an_agent_raises_fails_its_run_and_nothing_else(
    fleet: Fleet, error: BaseException, name: str, text: str, in_thread: bool
) -> None:
    """Each kind of exception, async and def: the worker goes on."""

    @fleet.agent
    async def raises() -> None:
        raise error

    @fleet.agent
    def raises_in_thread() -> None:
        raise error

    state, failure = await outcome(fleet, raises_in_thread if in_thread else raises)
    assert state is RunState.FAILED
    assert failure.type_name == name
    assert failure.message.startswith(text)


async def test_what_no_future_takes_fails_a_blocking_agents_run(fleet: Fleet) -> None:
    """StopIteration cannot be set on a future, and still fails the run."""

    @fleet.agent
    def raises() -> None:
        raise StopIteration("done")

    state, failure = await outcome(fleet, raises)
    assert (state, failure.type_name) == (RunState.FAILED, "StopIteration")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (object(), "cannot be written as JSON"),
        (float("nan"), "nan, which JSON cannot express"),
        ({"lone": "\udc80"}, "surrogate"),
        ("x" * (17 * MEBIBYTE), "over the limit of 16,777,216"),
        (Unwritable(value=1), "not today"),
        (2**2000, "an integer of more than 1024 bits"),
    ],
    ids=["object", "nan", "surrogate", "large", "unwritable", "huge"],
)
async def test_an_output_that_cannot_be_stored_fails_the_run(
    fleet: Fleet, output: object, text: str
) -> None:
    """An output that cannot be stored fails the run with an error that says so."""

    @fleet.agent
    async def returns() -> Any:
        return output

    state, failure = await outcome(fleet, returns)
    assert state is RunState.FAILED
    assert text in failure.message


async def test_output_raises_the_remote_error(fleet: Fleet) -> None:
    """With the type of the exception, which the last event has, too."""

    @fleet.agent
    async def raises() -> None:
        raise ValueError("no luck")

    async with working(fleet):
        handle = await fleet.submit(raises)
        with pytest.raises(RunFailedError, match="no luck") as caught:
            await handle.output(timeout=30)
    assert caught.value.error_type == "ValueError"
    last = [event async for event in handle.stream()][-1]
    assert (last.type, last.error) == (RunEventType.AGENT_FAILED, "ValueError: no luck")


async def test_an_input_that_no_longer_fits_fails_the_run(fleet: Fleet, space: Space) -> None:
    """The worker checks the stored input against its own type."""

    @fleet.agent
    async def takes(number: Number) -> None:
        return None

    async with Fleet(space.url, key_prefix=space.prefix) as elsewhere, working(fleet):
        handle = await elsewhere.submit("takes", {"value": "many"})
        result = await handle.result(timeout=30)
    assert isinstance(result.error, RemoteAgentError)
    assert "value: Input should be a valid integer" in result.error.message


async def test_unawaited_writes_are_in_order_before_the_end(fleet: Fleet) -> None:
    """Writes that are not awaited are in the journal in order and before the run's end."""

    @fleet.agent
    async def emits(fails: bool, run: RunContext) -> None:
        for number in range(50):
            run.emit("number", number)
        if fails:
            raise ValueError("after the events")

    async with working(fleet):
        for fails in (False, True):
            handle = await fleet.submit(emits, fails)
            events = [event async for event in handle.stream()]
            assert [event.data for event in events if event.name] == list(range(50))
            assert events[-1].type in {RunEventType.AGENT_COMPLETED, RunEventType.AGENT_FAILED}


async def test_a_failed_unawaited_write_fails_the_run(fleet: Fleet) -> None:
    """An emit that nothing awaits is not ignored."""

    @fleet.agent
    async def emits(run: RunContext) -> None:
        run.emit("bad", cast("Any", object()))

    state, failure = await outcome(fleet, emits)
    assert (state, failure.type_name) == (RunState.FAILED, "InvalidEventError")


async def test_a_failed_write_that_the_agent_caught_does_not(fleet: Fleet) -> None:
    """The agent has dealt with the error."""

    @fleet.agent
    async def emits(run: RunContext) -> str:
        try:
            await run.emit("bad", cast("Any", object()))
        except InvalidEventError:
            return "caught"
        return "written"

    @fleet.agent
    def emits_in_thread(run: RunContext) -> str:
        try:
            run.emit("bad", cast("Any", object()))
        except InvalidEventError:
            return "caught"
        return "written"

    async with working(fleet):
        for agent in (emits, emits_in_thread):
            handle = await fleet.submit(agent.__name__)
            assert await handle.output(timeout=30) == "caught"


async def test_threads_of_an_agent_may_write(fleet: Fleet) -> None:
    """Events of three threads arrive, those of each thread in order."""

    @fleet.agent
    async def emits(run: RunContext) -> None:
        def several(first: int) -> None:
            for number in range(first, first + 20):
                run.emit("number", number)

        await asyncio.gather(*(asyncio.to_thread(several, first) for first in (0, 100, 200)))

    async with working(fleet):
        handle = await fleet.submit(emits)
        events = [event async for event in handle.stream()]
    numbers = [cast("int", event.data) for event in events if event.name == "number"]
    for first in (0, 100, 200):
        assert [n for n in numbers if first <= n < first + 100] == list(range(first, first + 20))


async def test_a_plain_function_may_return_a_coroutine(fleet: Fleet) -> None:
    """It is awaited on the event loop."""

    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    @fleet.agent
    def wrapped(number: int) -> Coroutine[Any, Any, int]:
        return later(number)

    async with working(fleet):
        assert await (await fleet.submit("wrapped", 1)).output(timeout=30) == 2


async def test_everything_a_context_writes_is_streamed(fleet: Fleet) -> None:
    """A subscriber gets events, output, log lines and progress."""

    @fleet.agent
    async def reports(run: RunContext) -> Number:
        await run.emit("point", {"x": [1, None]})
        await run.output("half of it")
        await run.log("a line", "warning", line=7)
        await run.progress(total=3, completed=2, failed=1)
        with pytest.raises(ValueError, match="level"):
            await run.log("a line", "loud")
        return Number(value=run.attempt)

    async with working(fleet):
        handle = await fleet.submit(reports)
        events = [event async for event in handle.stream()]
        assert await handle.output(timeout=30) == Number(value=1)
    assert [(event.type, event.name, event.data, event.attempt) for event in events] == [
        (RunEventType.AGENT_STARTED, None, None, 1),
        (RunEventType.CUSTOM, "point", {"x": [1, None]}, 1),
        (RunEventType.AGENT_OUTPUT, None, "half of it", 1),
        (RunEventType.LOG, "warning", {"message": "a line", "line": 7}, 1),
        (RunEventType.AGENT_COMPLETED, None, None, 1),
    ]
    progress = (await handle.status()).progress
    assert progress is not None
    assert (progress.total, progress.completed, progress.failed) == (3, 2, 1)


async def test_the_loss_of_a_run_ends_its_execution_and_not_the_worker(
    fleet: Fleet,
) -> None:
    """After a deletion the slot becomes free."""
    began = asyncio.Event()

    @fleet.agent
    async def waits(run: RunContext) -> None:
        began.set()
        await asyncio.sleep(3600)

    async with working(fleet, lease_seconds=1) as worker:
        handle = await fleet.submit(waits)
        await began.wait()
        await (await fleet.store()).delete(handle.run_id, force=True)

        async def is_idle() -> bool:
            return not worker.held

        await wait_until(is_idle, "the execution ends")
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
