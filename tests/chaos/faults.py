"""The faults of a chaos run: each lasts a moment, and leaves a world that works."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.stores.faults.proxy import Fault, FaultProxy, calls, commands, nothing, once

Act = Callable[[], Awaitable[None]]
READS = ("XREAD", "XRANGE", "HGETALL", "HMGET")


def of_connections(proxy: FaultProxy, choice: random.Random) -> dict[str, Act]:
    """One request is lost, cut, delayed; or connections end."""

    def one(fault: Fault) -> Act:
        async def act() -> None:
            proxy.plan = once(fault, choice.choice([calls(), commands(*READS)]))
            await asyncio.sleep(choice.uniform(0.1, 0.6))
            proxy.plan = nothing
            with contextlib.suppress(Exception):
                await proxy.execute_stalled()

        return act

    async def cut_all() -> None:
        proxy.cut_all()

    async def cut_some() -> None:
        proxy.cut_some(choice)

    named = {fault.value: one(fault) for fault in Fault if fault is not Fault.NONE}
    return {**named, "every connection is cut": cut_all, "some connections are cut": cut_some}


def of_server(client: Callable[[], Redis], choice: random.Random) -> dict[str, Act]:
    """Settings, scripts and clients of the server that ``client`` leads to."""

    async def send(*command: object) -> Any:
        async with client() as admin:
            return await admin.execute_command(*(str(part) for part in command))

    def for_a_moment(do: tuple[object, ...], undo: tuple[object, ...]) -> Act:
        async def act() -> None:
            await send(*do)
            try:
                await asyncio.sleep(choice.uniform(0.05, 0.5))
            finally:
                await send(*undo)

        return act

    def pause(*mode: str) -> Act:
        async def act() -> None:
            await send("CLIENT", "PAUSE", choice.randint(50, 500), *mode)

        return act

    async def flush_scripts() -> None:
        await send("SCRIPT", "FLUSH")
        with contextlib.suppress(RedisError):
            await send("FUNCTION", "FLUSH")

    async def unblock() -> None:
        async with client() as admin:
            for each in await admin.client_list():
                await admin.execute_command("CLIENT", "UNBLOCK", each["id"], "ERROR")

    return {
        "scripts and functions are flushed": flush_scripts,
        "memory is full": for_a_moment(
            ("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0)
        ),
        "too few replicas": for_a_moment(
            ("CONFIG", "SET", "min-replicas-to-write", 9),
            ("CONFIG", "SET", "min-replicas-to-write", 0),
        ),
        "a right is taken away": for_a_moment(
            ("ACL", "SETUSER", "default", "-hset"), ("ACL", "SETUSER", "default", "+hset")
        ),
        "clients are killed": lambda: send("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        "clients are paused": pause(),
        "writes are paused": pause("WRITE"),
        "blocked readers are unblocked": unblock,
    }
