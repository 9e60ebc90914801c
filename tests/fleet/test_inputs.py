"""The arguments of an agent that was submitted with an input, and without one."""

from __future__ import annotations

from typing import Annotated, Optional

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import InvalidPayloadError
from tests.fleet.app import Job
from tests.fleet.working import working


async def test_without_an_input_the_default_is_used(fleet: Fleet) -> None:
    """The default may be a text, a model, or None."""

    @fleet.agent
    async def text(name: str = "anon") -> str:
        return name

    @fleet.agent
    def model(job: Job = Job(steps=7)) -> int:  # noqa: B008  # never changed
        return job.steps

    @fleet.agent
    async def none_or_text(name: str | None = "anon") -> str | None:
        return name

    async with working(fleet):
        for agent, expected in ((text, "anon"), (model, 7), (none_or_text, "anon")):
            assert await (await fleet.submit(agent.__name__)).output(timeout=30) == expected
        assert await (await fleet.submit(text, "Ada")).output(timeout=30) == "Ada"
        assert await (await fleet.submit(model, {"steps": 3})).output(timeout=30) == 3


async def test_a_default_excuses_no_input_of_another_type(fleet: Fleet) -> None:
    """An input of a wrong type is refused all the same."""

    @fleet.agent
    async def text(name: str = "anon") -> str:
        return name

    with pytest.raises(InvalidPayloadError, match="valid string"):
        await fleet.submit(text, 7)


async def test_without_a_default_an_input_is_needed(fleet: Fleet) -> None:
    """Except where None is a valid value."""

    @fleet.agent
    async def text(name: str) -> str:
        return name

    @fleet.agent
    async def none_or_text(name: str | None) -> str | None:
        return name

    with pytest.raises(InvalidPayloadError, match="valid string"):
        await fleet.submit(text)
    async with working(fleet):
        assert await (await fleet.submit(none_or_text)).output(timeout=30) is None


async def test_a_context_is_given_however_its_type_is_written(fleet: Fleet) -> None:
    """It may be optional, a union with None, or annotated."""

    @fleet.agent
    async def or_none(context: RunContext | None = None) -> int:
        return context.attempt if context else 0

    @fleet.agent
    async def optional(context: Optional[RunContext] = None) -> int:  # noqa: UP045  # old code's
        return context.attempt if context else 0

    @fleet.agent
    async def annotated(context: Annotated[RunContext, "ours"]) -> int:
        return context.attempt

    async with working(fleet):
        for agent in (or_none, optional, annotated):
            assert await (await fleet.submit(agent.__name__)).output(timeout=30) == 1
