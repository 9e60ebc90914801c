"""Room for writes that wait: by number and by size, first come, first served."""

from __future__ import annotations

import asyncio

from murmur_streams.stores.redis.backpressure import Room


async def line(room: Room, *sizes: int) -> list[asyncio.Task[None]]:
    """Callers that ask for room, in this order; each has had its turn of the loop."""
    tasks = [asyncio.create_task(room.enter(size)) for size in sizes]
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


async def test_a_size_over_all_the_room_is_let_in_alone() -> None:
    room = Room(10, 100)
    tasks = await line(room, 500, 1)
    assert inside(tasks) == [True, False]
    room.leave(500)
    await turns()
    assert inside(tasks) == [True, True]


async def test_a_small_one_does_not_overtake_a_large_one() -> None:
    room = Room(10, 100)
    tasks = await line(room, 60, 80, 1)
    assert inside(tasks) == [True, False, False]
    room.leave(60)
    await turns()
    assert inside(tasks) == [True, True, True]


async def test_the_number_is_bounded_whatever_the_size() -> None:
    room = Room(2, 100)
    tasks = await line(room, 0, 0, 0)
    assert inside(tasks) == [True, True, False]
    await emptied(tasks)


async def test_who_is_cancelled_in_the_line_lets_those_behind_it_in() -> None:
    room = Room(10, 100)
    tasks = await line(room, 60, 80, 1)
    tasks[1].cancel()
    await turns()
    assert inside(tasks) == [True, False, True]


async def test_who_is_cancelled_when_it_is_let_in_takes_no_room() -> None:
    room = Room(1, 100)
    tasks = await line(room, 1, 1, 1)
    room.leave(1)
    tasks[1].cancel()
    await turns()
    assert inside(tasks) == [True, False, True]
