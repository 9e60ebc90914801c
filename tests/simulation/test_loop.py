"""The simulated loop: virtual time, an order that a seed chooses, and processes that can die."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
import uuid
from typing import Any

import pytest

from murmur_streams.testing.simulation import Simulation, StuckError, simulate
from murmur_streams.threads import call_in_thread


def seen_by(scenario: Any, seed: int, **options: Any) -> list[Any]:
    """What a scenario appended to the list that it gets."""
    seen: list[Any] = []
    simulate(lambda simulation: scenario(simulation, seen), seed, **options)
    return seen


def test_time_is_virtual() -> None:
    """A sleep of an hour is over at once, and all clocks have moved on by an hour."""

    async def scenario(simulation: Simulation, seen: list[Any]) -> None:
        clocks = (asyncio.get_running_loop().time, time.time, time.monotonic)
        before = [clock() for clock in clocks]
        await asyncio.sleep(3600)
        seen.extend(clock() - earlier for clock, earlier in zip(clocks, before, strict=True))

    began = time.perf_counter()
    assert seen_by(scenario, 1) == [3600, 3600, 3600]
    assert time.perf_counter() - began < 10


async def racing(simulation: Simulation, seen: list[Any]) -> None:
    """Tasks that are ready at the same time."""

    async def step(name: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(name)

    await asyncio.gather(*(step(name) for name in range(4)))


def test_a_seed_chooses_the_order_of_ready_tasks() -> None:
    """The same seed gives the same order, others give others; unshuffled it is asyncio's own."""
    orders = {tuple(seen_by(racing, seed)) for seed in range(20)}
    assert len(orders) > 10
    assert seen_by(racing, 7) == seen_by(racing, 7)
    assert seen_by(racing, 7, is_shuffled=False) == [0, 1, 2, 3] * 3


def test_callbacks_keep_their_order() -> None:
    """``call_soon`` promises it, whatever the seed is."""

    async def scenario(simulation: Simulation, seen: list[Any]) -> None:
        for number in range(10):
            simulation.loop.call_soon(seen.append, number)
        await asyncio.sleep(1)

    assert all(seen_by(scenario, seed) == [*range(10)] for seed in range(5))


def test_chance_comes_from_the_seed() -> None:
    """Random numbers, tokens and ids are the same again, and those of the process are back."""

    async def scenario(simulation: Simulation, seen: list[Any]) -> None:
        seen.extend([random.random(), secrets.token_hex(8), uuid.uuid4(), hash(simulation.choice)])
        seen.pop()

    state = random.getstate()
    assert seen_by(scenario, 3) == seen_by(scenario, 3) != seen_by(scenario, 4)
    assert random.getstate() == state
    assert secrets.token_hex(8) != secrets.token_hex(8)


def test_nothing_left_to_run_is_reported() -> None:
    """A wait that nothing can end is a deadlock."""

    async def scenario(simulation: Simulation) -> None:
        await asyncio.Event().wait()

    with pytest.raises(StuckError, match="nothing is left to run"):
        simulate(scenario, 1)


def test_a_killed_process_runs_nothing_any_more() -> None:
    """Neither its ``finally`` nor the tasks that it has started."""

    async def scenario(simulation: Simulation, seen: list[Any]) -> None:
        async def child() -> None:
            await asyncio.sleep(2)
            seen.append("child")

        async def program() -> None:
            task = asyncio.create_task(child())
            try:
                seen.append("begins")
                await task
            finally:
                seen.append("cleans up")

        process = simulation.start("program", program())
        await asyncio.sleep(1)
        simulation.kill(process)
        await asyncio.sleep(9)
        assert simulation.living_tasks() == []
        seen.append("end")

    assert seen_by(scenario, 1)[:2] == ["begins", "end"]


def test_a_frozen_process_goes_on_when_it_thaws() -> None:
    """Its timers are late, and those of others are not."""

    async def scenario(simulation: Simulation, seen: list[Any]) -> None:
        async def program(name: str) -> None:
            await asyncio.sleep(1)
            seen.append((name, simulation.loop.time()))

        frozen = simulation.start("frozen", program("frozen"))
        simulation.start("other", program("other"))
        await asyncio.sleep(0.5)
        simulation.freeze(frozen, 4)
        await asyncio.sleep(9)

    assert seen_by(scenario, 1) == [("other", 1.0), ("frozen", 4.5)]


def test_functions_for_threads_run_on_the_loop() -> None:
    """Those of agents, and those that asyncio gives to its executor."""

    async def scenario(simulation: Simulation, seen: list[Any]) -> None:
        def where() -> bool:
            return asyncio.get_running_loop() is simulation.loop

        seen.append(await asyncio.to_thread(where))
        seen.append(await call_in_thread("a name", where))

    assert seen_by(scenario, 1) == [True, True]
