"""Nothing that an exception object does can prevent or change the end of its run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
from pydantic import BaseModel, field_serializer, field_validator, model_serializer

from murmur_streams import Backoff, Fleet, RetryLater, RunContext
from murmur_streams.core.exception_text import UNREADABLE, error_type_name
from murmur_streams.core.model.errors import (
    LeaseLostError,
    RemoteAgentError,
    RunFailedError,
    StoreError,
)
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.states import RunState
from tests.fleet.working import outcome, working
from tests.servers import Space

AT_ONCE = Backoff(first_seconds=0)


class RecursesError(Exception):
    """A wrapper whose attribute access recurses, as a wrapper's does before its __init__."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class RefusesError(Exception):
    """Every attribute raises, its class and its traceback too."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class ExitsError(Exception):
    """Its text and its attributes call sys.exit."""

    def __str__(self) -> str:
        raise SystemExit(7)

    def __getattr__(self, name: str) -> Any:
        sys.exit(8)


class InterruptsError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class CancelsError(Exception):
    def __str__(self) -> str:
        raise asyncio.CancelledError


class NotesRaiseError(Exception):
    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"no {name}")


class NotesError(Exception):
    __notes__: Any = 7


class NameRaises(type):
    """A metaclass whose classes have no readable name."""

    def __getattribute__(cls, name: str) -> Any:
        if name in {"__name__", "__qualname__", "__module__"}:
            raise RuntimeError(f"no {name}")
        return super().__getattribute__(name)


class NamelessError(Exception, metaclass=NameRaises):
    pass


class Text(str):
    """A str whose methods all raise."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> str:
        raise RuntimeError("no part of me")

    def encode(self, *args: Any, **options: Any) -> bytes:
        raise RuntimeError("no bytes of me")

    def __format__(self, spec: str) -> str:
        raise RuntimeError("no format of me")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class OddTextError(Exception):
    def __str__(self) -> str:
        return Text("odd")


class ClassRaisesError(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    @__class__.setter
    def __class__(self, kind: Any) -> None: ...


class ValuelessError(Exception):
    """Neither true nor false, and equal to nothing."""

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    __hash__ = None  # type: ignore[assignment]


class LooksLostError(LeaseLostError):
    """An error of ours, made by an agent, without what ours have."""

    def __init__(self) -> None:
        Exception.__init__(self, "looks lost")

    @property
    def run_id(self) -> str:  # type: ignore[override]
        raise RuntimeError("no run")

    @run_id.setter
    def run_id(self, run_id: str) -> None: ...


class UnfinishedRemoteError(RemoteAgentError):
    """An error of another process, whose parts are missing."""

    def __init__(self) -> None:
        Exception.__init__(self, "unfinished")


def odd_syntax_error() -> SyntaxError:
    error = SyntaxError("odd")
    error.filename, error.lineno, error.offset, error.text = cast("Any", (7, "x", object(), 3.5))
    return error


def in_a_circle() -> Exception:
    one, other = ValueError("in a circle"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def from_recursion() -> Exception:
    error = ValueError("with a cause")
    error.__cause__ = RecursesError("the cause")
    error.__context__ = RefusesError("the context")
    return error


def deep_group() -> BaseException:
    error: Any = ValueError("at the bottom")
    for _ in range(3_000):
        error = BaseExceptionGroup("level", [error])
    return error


MADE: list[tuple[Callable[[], BaseException], str, str]] = [
    (lambda: RecursesError("wrapped"), "RecursesError", "wrapped"),
    (lambda: RefusesError("closed"), "RefusesError", "closed"),
    (lambda: ExitsError("exits"), "ExitsError", UNREADABLE),
    (InterruptsError, "InterruptsError", UNREADABLE),
    (CancelsError, "CancelsError", UNREADABLE),
    (lambda: NotesRaiseError("noted"), "NotesRaiseError", "noted"),
    (lambda: NotesError("noted"), "NotesError", "noted"),
    (lambda: NamelessError("nameless"), "NamelessError", "nameless"),
    (OddTextError, "OddTextError", "odd"),
    (lambda: ClassRaisesError("classless"), "ClassRaisesError", "classless"),
    (lambda: ValuelessError("no value"), "ValuelessError", "no value"),
    (LooksLostError, "LooksLostError", "looks lost"),
    (UnfinishedRemoteError, "UnfinishedRemoteError", "unfinished"),
    (odd_syntax_error, "SyntaxError", "odd"),
    (in_a_circle, "ValueError", "in a circle"),
    (from_recursion, "ValueError", "with a cause"),
    (deep_group, "ExceptionGroup", "level (1 sub-exception): ValueError: at the bottom"),
    (lambda: BaseExceptionGroup("some", [ExitsError()]), "ExceptionGroup", "some"),
    (lambda: StoreError("mine, not the store's"), "StoreError", "mine, not the store's"),
]
NAMES = [f"{number}-{name}" for number, (_, name, _) in enumerate(MADE)]


@pytest.mark.parametrize(("make", "name", "text"), MADE, ids=NAMES)
@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "def"])
async def test_an_error_of_any_make_fails_its_run_once(
    fleet: Fleet, make: Callable[[], BaseException], name: str, text: str, *, in_thread: bool
) -> None:
    """The run ends failed at its first attempt, with the error's type and text."""

    @fleet.agent
    async def raises() -> None:
        raise make()

    @fleet.agent
    def raises_in_thread() -> None:
        raise make()

    state, failure = await outcome(fleet, raises_in_thread if in_thread else raises)
    assert (state, failure.type_name) == (RunState.FAILED, name)
    assert failure.message.startswith(text)


