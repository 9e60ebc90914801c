"""The rights that ``murmur-streams acl`` prints: each role can do all that it should, and no more.

The user of each role is made from the printed line itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import (
    MurmurError,
    RunFailedError,
    StoreConfigurationError,
    StoreUnavailableError,
    WritesDisabledError,
)
from murmur_streams.core.model.states import RunState
from murmur_streams.embedded.cluster_group import ClusterGroup
from murmur_streams.stores.redis.connection.checks import OWN_PROBES, PROBES, READ_PROBES
from murmur_streams.stores.redis.partitions import forget_numbers, raise_partitions
from murmur_streams.stores.redis.roles import Role, Way, rights_of
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import ServerHandle
from tests.cluster_service import cluster_service
from tests.fleet.working import working
from tests.running_server import short_folder
from tests.server_choice import EMBEDDED, WITHOUT_FUNCTIONS, chosen
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_stream, note
from tests.stores.faults.refusals import SECRET, opening, refusal
from tests.stores.faults.servers import has_functions
from tests.stores.faults.waiting import wait_for_subscribers

PREFIX = "shop:runs"
DENIED = (
    "FLUSHALL|FLUSHDB|KEYS *|CONFIG GET maxmemory|CONFIG SET maxmemory 1|ACL LIST|ACL SETUSER x on"
    "|SHUTDOWN NOSAVE|REPLICAOF NO ONE|SCRIPT FLUSH|EVAL return 0|MONITOR|CLIENT LIST"
    "|CLIENT KILL TYPE normal|SAVE|BGREWRITEAOF|SUBSCRIBE news|PUBLISH news 1|SLOWLOG GET"
    "|GET other|SET other 1 XX|DEL other|XADD other NOMKSTREAM * f v|XRANGE other - +|HGETALL shop"
)
"""What no role may do; "other" and "shop" are keys beside the prefix."""
least = pytest.mark.skipif(
    chosen() != EMBEDDED, reason="which rights are the least does not depend on the server"
)
OF_WORKERS = ("XREADGROUP GROUP g c STREAMS {key} >", "XGROUP CREATE {key} g 0")
OF_OPERATORS = ("SCAN 0", "DBSIZE", "XLEN {key}", "TYPE {key}")


@dataclass(frozen=True)
class Cast:
    """A server with the users of one way to call scripts."""

    server: ServerHandle
    admin: Redis
    way: Way

    async def let_in(self, role: Role, without: str = "") -> None:
        """Make the user of a role, perhaps without one of its rights."""
        line = rights_of(role, PREFIX, self.way).line(f"murmur-{role}", SECRET).split()
        await self.admin.execute_command(*(part for part in line if part != f"+{without}"))

    def url(self, role: Role) -> str:
        return self.server.url(f"murmur-{role}:{SECRET}")

    def client(self, role: Role) -> Redis:
        """A plain client of the user of a role."""
        return Redis.from_url(self.url(role), protocol=2, decode_responses=True, driver_info=None)

    async def denied(self) -> set[str]:
        """The commands and keys that the server has denied.

        Whether a server has functions is found out by calling one: that alone may be denied.
        """
        found = {str(each["object"]) for each in cast("Any", await self.admin.acl_log())}
        return found - ({"fcall"} if self.way is Way.SCRIPTS else set())

    async def is_denied(self, role: Role, *commands: str) -> list[str]:
        """Those of the commands that the role may call after all."""
        permitted: list[str] = []
        for command in commands:
            async with self.client(role) as client:
                try:
                    await client.execute_command(*command.format(key=f"{PREFIX}:x").split())
                except NoPermissionError:
                    continue
                except RedisError as error:
                    if "unknown command" in str(error).lower():
                        continue
                permitted.append(command)
        return permitted


@pytest.fixture(params=[Way.FUNCTIONS, Way.SCRIPTS])
async def cast_of(request: pytest.FixtureRequest, spare: ServerHandle) -> AsyncIterator[Cast]:
    """The users of all roles; on a server without functions there is one way."""
    async with spare.client() as admin:
        if request.param is Way.FUNCTIONS and not await has_functions(admin):
            pytest.skip("the server has no functions")
        made = Cast(spare, admin, request.param)
        for role in Role:
            await made.let_in(role)
        await admin.acl_log_reset()
        yield made
        await admin.flushall()


def agents_of(fleet: Fleet) -> None:
    """Agents that do all that an agent can do."""

    @fleet.agent(retries=1)
    async def works(name: str, run: RunContext) -> str:
        await run.output(name)
        await run.emit("page", {"n": 1})
        run.progress(total=2, completed=1)
        await run.checkpoint({"page": 1})
        if run.attempt == 1:
            raise ValueError("again")
        return name

    @fleet.agent
    async def fails(name: str) -> str:
        raise ValueError(name)

    @fleet.agent
    async def waits(name: str) -> str:
        await asyncio.Event().wait()
        return name


async def whole_life(url: Callable[[Role], str], **options: Any) -> None:
    """Submit, execute, follow, cancel and list, each by the user of its role."""
    options["key_prefix"] = PREFIX
    api, crew = (Fleet(url(role), **options) for role in (Role.API, Role.WORKER))
    agents_of(crew)
    async with api, crew, working(crew):
        done = await api.submit("works", "Ada")
        events = [event.type async for event in done.stream()]
        assert "agent_output" in events
        assert await done.output(timeout=30) == "Ada"
        with pytest.raises(RunFailedError):
            await (await api.submit("fails", "Bob")).output(timeout=30)
        waiting = await api.submit("waits", "Eve")
        stopped = await waiting.cancel(reason="enough", wait=30)
        assert stopped.state is RunState.CANCELLED
        assert {run.target for run in (await (await api.store()).list_runs()).runs} == {
            "works",
            "fails",
            "waits",
        }
        assert [len(worker.targets) for worker in await api.workers()] == [3]
        await (await api.store()).ping()


async def in_store(store: RedisRunStore) -> None:
    """What programs do that have no fleet: they own their runs."""
    for run_id in ("own", "gone"):
        await store.create(run_id, "own")
        await store.set_state(run_id, RunState.RUNNING)
        await store.append(run_id, note(run_id, "a"))
        await store.push_event(run_id, note(run_id, "b"))
    await store.finish("own", RunState.COMPLETED)
    assert await names_in_stream(store, "own") == ["a", "b"]
    await store.delete("gone", force=True)


async def all_reads(store: RedisRunStore) -> None:
    """All that a reader may do with what ``whole_life`` and ``in_store`` have left."""
    runs = (await store.list_runs()).runs
    assert len((await store.list_runs(state=RunState.COMPLETED, target="works")).runs) == 1
    for run in runs:
        assert (await store.get_status(run.run_id)).state is run.state
        await store.get_result(run.run_id)
        await store.get_input(run.run_id)
        assert [entry async for entry in store.journal(run.run_id)]
        assert (await store.audit(run.run_id)).problems == ()
        await store.archive(run.run_id)
        async for _ in store.stream(run.run_id):
            pass
        assert await store.lease_left_ms(run.run_id) is None
        await store.last_entries(run.run_id, 2)
    await store.paused()
    await store.workers().list()
    assert (await store.dead_letters().list()).letters
    await store.ping()


async def reads_feed(store: RedisRunStore) -> None:
    """Read an entry of the feed, and check that it can be read on from there."""
    feed = store.feed()
    first = await anext(feed)
    await feed.aclose()
    await store.check_feed_cursor(first.cursor)


async def follows_two(reader: RedisRunStore, api: RedisRunStore, admin: Redis) -> None:
    """Follow a run while the read for another one blocks: no write wakes that read."""
    reading: list[asyncio.Task[list[str | None]]] = []
    for run_id in ("one", "two"):
        await api.create(run_id, "own")
        reading.append(asyncio.create_task(names_in_stream(reader, run_id)))
        await wait_for_subscribers(reader, admin, len(reading))
    for run_id in ("two", "one"):
        await api.append(run_id, note(run_id, run_id))
        await api.finish(run_id, RunState.COMPLETED)
    assert await asyncio.gather(*reading) == [["one"], ["two"]]


async def all_of_an_operator(store: RedisRunStore, client: Redis) -> None:
    """All that the command line does with the runs, and a look around by hand."""
    await all_reads(store)
    ended = (await store.list_runs(target="works")).runs[0].run_id
    archive = await store.archive(ended)
    await store.rebuild(ended)
    await store.delete(ended)
    assert await store.restore(archive) is True
    await store.pause("works")
    await store.resume("works")
    await store.dead_letters().purge(all=True)
    await store.sweep()
    await raise_partitions(store, 2)
    with pytest.raises(StoreConfigurationError, match="older numbers"):
        await forget_numbers(store)
    _, found = await client.scan(match=f"{PREFIX}:*")
    assert await client.type(f"{PREFIX}:meta") == "hash"
    assert await client.hget(f"{PREFIX}:meta", "partitions") == "1,2"
    assert await client.xlen(f"{PREFIX}:{{0}}:feed") > 0
    assert await client.memory_usage(found[0])
    assert await client.object("ENCODING", found[0])
    assert await client.dbsize() > 0
    assert await client.acl_whoami() == "murmur-operator"


async def test_each_role_can_do_all_that_it_should(cast_of: Cast, make_store: StoreMaker) -> None:
    """A whole run life, a worker, streams, the feed, operators: the server denies nothing."""
    make = functools.partial(make_store, key_prefix=PREFIX, call_seconds=5)
    await whole_life(cast_of.url)
    await in_store(make(cast_of.url(Role.API)))
    reader = make(cast_of.url(Role.READER), read_only=True)
    await all_reads(reader)
    await reads_feed(reader)
    await follows_two(reader, make(cast_of.url(Role.API)), cast_of.admin)
    await reader.close()
    async with cast_of.client(Role.OPERATOR) as client:
        await all_of_an_operator(make(cast_of.url(Role.OPERATOR)), client)
    assert await cast_of.denied() == set()


async def test_no_role_can_do_what_it_must_not(cast_of: Cast) -> None:
    """Neither the server's own commands, nor other keys, nor another role's part."""
    await cast_of.admin.set("other", 1)
    await cast_of.admin.hset("shop", "runs", "1")
    for role in Role:
        assert await cast_of.is_denied(role, *DENIED.split("|")) == []
        if role is not Role.WORKER:
            assert await cast_of.is_denied(role, *OF_WORKERS) == []
        if role is not Role.OPERATOR:
            assert await cast_of.is_denied(role, *OF_OPERATORS) == []
    assert await cast_of.admin.get("other") == b"1"


async def test_a_reader_is_denied_every_write(cast_of: Cast) -> None:
    """By the server, whatever its program is; also by functions and scripts."""
    reads = {probe.split()[0] for probe in READ_PROBES}
    transaction = {"MULTI", "EXEC", "DISCARD"}
    writes = [
        probe for probe in (*PROBES, *OWN_PROBES) if probe.split()[0] not in reads | transaction
    ]
    assert len(writes) > 20
    scripts = ("EVALSHA 0 0", "FCALL f 0", "SCRIPT LOAD x", "FUNCTION LOAD x")
    assert await cast_of.is_denied(Role.READER, *writes, *scripts) == []


@least
@pytest.mark.parametrize("role", [Role.READER, Role.WORKER])
async def test_a_role_needs_each_of_its_rights(
    role: Role, cast_of: Cast, make_store: StoreMaker
) -> None:
    """Without any of the commands that its store checks, the program is refused at its start."""
    make = functools.partial(make_store, key_prefix=PREFIX, call_seconds=5)
    await opening(make(cast_of.url(Role.API)))
    optional = {"copy", "info", "role"}
    loads = {"function|load", "script|load", "script|exists", "fcall", "evalsha"}
    for right in set(rights_of(role, PREFIX, cast_of.way).commands) - optional - loads:
        await cast_of.let_in(role, without=right)
        store = make(cast_of.url(role), read_only=role is Role.READER)
        begin = opening(store) if role is Role.READER else store.queue(5).prepare(["works"])
        text = await refusal(begin, StoreConfigurationError)
        assert f"+{right.partition('|')[0]}" in text


READ_AGAIN = frozenset({"ping"})
"""A command of a reader that only a broken connection needs."""


@least
async def test_every_right_of_a_reader_is_used(cast_of: Cast, make_store: StoreMaker) -> None:
    """Taken away while the store is in use, each is missed by one of its calls."""
    make = functools.partial(make_store, key_prefix=PREFIX, call_seconds=5)
    await whole_life(cast_of.url)
    await in_store(make(cast_of.url(Role.API)))
    unused = set[str]()
    for right in rights_of(Role.READER, PREFIX, cast_of.way).commands:
        await cast_of.let_in(Role.READER)
        reader = make(cast_of.url(Role.READER), read_only=True)
        await reader.ping()
        await cast_of.admin.execute_command("ACL", "SETUSER", f"murmur-{Role.READER}", f"-{right}")
        try:
            await reads_live(reader, make(cast_of.url(Role.API)), f"live-{right}")
        except MurmurError:
            continue
        finally:
            await reader.close()
        unused.add(right)
    # INFO and ROLE are for warnings and failovers.
    assert unused == {"info", "role"} | READ_AGAIN


async def reads_live(reader: RedisRunStore, api: RedisRunStore, run_id: str) -> None:
    """All reads, and a stream that is open while its run goes on."""
    await all_reads(reader)
    await reads_feed(reader)
    await api.create(run_id, "own")
    reading = asyncio.create_task(names_in_stream(reader, run_id))
    try:
        async with asyncio.timeout(20):
            await api.append(run_id, note(run_id, "a"))
            await api.finish(run_id, RunState.COMPLETED)
            assert await reading == ["a"]
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        with contextlib.suppress(MurmurError):
            await api.delete(run_id)


@least
async def test_every_right_is_used_by_some_role(cast_of: Cast, make_store: StoreMaker) -> None:
    """The server counts the commands of scripts, too: what no program calls is not granted."""
    make = functools.partial(make_store, key_prefix=PREFIX, call_seconds=5)
    store = make(cast_of.url(Role.OPERATOR))
    await store.list_runs()
    for role in (Role.API, Role.WORKER):
        async with Fleet(cast_of.url(role), key_prefix=PREFIX) as fleet:
            await (await fleet.store()).ping()
    await cast_of.admin.config_resetstat()
    await whole_life(cast_of.url)
    await in_store(make(cast_of.url(Role.API)))
    async with cast_of.client(Role.OPERATOR) as client:
        await all_of_an_operator(store, client)
    used = {name.removeprefix("cmdstat_") for name in await cast_of.admin.info("commandstats")}
    granted = {right for role in Role for right in rights_of(role, PREFIX, cast_of.way).commands}
    names = {right.partition("|")[0] for right in granted}
    assert {name.partition("|")[0] for name in used} >= names - NOT_EACH_TIME


NOT_EACH_TIME = frozenset({"role", "command", "discard", "function", "hsetnx"})
"""ROLE is for Sentinels, COMMAND is what redis-cli asks, a library is loaded once, and two are for
older records."""


async def test_a_reader_writes_nothing(cast_of: Cast, make_store: StoreMaker) -> None:
    """Neither at its start nor while it reads; its own calls that write are refused unsent."""
    make = functools.partial(make_store, key_prefix=PREFIX, call_seconds=5)
    writer = make(cast_of.url(Role.READER))
    assert "MURMUR_READ_ONLY=1" in await refusal(opening(writer), StoreConfigurationError)
    await cast_of.admin.acl_log_reset()
    reader = make(cast_of.url(Role.READER), read_only=True)
    text = await refusal(opening(reader), StoreUnavailableError)
    assert PREFIX in text
    assert await cast_of.admin.keys("*") == []
    api = make(cast_of.url(Role.API))
    await api.create("run", "work")
    before = await cast_of.admin.info("commandstats")
    await reader.ping()
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: reader.create("other", "work"),
        lambda: reader.append("run", note("run", "a")),
        lambda: reader.finish("run", RunState.COMPLETED),
        lambda: reader.delete("run"),
        reader.sweep,
        lambda: reader.pause("work"),
        lambda: reader.dead_letters().purge(all=True),
    ]
    for call in calls:
        assert "read_only" in await refusal(call(), WritesDisabledError)
    await refusal(reader.queue(5).prepare(["work"]), StoreConfigurationError)
    assert await cast_of.denied() == set()
    after = await cast_of.admin.info("commandstats")
    for name in ("cmdstat_fcall", "cmdstat_evalsha", "cmdstat_xtrim"):
        assert after.get(name) == before.get(name)


async def test_a_reader_ends_where_all_others_end(cast_of: Cast, make_store: StoreMaker) -> None:
    """It cannot seal a run that ended without a closing event, and its stream ends all the same."""
    make = functools.partial(make_store, key_prefix=PREFIX, call_seconds=5, late_event_seconds=0.2)
    api, reader = make(cast_of.url(Role.API)), make(cast_of.url(Role.READER), read_only=True)
    await api.create("run", "work")
    reading = asyncio.create_task(names_in_stream(reader, "run"))
    await api.append("run", note("run", "a"))
    await api.set_state("run", RunState.RUNNING)
    await api.set_state("run", RunState.COMPLETED)
    assert await asyncio.wait_for(reading, 30) == ["a"]
    assert await cast_of.admin.hget(f"{PREFIX}:{{0}}:run:run", "seal") is None
    assert await names_in_stream(reader, "run") == ["a"]
    await api.push_event("run", note("run", "late"))
    assert await names_in_stream(api, "run") == await names_in_stream(reader, "run") == ["a"]


async def test_functions_that_an_operator_has_loaded_are_enough(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """With `--way preloaded` a worker cannot change the code that others call."""
    async with spare.client() as admin:
        if not await has_functions(admin):
            pytest.skip("the server has no functions")
        made = Cast(spare, admin, Way.PRELOADED)
        for role in (Role.WORKER, Role.API, Role.OPERATOR):
            await made.let_in(role)
        make = functools.partial(make_store, key_prefix=PREFIX, call_seconds=5)
        await refusal(opening(make(made.url(Role.WORKER))), StoreConfigurationError)
        await opening(make(made.url(Role.OPERATOR)))
        await admin.acl_log_reset()
        await whole_life(made.url)
        assert await made.denied() == set()
        loads = ("FUNCTION LOAD x", "FUNCTION DELETE x", "FUNCTION FLUSH", "SCRIPT LOAD x")
        assert await made.is_denied(Role.WORKER, *loads) == []
        await admin.flushall()


def test_a_right_is_granted_in_its_narrowest_form() -> None:
    """XGROUP and XINFO have subcommands of which a store calls one."""
    rights = rights_of(Role.WORKER, "murmur:runs")
    assert {"xgroup|create", "xinfo|stream"} <= set(rights.commands)
    assert not {"xgroup", "xinfo", "select", "wait"} & set(rights.commands)
    more = rights_of(Role.WORKER, "murmur:runs", is_replicated=True, has_database=True)
    assert set(more.commands) - set(rights.commands) == {"select", "wait"}
    assert rights.keys == ("~murmur:runs:*",)
    assert rights_of(Role.READER, "murmur:runs:").keys == ("%R~murmur:runs:*",)


@pytest.fixture
def group() -> Iterator[ClusterGroup]:
    """Three primaries."""
    with short_folder() as folder, cluster_service(folder, replicas=0) as group:
        yield group


@pytest.mark.skipif(
    "6.2" in chosen() or chosen().endswith(WITHOUT_FUNCTIONS), reason="it has no functions"
)
async def test_the_rights_suffice_on_a_cluster(group: ClusterGroup, make_store: StoreMaker) -> None:
    """The same programs, with users on every node; the nodes deny nothing, and other channels."""

    def on_each(*command: str) -> list[Any]:
        answers: list[Any] = []
        for node in group.nodes:
            with node.client as client:
                answers.append(cast("Any", client).execute_command(*command))
        return answers

    def url(role: Role) -> str:
        return group.url.replace("://", f"://murmur-{role}:{SECRET}@")

    for role in Role:
        line = rights_of(role, PREFIX, is_cluster=True).line(f"murmur-{role}", SECRET)
        assert await asyncio.to_thread(on_each, *line.split()) == [b"OK"] * 3
    make = functools.partial(make_store, key_prefix=PREFIX, call_seconds=5, partitions=16)
    await whole_life(url, partitions=16)
    await in_store(make(url(Role.API)))
    reader = make(url(Role.READER), read_only=True)
    await all_reads(reader)
    await reads_feed(reader)
    operator = make(url(Role.OPERATOR))
    await operator.pause("works")
    await operator.resume("works")
    await operator.dead_letters().purge(all=True)
    await operator.sweep()
    assert await asyncio.to_thread(on_each, "ACL", "LOG") == [[]] * 3
    for role in Role:
        user: dict[str, Any] = {"username": f"murmur-{role}", "password": SECRET}
        async with Redis(port=group.nodes[0].port, **user) as client:
            for command in ("SSUBSCRIBE news", "SPUBLISH news 1", "CLUSTER RESET", "FLUSHALL"):
                with pytest.raises(NoPermissionError):
                    await client.execute_command(*command.split())
