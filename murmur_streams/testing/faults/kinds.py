"""Kinds of faults for a schedule: each lasts a moment, and leaves a server that works."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from murmur_streams.testing.faults.plans import Fault, calls, commands, nothing, once
from murmur_streams.testing.faults.proxy import FaultProxy
from murmur_streams.testing.faults.schedule import Act
from murmur_streams.testing.faults.servers import ServerHandle
from murmur_streams.testing.faults.tcp_proxy import Direction, TcpProxy

READS = ("XREAD", "XRANGE", "HGETALL", "HMGET")
UNDO_SECONDS = 60.0
"""How long a fault that has to be taken back waits for its server."""
_BUSY = "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i % 7 end return 1"
"""A script counts: its clock may stand still while it runs."""
MOST_COUNTED = 20_000_000
"""Half a second, more or less."""
Admin = Callable[[], Redis]
"""Makes a client that may do everything, also while other users may not."""


def network_faults(proxy: TcpProxy, choice: random.Random) -> dict[str, Act]:
    """Connections are cut, late, in pieces, held back, and in black holes."""

    async def moment() -> None:
        await asyncio.sleep(choice.uniform(0.1, 0.8))

    async def cut_all() -> None:
        proxy.cut_all()

    async def cut_some() -> None:
        proxy.cut_some(choice)

    async def pieces() -> None:
        proxy.piece_bytes = choice.randint(1, 100)
        await moment()
        proxy.piece_bytes = 0

    async def late() -> None:
        proxy.delay_seconds = choice.uniform(0.001, 0.03)
        await moment()
        proxy.delay_seconds = 0.0

    async def held_back() -> None:
        proxy.stall(choice.choice([Direction.TO_SERVER, Direction.TO_CLIENT, Direction.BOTH]))
        await moment()
        proxy.resume()

    def black_hole(directions: Direction, *, also_new: bool) -> Act:
        async def act() -> None:
            proxy.black_hole(directions, also_new=also_new)
            await moment()
            proxy.end_black_hole()

        return act

    return {
        "every connection is cut": cut_all,
        "some connections are cut": cut_some,
        "bytes come in pieces": pieces,
        "bytes come late": late,
        "bytes are held back": held_back,
        "connections are forgotten": black_hole(Direction.BOTH, also_new=False),
        "requests vanish": black_hole(Direction.TO_SERVER, also_new=True),
        "replies vanish": black_hole(Direction.TO_CLIENT, also_new=True),
        "everything vanishes": black_hole(Direction.BOTH, also_new=True),
    }


def request_faults(proxy: FaultProxy, choice: random.Random) -> dict[str, Act]:
    """One request, or its reply, is lost, cut, delayed, or not a reply."""

    def one(fault: Fault) -> Act:
        async def act() -> None:
            proxy.plan = once(fault, choice.choice([calls(), commands(*READS)]))
            await asyncio.sleep(choice.uniform(0.1, 0.6))
            proxy.plan = nothing
            with contextlib.suppress(Exception):
                await proxy.execute_stalled()

        return act

    return {f"{fault.name}: {fault.value}": one(fault) for fault in Fault if fault.name != "NONE"}


def process_faults(server: ServerHandle, choice: random.Random) -> dict[str, Act]:
    """A server that has its data on the disk is killed, restarted, frozen and demoted."""

    async def killed() -> None:
        await server.kill()
        await asyncio.sleep(choice.uniform(0, 0.5))
        await server.start()

    async def frozen() -> None:
        server.freeze()
        await asyncio.sleep(choice.uniform(0.1, 1.5))
        server.thaw()

    async def demoted() -> None:
        await server.demote()
        await asyncio.sleep(choice.uniform(0.05, 0.5))
        await server.promote()

    async def disk_is_full() -> None:
        files = [each for each in server.folder.rglob("*.aof") if each.is_file()]
        largest = max((each.stat().st_size for each in files), default=0)
        server.limit_files(largest + choice.randint(0, 5_000))
        await asyncio.sleep(choice.uniform(0.1, 0.6))
        if server.node.runs:
            server.limit_files(None)
            await asyncio.sleep(0.1)
        if not server.node.runs:
            await server.start()

    full: dict[str, Act] = {"the disk is full": disk_is_full} if sys.platform == "linux" else {}
    return full | {
        "the server is killed": killed,
        "the server restarts in order": server.restart,
        "the server is frozen": frozen,
        "the server is a replica for a moment": demoted,
    }


def server_faults(admin: Admin, choice: random.Random, user: str = "default") -> dict[str, Act]:
    """Settings, scripts, rights and clients of the server that ``admin`` leads to.

    Args:
        admin: a client of another user than the programs'.
        choice: of the lengths.
        user: of the programs.
    """
    setting = _settings(admin, choice)
    clients = _clients(admin, choice, user)

    async def busy(limit_ms: int) -> None:
        await _send(admin, "CONFIG", "SET", "lua-time-limit", limit_ms)
        with contextlib.suppress(RedisError, OSError):
            await _send(admin, "EVAL", _BUSY, 0, choice.randint(1_000_000, MOST_COUNTED))

    async def flush(what: str) -> None:
        await _send(admin, what, "FLUSH")

    async def save(how: str) -> None:
        with contextlib.suppress(RedisError):  # One may be under way.
            await _send(admin, how)

    def lacks(right: str) -> Act:
        rule = ("ACL", "SETUSER", user)
        return _for_a_moment(admin, choice, (*rule, f"-{right}"), (*rule, f"+{right}"))

    return {
        "scripts are flushed": lambda: flush("SCRIPT"),
        "functions are flushed": lambda: flush("FUNCTION"),
        "a script of another program runs": lambda: busy(5_000),
        "a script of another program runs, and the server says so": lambda: busy(10),
        "a snapshot is taken": lambda: save("BGSAVE"),
        "the file of writes is written anew": lambda: save("BGREWRITEAOF"),
        "the right to HSET is taken away": lacks("hset"),
        "the right to XREAD is taken away": lacks("xread"),
        "the right to call functions is taken away": lacks("fcall"),
        **setting,
        **clients,
    }


def _settings(admin: Admin, choice: random.Random) -> dict[str, Act]:
    def setting(name: str, value: object, usual: object) -> Act:
        rule = ("CONFIG", "SET", name)
        return _for_a_moment(admin, choice, (*rule, value), (*rule, usual))

    async def few_clients() -> None:
        async with admin() as client:
            count = int((await cast("Any", client).info("clients"))["connected_clients"])
        await setting("maxclients", max(count, 2), 10_000)()

    buffers = "client-output-buffer-limit"
    return {
        "memory is full": setting("maxmemory", 1, 0),
        "too few replicas": setting("min-replicas-to-write", 9, 0),
        "the most clients are connected": few_clients,
        "idle clients are disconnected": setting("timeout", 1, 0),
        "the policy lets runs be evicted": setting("maxmemory-policy", "allkeys-lru", "noeviction"),
        "large replies are refused": setting(buffers, "normal 4096 1024 1", "normal 0 0 0"),
    }


def _clients(admin: Admin, choice: random.Random, user: str) -> dict[str, Act]:
    def pause(*mode: str) -> Act:
        return lambda: _send(admin, "CLIENT", "PAUSE", choice.randint(50, 500), *mode)

    def kill(*which: str) -> Act:
        async def act() -> None:
            with contextlib.suppress(RedisError):  # None of this kind is connected.
                await _send(admin, "CLIENT", "KILL", *which)

        return act

    async def unblock(how: str) -> None:
        async with admin() as client:
            for each in await cast("Any", client).client_list():
                await cast("Any", client).execute_command("CLIENT", "UNBLOCK", each["id"], how)

    async def password() -> None:
        rule = ("ACL", "SETUSER", user)
        change = _for_a_moment(admin, choice, (*rule, "resetpass", ">new"), (*rule, "nopass"))
        changing = asyncio.ensure_future(change())
        await asyncio.sleep(0.02)
        await kill("USER", user)()
        await changing

    return {
        "clients are killed": kill("USER", user),
        "subscribers are killed": kill("TYPE", "pubsub"),
        "replicas are disconnected": kill("TYPE", "replica"),
        "clients are paused": pause("ALL"),
        "writes are paused": pause("WRITE"),
        "blocked readers get an error": lambda: unblock("ERROR"),
        "blocked readers get nothing": lambda: unblock("TIMEOUT"),
        "the password is another one": password,
    }


async def _send(admin: Admin, *command: object) -> None:
    async with admin() as client:
        await cast("Any", client).execute_command(*(str(part) for part in command))


def _for_a_moment(
    admin: Admin, choice: random.Random, do: tuple[object, ...], undo: tuple[object, ...]
) -> Act:
    async def act() -> None:
        # The same server, also when another one has become the primary meanwhile.
        async with admin() as client:
            await cast("Any", client).execute_command(*(str(part) for part in do))
            try:
                await asyncio.sleep(choice.uniform(0.05, 0.5))
            finally:
                await _send_until_done(client, *undo)

    return act


async def _send_until_done(client: Any, *command: object) -> None:
    """Send a command until the server takes it, over kills and restarts."""
    async with asyncio.timeout(UNDO_SECONDS):
        while True:
            try:
                await client.execute_command(*(str(part) for part in command))
            except (RedisError, OSError):
                await asyncio.sleep(0.05)
            else:
                return
