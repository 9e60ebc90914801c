"""A fleet with agents of many kinds, its app, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from murmur_streams import Fleet, RunContext
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.pod import Pod
from tests.server.serving import Callers, Gate, client_of
from tests.servers import Space


class Question(BaseModel):
    """The input of an agent that takes a structure."""

    topic: str
    depth: int = 1


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def fleet(space: Space, gate: Gate) -> AsyncIterator[Fleet]:
    """A fleet in the test's key space; the store is open, so that its first write is over."""
    async with Fleet(space.url, key_prefix=space.prefix, partitions=1) as fleet:
        add_agents(fleet, gate)
        await (await fleet.store()).list_runs()
        yield fleet


def add_agents(fleet: Fleet, gate: Gate) -> None:
    """Agents of all kinds of inputs and ends."""

    @fleet.agent
    async def fine(number: int) -> int:
        return number + 1

    @fleet.agent
    async def echo(value: Any) -> Any:
        return value

    @fleet.agent
    async def study(question: Question) -> str:
        return f"{question.topic} {question.depth}"

    @fleet.agent
    async def greet(name: str) -> str:
        return f"hello {name}"

    @fleet.agent
    async def idle() -> None:
        return None

    @fleet.agent
    async def broken(text: str = "") -> None:
        raise ValueError(f"secret of the inside {text}")

    @fleet.agent
    async def patient(number: int, run: RunContext) -> int:
        await run.emit("begun", number)
        gate.entered.set()
        await gate.open.wait()
        await run.emit("opened", number)
        return number


@pytest.fixture
def app(fleet: Fleet) -> FastAPI:
    return make_app(fleet)


@pytest.fixture
def pod(app: FastAPI) -> Pod:
    return app.state.pod


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
def callers() -> Callers:
    return Callers()


@pytest.fixture
async def guarded(fleet: Fleet, callers: Callers) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that requires tokens."""
    async with client_of(make_app(fleet, ServerOptions(authenticator=callers))) as client:
        yield client
