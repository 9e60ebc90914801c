"""The budget of writes that wait: by number and by size, first come, first served."""

from __future__ import annotations

import asyncio

import pytest

from murmur_streams.stores.redis.writes import WriteBudget


async def line(budget: WriteBudget, *sizes: int) -> list[asyncio.Task[None]]:
    """Callers that reserve a part, in this order; each has had its turn of the loop."""
    tasks = [asyncio.create_task(budget.reserve(size)) for size in sizes]
    await turns()
    return tasks


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def inside(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() and not task.cancelled() for task in tasks]


async def emptied(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_size_over_the_whole_budget_is_admitted_alone() -> None:
    """One write that is larger than the budget does not wait for ever."""
    budget = WriteBudget(10, 100)
    tasks = await line(budget, 500, 1)
    assert inside(tasks) == [True, False]
    budget.release(500)
    await turns()
    assert inside(tasks) == [True, True]


async def test_a_small_one_does_not_overtake_a_large_one() -> None:
    """Callers are admitted in the order in which they came."""
    budget = WriteBudget(10, 100)
    tasks = await line(budget, 60, 80, 1)
    assert inside(tasks) == [True, False, False]
    budget.release(60)
    await turns()
    assert inside(tasks) == [True, True, True]


@pytest.mark.fault("F8")
async def test_the_number_is_bounded_whatever_the_size() -> None:
    """Writes of size 0 count, too."""
    budget = WriteBudget(2, 100)
    tasks = await line(budget, 0, 0, 0)
    assert inside(tasks) == [True, True, False]
    await emptied(tasks)


async def test_a_caller_cancelled_in_the_line_admits_those_behind_it() -> None:
    """A cancelled caller does not hold up the smaller one behind it."""
    budget = WriteBudget(10, 100)
    tasks = await line(budget, 60, 80, 1)
    tasks[1].cancel()
    await turns()
    assert inside(tasks) == [True, False, True]


async def test_a_caller_cancelled_when_admitted_reserves_nothing() -> None:
    """Its part of the budget goes to the next caller."""
    budget = WriteBudget(1, 100)
    tasks = await line(budget, 1, 1, 1)
    budget.release(1)
    tasks[1].cancel()
    await turns()
    assert inside(tasks) == [True, False, True]
