"""Which functions may be agents, and what is said of the others."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Optional

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import (
    AgentNotRegisteredError,
    InvalidInputError,
    InvalidTargetError,
)
from murmur_streams.fleet.worker import Worker
from tests.fleet.app import Job


def two_inputs(first: int, second: int) -> None: ...
def positional(job: Job, /) -> None: ...
def unresolvable(job: Missing) -> None: ...  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
def no_json(job: Fleet) -> None: ...
def no_json_out(job: Job) -> Fleet: ...
def yields(job: Job) -> Iterator[int]:
    yield 1


def takes_more(job: Job, *more: int) -> None: ...
def takes_most(job: Job, **most: int) -> None: ...
def two_contexts_or_a_job(run: RunContext | Job) -> None: ...
async def takes_two(job: Job, factor: int) -> int:
    return factor


class Bound:
    """A callable that also binds to objects, as methods do."""

    def __get__(self, owner: object, kind: type | None = None) -> Bound:
        return self

    def __call__(self, job: Job) -> None: ...


class AnAgent:
    """An object that can be called and is not a function."""

    async def __call__(self, job: Job) -> None: ...


async def yields_later(job: Job) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (two_inputs, "takes first and second: an agent has one input"),
        (positional, "'job' must not be positional-only"),
        (unresolvable, "name 'Missing' is not defined"),
        (no_json, "the type of the input of agent 'no_json'"),
        (no_json_out, "the type of the output of agent 'no_json_out'"),
        (yields, "yields"),
        (yields_later, "yields"),
        ("a name", "an agent is a function, not 'a name'"),
        (7, "an agent is a function, not 7"),
        (takes_more, "takes *more, which nothing fills: wrap it in a function"),
        (takes_most, "takes **most, which nothing fills: wrap it in a function"),
        (two_contexts_or_a_job, "the type of the input of agent 'two_contexts_or_a_job'"),
        (AnAgent, "AnAgent'>: wrap it in a function"),
        (Bound(), ": wrap it in a function"),
        (AnAgent(), ": wrap it in a function"),
        (functools.partial(takes_two, factor=2), ": wrap it in a function"),
    ],
)
def test_a_function_that_cannot_be_an_agent_is_rejected(function: Any, said: str) -> None:
    """A function that cannot be an agent is rejected, and the error gives the reason."""
    fleet = Fleet()
    with pytest.raises(TypeError) as caught:
        fleet.agent(function)
    assert said in str(caught.value)
    assert fleet.agents == {}


@pytest.mark.parametrize("name", ["with space", "a:b", "a/b", "ä", "x" * 200, "{0}"])
def test_a_name_outside_the_grammar_is_refused(name: str) -> None:
    """It raises InvalidTargetError at the registration."""
    with pytest.raises(InvalidTargetError):
        Fleet().agent(name=name)(lambda: None)


def test_a_lambda_needs_a_name() -> None:
    """Its own name is outside the grammar."""
    with pytest.raises(InvalidTargetError):
        Fleet().agent(lambda: None)


def test_a_name_is_taken_once() -> None:
    """A second agent of a name raises TypeError."""
    fleet = Fleet()
    fleet.agent(name="one")(lambda: None)
    with pytest.raises(TypeError, match="has an agent named 'one' already"):
        fleet.agent(name="one")(lambda: None)


def test_the_function_stays_what_it_was() -> None:
    """The decorator returns the function itself."""

    def double(number: int) -> int:
        return 2 * number

    assert Fleet().agent(double) is double
    assert double(2) == 4


def test_input_and_context_are_found_by_name_and_type() -> None:
    """Each way to declare them works."""
    fleet = Fleet()

    @fleet.agent
    def neither() -> None: ...
    @fleet.agent
    def only_run(run: Any = None) -> None: ...
    @fleet.agent
    def by_type(context: RunContext, job: Job, extra: int = 1) -> None: ...
    @fleet.agent
    def a_run_as_input(context: RunContext, run: Job) -> None: ...
    @fleet.agent
    def or_none(job: Job, context: RunContext | None) -> None: ...
    @fleet.agent
    def optional(context: Optional[RunContext] = None) -> None: ...  # noqa: UP045  # old code's
    @fleet.agent
    def annotated(context: Annotated[RunContext | None, "ours"], job: Job) -> None: ...

    found = {name: (agent.input_name, agent.context_name) for name, agent in fleet.agents.items()}
    assert found == {
        "neither": (None, None),
        "only_run": ("run", None),
        "by_type": ("job", "context"),
        "a_run_as_input": ("run", "context"),
        "or_none": ("job", "context"),
        "optional": (None, "context"),
        "annotated": ("job", "context"),
    }


def test_a_method_is_an_agent_and_an_object_is_none() -> None:
    """An object with __call__ is refused with advice."""
    fleet = Fleet()
    fleet.agent(name="method")(AnAgent().__call__)
    assert fleet.agents["method"].is_async
    with pytest.raises(TypeError, match="wrap it in a function"):
        fleet.agent(name="object")(AnAgent())


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"lease_seconds": 0.5}, {"drain_seconds": -1}]
)
def test_a_worker_that_cannot_work_is_refused(options: dict[str, float]) -> None:
    """It needs slots, and a lease and drain within bounds."""
    fleet = Fleet()
    fleet.agent(name="one")(lambda: None)
    with pytest.raises(InvalidInputError, match="a worker needs"):
        Worker(fleet, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("worker_id", ["", "a b", "a:b", "-a", ".", "ä", "a\n", "x" * 129])
def test_a_worker_id_outside_the_grammar_is_refused(worker_id: str) -> None:
    """The error has the rule."""
    fleet = Fleet()
    fleet.agent(name="one")(lambda: None)
    with pytest.raises(InvalidInputError, match="is refused: use 1 to 128"):
        Worker(fleet, worker_id=worker_id)


@pytest.mark.parametrize("host", ["box", "_-.box", "Ärger", "ä", "", "h" * 200])
def test_a_worker_names_itself_inside_the_grammar(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drawn name is valid for any host name."""
    monkeypatch.setattr("socket.gethostname", lambda: host)
    fleet = Fleet()
    fleet.agent(name="one")(lambda: None)
    drawn = Worker(fleet).worker_id
    assert Worker(fleet, worker_id=drawn).worker_id == drawn


def test_a_worker_executes_agents_that_its_fleet_has() -> None:
    """Unknown targets, or no agents at all, are refused."""
    fleet = Fleet()
    with pytest.raises(AgentNotRegisteredError, match="has no agents"):
        Worker(fleet)
    fleet.agent(name="one")(lambda: None)
    with pytest.raises(AgentNotRegisteredError, match="has no agent 'two'; it has: one"):
        Worker(fleet, targets=["one", "two"])
