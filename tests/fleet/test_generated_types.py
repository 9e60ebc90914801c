"""A value that a type accepts arrives equal at the agent and the caller, or is refused before."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from murmur_streams import Fleet
from murmur_streams.core.model.errors import InvalidPayloadError
from murmur_streams.server import make_app
from tests.fleet.generated_types import CASES, shape
from tests.fleet.working import working
from tests.server.serving import client_of
from tests.servers import Space

_numbers = itertools.count()
AT_ONCE = 5
"""How many types one worker serves: it is started once for all of them."""
EXAMPLES = settings(
    max_examples=settings().max_examples // 10,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""Each brings five types."""
Cases = list[tuple[Any, Any]]
CHOSEN = st.lists(CASES, min_size=AT_ONCE, max_size=AT_ONCE)


class Bench:
    """Agents of generated types that return what they receive, and a tally of what came of them."""

    def __init__(self, fleet: Fleet, tally: Counter[str]) -> None:
        self.fleet = fleet
        self.received: dict[str, Any] = {}
        self._tally = tally

    def count(self, what: str) -> None:
        """Count one outcome."""
        self._tally[what] += 1

    def register(self, kind: Any) -> str | None:
        """Register an agent that takes and returns a type; None when the type is refused."""
        name = f"agent{next(_numbers)}"

        async def echo(value: Any) -> Any:
            self.received[name] = value
            return value

        echo.__annotations__ = {"value": kind, "return": kind}
        try:
            self.fleet.agent(name=name)(echo)
        except TypeError:
            self.count("refused at registration")
            return None
        return name


def check_all(exchange: Callable[[Cases], Coroutine[Any, Any, None]], tally: Counter[str]) -> None:
    """Exchange what hypothesis chooses; most of it arrives, or the test would show nothing."""

    @EXAMPLES
    @given(CHOSEN)
    def check(cases: Cases) -> None:
        asyncio.run(exchange(cases))

    check()
    assert tally["arrived"] > sum(tally.values()) / 3, tally
    assert tally["refused at registration"] > 0, tally
    assert tally["refused at submit"] > 0, tally


async def submit_all(bench: Bench, cases: Cases) -> None:
    """Submit each value by its Python object; all that is accepted is equal in both hands."""
    waiting: list[tuple[str, Any, Any]] = []
    for kind, value in cases:
        if (name := bench.register(kind)) is None:
            continue
        try:
            waiting.append((name, value, await bench.fleet.submit(name, value)))
        except InvalidPayloadError:
            bench.count("refused at submit")
    if not waiting:
        return  # A fleet whose agents were all refused has none to execute.
    async with working(bench.fleet):
        for name, value, handle in waiting:
            output = await handle.output(timeout=30)
            assert shape(bench.received[name]) == shape(value)
            assert shape(output) == shape(value)
            bench.count("arrived")


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
def test_values_arrive_or_are_refused(kind: str, space: Space, tmp_path: Path) -> None:
    """By Python: refused at registration or at submit, or equal at the agent and the caller."""
    tally = Counter[str]()

    async def exchange(cases: Cases) -> None:
        url = space.url if kind == "redis" else f"sqlite://{tmp_path}/{secrets.token_hex(8)}.db"
        options: dict[str, Any] = {"key_prefix": space.prefix} if kind == "redis" else {}
        async with Fleet(url, **options) as fleet:
            await submit_all(Bench(fleet, tally), cases)

    check_all(exchange, tally)


def test_values_arrive_inline_or_are_refused() -> None:
    """The same in memory, where run_inline executes an agent."""
    tally = Counter[str]()

    async def exchange(cases: Cases) -> None:
        bench = Bench(Fleet(), tally)
        for kind, value in cases:
            if (name := bench.register(kind)) is None:
                continue
            try:
                ran = await bench.fleet.run_inline(name, value)
            except InvalidPayloadError:
                bench.count("refused at submit")
                continue
            assert shape(bench.received[name]) == shape(value) == shape(ran.output)
            bench.count("arrived")

    check_all(exchange, tally)


async def submit_over_http(bench: Bench, client: Any, cases: Cases) -> None:
    """Submit each value as JSON, made from the type as a client's program would make it."""
    waiting: list[tuple[str, Any, str]] = []
    for kind, value in cases:
        if (name := bench.register(kind)) is None:
            continue
        adapter = TypeAdapter[Any](kind)
        try:
            sent = adapter.dump_python(value, mode="json", by_alias=True, round_trip=True)
            expected = adapter.validate_json(
                adapter.dump_json(value, by_alias=True, round_trip=True),
                by_alias=True,
                by_name=True,
            )
        except (ValueError, ValidationError):
            bench.count("no JSON of a client's")
            continue
        answer = await client.post("/submit", json={"target": name, "task": {"input": sent}})
        if answer.status_code == 422:
            bench.count("refused at submit")
            continue
        assert answer.status_code == 200, answer.text
        waiting.append((name, expected, answer.json()["run_id"]))
    if not waiting:
        return
    async with working(bench.fleet):
        for name, expected, run_id in waiting:
            output = await bench.fleet.handle(run_id, name).output(timeout=30)
            assert shape(bench.received[name]) == shape(expected) == shape(output)
            result = (await client.get(f"/runs/{run_id}/result")).json()
            schema = (await client.get(f"/agents/{name}/schema")).json()["output_type"]
            jsonschema_rs.validator_for(schema).validate(result["output"])
            bench.count("arrived")


def test_values_arrive_over_http_or_are_refused(space: Space) -> None:
    """Over HTTP: what the published schema asks for arrives, and outputs are as it says."""
    tally = Counter[str]()

    async def exchange(cases: Cases) -> None:
        async with (
            Fleet(space.url, key_prefix=space.prefix) as fleet,
            client_of(make_app(fleet)) as client,
        ):
            await submit_over_http(Bench(fleet, tally), client, cases)

    check_all(exchange, tally)
