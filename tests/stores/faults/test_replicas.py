"""A server that is a replica: waited for like a broken connection, then always the same error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import MurmurError, StoreReadOnlyError
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.model.work import Beat, TargetRule, WorkerInfo
from murmur_streams.stores.redis import server as server_module
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import FaultProxy, ServerHandle
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, names_in_stream, note
from tests.stores.faults.refusals import SECRET, limited, opening, refusal
from tests.stores.faults.servers import spare_server
from tests.stores.faults.waiting import wait_until

SHORT = 0.05
"""Seconds of retries where none can help."""
RULES = [TargetRule("work")]


class Pair:
    """Two servers that replicate, and a proxy at the address that programs know."""

    def __init__(self, one: ServerHandle, other: ServerHandle, proxy: FaultProxy) -> None:
        self.primary, self.replica = one, other
        self.proxy = proxy

    async def follow(self) -> None:
        """Let the replica follow the primary, and return when it has all."""
        await self.demote(self.replica, self.primary)

        async def is_linked() -> bool:
            async with self.replica.client() as admin:
                info = await admin.info("replication")
            return bool(info.get("master_link_status") == "up")

        await wait_until(is_linked, "the replica has all")

    async def demote(self, server: ServerHandle, primary: ServerHandle) -> None:
        """Make a server a replica; its connections stay open."""
        async with server.client() as admin:
            await admin.execute_command("REPLICAOF", *(str(part) for part in primary.address))

    async def fail_over(self) -> None:
        """Promote the replica, demote the primary, let new connections go to the new primary."""
        async with self.replica.client() as admin:
            await admin.execute_command("REPLICAOF", "NO", "ONE")
        await self.demote(self.primary, self.replica)
        self.primary, self.replica = self.replica, self.primary
        self.proxy.upstream = self.primary.address


@pytest.fixture
async def pair(tmp_path: Path, nothing_is_left: None) -> AsyncIterator[Pair]:
    fast = ("repl-diskless-sync", "yes", "repl-diskless-sync-delay", "0")
    async with (
        spare_server(tmp_path / "one", *fast) as one,
        spare_server(tmp_path / "other", *fast) as other,
        FaultProxy(one.address) as proxy,
    ):
        pair = Pair(one, other, proxy)
        await pair.follow()
        yield pair


async def test_a_failover_at_a_stable_address_is_not_noticed(
    pair: Pair, make_store: StoreMaker
) -> None:
    """Writes, reads and followed streams go on after two failovers behind one address."""
    store = make_store(pair.proxy.url)
    await store.create("run", "work")
    following = asyncio.create_task(names_in_stream(store, "run"))
    names: list[str] = []
    for turn in range(3):
        names += [f"{turn}-{number}" for number in range(5)]
        await asyncio.gather(*(store.append("run", note("run", name)) for name in names[-5:]))
        assert (await store.get_status("run")).state is not None
        if turn < 2:
            await pair.fail_over()
            await pair.follow()
    await store.finish("run", RunState.COMPLETED)
    assert [name for name in await following if name] == names
    assert await names_in_journal(store, "run") == names
    assert (await store.audit("run")).problems == ()


Call = Callable[[RedisRunStore], Awaitable[object]]
CALLS: dict[str, Call] = {
    "append": lambda store: store.append("run", note("run", "a")),
    "create": lambda store: store.create("other", "work"),
    "submit": lambda store: store.submit("other", "work"),
    "push_event": lambda store: store.push_event("run", note("run", "a")),
    "set_state": lambda store: store.set_state("run", RunState.RUNNING),
    "set_result": lambda store: store.set_result(
        "ended", AgentResult(output=1, agent_name="work", task_id="t")
    ),
    "progress": lambda store: store.update_progress("run", RunProgress(total=1)),
    "finish": lambda store: store.finish("run", RunState.COMPLETED),
    "cancel": lambda store: store.request_cancel("run"),
    "delete": lambda store: store.delete("run", force=True),
    "rebuild": lambda store: store.rebuild("run"),
    "sweep": lambda store: store.sweep(),
    "claim": lambda store: store.queue(5.0).claim("worker", RULES, 1),
    "tend": lambda store: store.queue(5.0).tend("worker", ["work"], 1.0),
    "prepare": lambda store: store.queue(5.0).prepare(["new"]),
    "pause": lambda store: store.pause("work"),
    "resume": lambda store: store.resume("work"),
    "beat": lambda store: store.workers().beat(INFO),
}
INFO = WorkerInfo("w", "host", 1, "1", "3", ["work"], 1, 1, "working", 0, [])


async def demoted(
    spare: ServerHandle, make_store: StoreMaker, admin: Redis
) -> tuple[RedisRunStore, dict[str, Call]]:
    """A store whose server becomes a replica of nothing, and the calls on its runs."""
    store = make_store(spare.url(), retry_seconds=SHORT)
    await store.submit("run", "work")
    claim = (await store.queue(5.0).claim("worker", RULES, 1)).claims[0]
    await store.submit("waiting", "work")
    await store.create("ended", "work")
    await store.set_state("ended", RunState.COMPLETED)
    await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    claimed: dict[str, Call] = {
        "heartbeat": lambda store: store.queue(5.0).heartbeat([Beat(claim)]),
        "release": lambda store: store.release("run", claim.token, "worker_stopped"),
        "checkpoint": lambda store: store.checkpoint("run", 1, claim.token),
    }
    return store, CALLS | claimed


async def test_a_replica_ends_every_call_with_one_error(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """The first call and all later ones raise StoreReadOnlyError, and nothing is written."""
    async with spare.client() as admin:
        store, calls = await demoted(spare, make_store, admin)
        for _ in range(2):
            for name, call in calls.items():
                text = await refusal(call(store), StoreReadOnlyError)
                assert "is a replica" in text, name
        assert (await store.get_status("run")).state is RunState.RUNNING
        await admin.execute_command("REPLICAOF", "NO", "ONE")
        assert await store.append("run", note("run", "b")) > 1
        assert (await store.audit("run")).problems == ()


async def test_a_replica_is_asked_again_until_it_is_a_primary(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A call that began while the server was a replica succeeds once it is a primary again."""
    async with spare.client() as admin:
        store = make_store(spare.url())
        await store.create("run", "work")
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        writing = asyncio.create_task(store.append("run", note("run", "a")))
        sweeping = asyncio.create_task(store.sweep())

        async def refused() -> int:
            """How many errors the server answered so far, whatever it counts them under."""
            found = await admin.info("errorstats")
            return sum(int(each["count"]) for each in found.values())

        before = await refused()
        await wait_until(lambda: reached(refused, before + 1), "the server has refused")
        await admin.execute_command("REPLICAOF", "NO", "ONE")
        assert await writing == 2
        assert await sweeping == 0
        assert await names_in_journal(store, "run") == ["a"]


async def reached(count: Callable[[], Awaitable[int]], least: int) -> bool:
    return await count() >= least


async def test_the_first_connection_to_a_replica_is_refused_soon(
    spare: ServerHandle, make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store on a replica's address gives up like one on a wrong address, with the same error."""
    monkeypatch.setattr(server_module, "OPENING_SECONDS", SHORT)
    async with spare.client() as admin:
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        text = await refusal(opening(make_store(spare.url())), StoreReadOnlyError)
        assert "is a replica" in text
        # Without the right to INFO, the first write finds out.
        await limited(admin, "+@all", "-info")
        store = make_store(spare.url(f"limited:{SECRET}"), retry_seconds=SHORT)
        text = await refusal(store.create("run", "work"), StoreReadOnlyError)
        assert "is a replica" in text


async def test_the_error_of_a_replica_is_a_store_error() -> None:
    """Callers that catch the base class catch it, too."""
    assert issubclass(StoreReadOnlyError, MurmurError)