@pytest.mark.parametrize(("make", "name", "text"), MADE, ids=NAMES)
async def test_an_error_of_any_make_is_inline_what_it_is_there(
    make: Callable[[], BaseException], name: str, text: str
) -> None:
    """A run inline fails with the same type and text as in a worker."""
    fleet = Fleet()

    @fleet.agent
    async def raises() -> None:
        raise make()

    done = await fleet.run_inline(raises)
    assert done.state is RunState.FAILED
    assert (done.events[-1].error or "").startswith(f"{name}: {text}" if text else name)
    with pytest.raises(RunFailedError) as caught:
        _ = done.output
    assert (caught.value.error_type, caught.value.error[: len(text)]) == (name, text)


@pytest.mark.parametrize("kind", [GeneratorExit, SystemExit, KeyboardInterrupt])
async def test_what_ends_a_program_is_a_failure_inline(kind: type[BaseException]) -> None:
    """An agent that raises it fails its inline run, and its caller goes on."""
    fleet = Fleet()

    @fleet.agent
    async def raises() -> None:
        raise kind

    assert (await fleet.run_inline(raises)).state is RunState.FAILED


@pytest.mark.parametrize(
    "kind", [RecursesError, ExitsError, NamelessError], ids=["recurses", "exits", "nameless"]
)
async def test_a_callback_that_raises_it_leaves_the_worker_alone(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    """A callback of an agent raises what no log takes: the run and the worker go on."""
    called = asyncio.Event()

    @fleet.agent
    async def schedules() -> str:
        def fail() -> None:
            called.set()
            raise kind("in a callback")

        asyncio.get_running_loop().call_soon(fail)
        await called.wait()
        return "done"

    async with working(fleet):
        assert await (await fleet.submit(schedules)).output(timeout=30) == "done"
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
    assert f"{error_type_name(kind())}: " in caplog.text


async def test_the_cause_of_an_unreadable_error_is_reported(fleet: Fleet) -> None:
    """The traceback has the frames and the causes of an error whose own text fails."""

    @fleet.agent
    async def raises() -> None:
        try:
            int("what really happened")
        except ValueError as error:
            raise RecursesError("wrapped") from error

    _, failure = await outcome(fleet, raises)
    shown = failure.traceback or ""
    assert "ValueError: invalid literal for int() with base 10: 'what really happened'" in shown
    assert shown.endswith("RecursesError: wrapped\n")
    assert "in raises" in shown


async def test_an_unreadable_answer_to_a_timeout_is_a_timeout(fleet: Fleet) -> None:
    """An error that a handler raises after its timeout is in the traceback and hinders nothing."""

    @fleet.agent(timeout=0.05)
    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise RecursesError("on its way out") from None

    state, failure = await outcome(fleet, slow)
    assert (state, failure.type_name) == (RunState.FAILED, "TimeoutError")
    assert "RecursesError: on its way out" in (failure.traceback or "")


BASE_KINDS: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (SystemExit, KeyboardInterrupt, asyncio.CancelledError)
}


class UnsaidError(ValueError):
    """A validator's error whose text raises what it is made with."""

    def __str__(self) -> str:
        raise BASE_KINDS[self.args[0]]


class Odd(BaseModel):
    """A type whose validator and serialiser raise what its fields say."""

    read: str | None = None
    said: str | None = None
    written: str | None = None

    @field_validator("read")
    @classmethod
    def check_read(cls, kind: str | None) -> str | None:
        if kind:
            raise BASE_KINDS[kind]
        return kind

    @field_validator("said")
    @classmethod
    def check_said(cls, kind: str | None) -> str | None:
        if kind:
            raise UnsaidError(kind)
        return kind

    @field_serializer("written")
    def write(self, kind: str | None) -> str | None:
        if kind:
            raise BASE_KINDS[kind]
        return kind


@pytest.mark.parametrize("kind", BASE_KINDS)
@pytest.mark.parametrize("where", ["read", "said", "written"])
async def test_a_users_type_that_raises_anything_fails_its_run(
    fleet: Fleet, space: Space, kind: str, where: str
) -> None:
    """Validators, serialisers and texts of errors raise SystemExit and the like: the run fails."""

    @fleet.agent(retries=1, backoff=AT_ONCE)
    async def takes(given: Odd) -> Odd:
        return given

    async with Fleet(space.url, key_prefix=space.prefix) as elsewhere, working(fleet):
        handle = await elsewhere.submit("takes", {where: kind})
        result = await handle.result(timeout=30)
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
        run = await handle.snapshot()
    assert isinstance(result.error, RemoteAgentError)
    assert (run.state, run.attempt) == (RunState.FAILED, 2 if where == "written" else 1)


class LooksLost(BaseModel):
    """An output whose serialiser raises an error that looks like one of ours."""

    @model_serializer
    def write(self) -> Any:
        raise LooksLostError


@pytest.mark.parametrize("raises", ["in the output", "by the agent"])
async def test_an_error_that_looks_like_ours_fails_the_run(fleet: Fleet, raises: str) -> None:
    """An agent that raises LeaseLostError itself has not lost its run: the run fails, once."""

    @fleet.agent
    async def looks(run: RunContext) -> Any:
        if raises == "in the output":
            return LooksLost()
        raise LeaseLostError(run.run_id)

    state, failure = await outcome(fleet, looks)
    assert state is RunState.FAILED
    assert failure.type_name in {"LeaseLostError", "LooksLostError", "InvalidPayloadError"}


class OddLater(RetryLater):
    def __init__(self) -> None:
        Exception.__init__(self, "odd")


class OddWaits(Backoff):
    def delay_seconds(self, failures: int, draw: Callable[[], float]) -> float:
        del draw
        if failures == 1:
            raise SystemExit("odd waits")
        return cast("Any", ["soon", float("nan"), -1, None])[failures % 4]


class OddCheck(type):
    def __subclasscheck__(cls, other: type) -> bool:
        raise RuntimeError("who knows")


class OddCheckError(Exception, metaclass=OddCheck):
    pass


async def test_a_retry_that_cannot_be_read_is_a_failure(fleet: Fleet) -> None:
    """A RetryLater without its delay counts as any other failure."""

    @fleet.agent(retries=1, backoff=AT_ONCE)
    async def later() -> None:
        raise OddLater

    async with working(fleet):
        handle = await fleet.submit(later)
        await handle.result(timeout=30)
    run = await handle.snapshot()
    assert (run.state, run.attempt, run.failures, run.excused) == (RunState.FAILED, 2, 2, 0)


async def test_a_policys_own_code_that_raises_is_logged(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Backoff or a never_retry class that raises leaves the rules as they are without it."""
    monkeypatch.setattr("murmur_streams.fleet.execution.endings.Backoff", lambda: AT_ONCE)

    @fleet.agent(retries=5, backoff=OddWaits(), never_retry=(OddCheckError, KeyError))
    async def fails(run: RunContext) -> None:
        if run.attempt == 3:
            raise KeyError("never again")
        raise ValueError("once more")

    async with working(fleet):
        handle = await fleet.submit(fails)
        with pytest.raises(RunFailedError, match="never again"):
            await handle.output(timeout=30)
    assert (await handle.snapshot()).attempt == 3
    assert "its agent's backoff cannot be used" in caplog.text


async def test_an_error_over_the_limits_of_the_store_is_written(space: Space) -> None:
    """A store whose limits are lower than an error's text ends the run all the same."""
    limits = Limits(max_event_bytes=600, max_result_bytes=600)
    async with Fleet(space.url, key_prefix=space.prefix, limits=limits) as fleet:

        @fleet.agent
        async def fine(number: int) -> int:
            return number + 1

        @fleet.agent
        async def raises() -> None:
            raise ValueError("x" * 5_000)

        async with working(fleet):
            handle = await fleet.submit(raises)
            result = await handle.result(timeout=30)
        run = await handle.snapshot()
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    assert "ValueError" in str(result.error)
