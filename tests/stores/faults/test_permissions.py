"""A missing right is found before a script has made its first write."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import (
    StoreConfigurationError,
)
from murmur_streams.core.model.results import AgentResult
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import TargetRule
from murmur_streams.stores import redis as store_modules
from murmur_streams.stores.redis.connection.checks import (
    OWN_PROBES,
    PROBES,
    REPLICATED_PROBES,
    WORKER_PROBES,
)
from murmur_streams.stores.redis.script_rights import MAY_BE_DENIED
from murmur_streams.stores.redis.scripts import load_library, load_scripts
from murmur_streams.testing.faults import ServerHandle
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, names_in_stream, note
from tests.stores.faults.refusals import SECRET, TRIED_AGAIN, limited, refusal
from tests.stores.faults.servers import has_functions

SOURCES = Path(str(store_modules.__file__)).parent
PROBED = sorted({probe.split()[0] for probe in PROBES + OWN_PROBES} | {"HSETNX"})
WORKER_PROBED = sorted({probe.split()[0] for probe in WORKER_PROBES})
REPLICATED_PROBED = sorted({probe.split()[0] for probe in REPLICATED_PROBES})
SCRIPTS = ("+evalsha", "+script|load")
FUNCTIONS = ("+fcall", "+function|load")
OPTIONAL = {"INFO", "SCRIPT", "EVALSHA", "FCALL", "FUNCTION", "SSUBSCRIBE"}
"""Commands that the store probes by calling them, with a clear error or none."""


async def ways_of(admin: Redis) -> list[tuple[str, ...]]:
    """The rights of each way to call the scripts of the store on this server."""
    return [FUNCTIONS, SCRIPTS] if await has_functions(admin) else [SCRIPTS]


def commands_of_python() -> set[str]:
    """The upper-case words that begin a call or a tuple in the store's modules."""
    found: set[str] = set()
    for path in [*SOURCES.glob("*.py"), *SOURCES.glob("live/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.args if isinstance(node, ast.Call) else getattr(node, "elts", None)
            first = parts[0] if parts else None
            if isinstance(first, ast.Constant) and re.fullmatch("[A-Z]{3,}", str(first.value)):
                found.add(str(first.value))
    return found


@pytest.mark.fault("F45")
async def test_a_missing_permission_is_found_before_any_write(
    spare: ServerHandle, make_store: StoreMaker, log: pytest.LogCaptureFixture
) -> None:
    """For each command that is denied, the error names it and no key exists."""
    async with spare.client() as admin:
        for command in PROBED:
            await limited(admin, "+@all", f"-{command.lower()}")
            store = make_store(spare.url(f"limited:{SECRET}"))
            text = await refusal(store.create("run", "work"), StoreConfigurationError)
            assert re.search(rf"\b{command.lower()}\b", text)
            assert await admin.keys("*") == []
    # A connection that a busy machine let wait too long is another matter.
    again = [line for line in log.text.splitlines() if TRIED_AGAIN in line]
    assert not any("perm" in line.lower() for line in again), again


async def test_forbidden_keys_are_found_before_any_write(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """The error names the key pattern to grant."""
    async with spare.client() as admin:
        await limited(admin, "resetkeys", "~other:*", "+@all")
        store = make_store(spare.url(f"limited:{SECRET}"))
        text = await refusal(store.create("run", "work"), StoreConfigurationError)
        assert f"~{store._keys.prefix}:*" in text
        assert await admin.keys("*") == []


async def test_a_user_who_may_load_nothing_fails_at_once(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """Without SCRIPT LOAD and FUNCTION LOAD the first call raises StoreConfigurationError."""
    async with spare.client() as admin:
        denied = ["-script", "-function"] if await has_functions(admin) else ["-script"]
        await limited(admin, "+@all", *denied)
        store = make_store(spare.url(f"limited:{SECRET}"))
        text = await refusal(store.create("run", "work"), StoreConfigurationError)
        assert "permit" in text
        assert await admin.keys("*") == []


async def test_a_user_who_may_call_nothing_learns_both_ways(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """Without FCALL and EVALSHA the error names the rights of functions and those of scripts."""
    async with spare.client() as admin:
        denied = ["-evalsha", "-fcall"] if await has_functions(admin) else ["-evalsha"]
        await limited(admin, "+@all", *denied)
        store = make_store(spare.url(f"limited:{SECRET}"))
        text = await refusal(store.create("run", "work"), StoreConfigurationError)
        assert " ".join(SCRIPTS) in text
        assert " ".join(FUNCTIONS) in text
        assert await admin.keys("*") == []


@pytest.mark.parametrize("denied", ["-fcall", "-function"])
async def test_a_user_without_functions_uses_scripts(
    denied: str, spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A server may have functions that this user may not load or call."""
    async with spare.client() as admin:
        # Without functions a server does not know these rights, and nobody has them.
        rights = ["+@all", denied] if await has_functions(admin) else ["+@all"]
        await limited(admin, *rights)
        store = make_store(spare.url(f"limited:{SECRET}"))
        await store.create("run", "work")
        assert not store._server.nodes.all[0].loader.uses_functions
        assert await store.append("run", note("run", "a")) == 2
        shas = [script.sha for script in load_scripts().values()]
        assert all(await admin.script_exists(*shas))


async def test_a_user_may_call_functions_that_others_loaded(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """With the library on the server, FCALL is the only right that functions need."""
    async with spare.client() as admin:
        if await has_functions(admin):
            rights, way = ["+fcall"], True
            await admin.function_load(load_library().text)
        else:
            rights, way = [*SCRIPTS], False
        await limited(admin, "-@all", *(f"+{name.lower()}" for name in PROBED), *rights)
        store = make_store(spare.url(f"limited:{SECRET}"))
        await store.create("run", "work")
        assert store._server.nodes.all[0].loader.uses_functions is way
        assert await store.append("run", note("run", "a")) == 2


async def test_the_checked_permissions_suffice_for_a_run(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A user with exactly the checked commands can do everything with a run."""
    async with spare.client() as admin:
        for number, way in enumerate(await ways_of(admin)):
            granted = [f"+{command.lower()}" for command in PROBED]
            await limited(admin, "-@all", *granted, *way)
            store = make_store(spare.url(f"limited:{SECRET}"))
            run = f"run-{number}"
            await store.submit(run, "work", input=1)
            assert store._server.nodes.all[0].loader.uses_functions is (way == FUNCTIONS)
            await store.set_state(run, RunState.RUNNING)
            await store.append(run, note(run, "a"))
            result = AgentResult(output=1, agent_name="work", task_id="t")
            assert await store.finish(run, RunState.COMPLETED, result=result) is True
            assert await names_in_stream(store, run) == ["a"]
            assert (await store.audit(run)).problems == ()
            assert await store.delete(run) is True
            assert await store.sweep() == 0


async def test_a_user_who_may_not_copy_has_larger_journals(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """COPY only saves memory: without it runs are written all the same, and nothing is denied."""
    async with spare.client() as admin:
        await limited(admin, "+@all", "-copy")
        store = make_store(spare.url(f"limited:{SECRET}"))
        await store.create("run", "work")
        await store.append("run", note("run", "a"))
        assert await names_in_journal(store, "run") == ["a"]
        assert (await store.audit("run")).problems == ()
        if int((await admin.info("server"))["redis_version"].split(".")[0]) >= 7:
            assert await admin.acl_log() == []


async def test_what_only_a_worker_needs_is_asked_of_workers_alone(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A store works without a worker's commands, and the queue names the missing one."""
    async with spare.client() as admin:
        for command in WORKER_PROBED:
            await limited(admin, "+@all", f"-{command.lower()}")
            store = make_store(spare.url(f"limited:{SECRET}"))
            await store.submit(f"for-{command}", "work")
            queue = store.queue(lease_seconds=1)
            text = await refusal(queue.prepare(["work"]), StoreConfigurationError)
            assert f"+{command.lower()}" in text


async def test_the_checked_permissions_suffice_for_a_worker(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """A user with only these permissions can follow runs, list them and execute them."""
    async with spare.client() as admin:
        for number, way in enumerate(await ways_of(admin)):
            granted = [f"+{command.lower()}" for command in PROBED + WORKER_PROBED]
            await limited(admin, "-@all", *granted, *way)
            store = make_store(spare.url(f"limited:{SECRET}"))
            runs = [f"one-{number}", f"two-{number}"]
            for name in runs:
                await store.submit(name, "work")
            assert store._server.nodes.all[0].loader.uses_functions is (way == FUNCTIONS)
            readers = [asyncio.create_task(names_in_stream(store, name)) for name in runs]
            queue = store.queue(lease_seconds=15)
            await queue.prepare(["work"])
            await queue.wait(["work"], 0.01)
            for name in runs:
                await store.append(name, note(name, "a"))
                await store.finish(name, RunState.COMPLETED)
            assert await asyncio.gather(*readers) == [["a"], ["a"]]
            assert {run.run_id for run in (await store.list_runs()).runs} >= set(runs)


async def test_a_store_that_waits_for_replicas_needs_the_right_to(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """Without WAIT the first call names it; a store that does not wait works."""
    async with spare.client() as admin:
        await limited(admin, "+@all", "-wait")
        store = make_store(spare.url(f"limited:{SECRET}"), durability="replicated")
        text = await refusal(store.create("run", "work"), StoreConfigurationError)
        assert "+wait" in text
        assert await admin.keys("*") == []
        await make_store(spare.url(f"limited:{SECRET}")).create("run", "work")


async def test_every_command_of_the_python_code_is_checked(
    admin: Redis,
) -> None:
    """The check at the start lists each command that our modules send."""
    commands = {str(name).upper() for name in await admin.command()}
    called = commands_of_python() & commands
    assert {"XREADGROUP", "ZREVRANGEBYLEX", "MULTI"} <= called
    checked = {*PROBED, *WORKER_PROBED, *REPLICATED_PROBED}
    assert called - checked - OPTIONAL == set(MAY_BE_DENIED)


async def test_a_connection_with_a_denied_transaction_is_dropped(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """After a denied EXEC the connection is not used again."""
    async with spare.client() as admin:
        await limited(admin, "+@all", "-exec")
        store = make_store(spare.url(f"limited:{SECRET}"))
        await refusal(store.create("run", "work"), StoreConfigurationError)
        await limited(admin, "+@all")
        await store.create("run", "work")
        assert (await store.get_status("run")).state is RunState.PENDING


def test_every_command_of_every_script_is_checked_for_permission() -> None:
    """The check at the start lists each command that our scripts call."""
    called = {
        command
        for script in load_scripts().values()
        for command in re.findall(r"redis\.p?call\('([A-Z]+)'", script.text)
    }
    assert called - set(PROBED) == set(MAY_BE_DENIED)
    assert all("redis.call('" in script.text for script in load_scripts().values())


async def test_looking_for_permissions_changes_nothing(
    admin: Redis, make_store: StoreMaker
) -> None:
    """No probe of a right creates a key."""
    key = "faults:nothing:probe"
    for probe in PROBES + OWN_PROBES + WORKER_PROBES + REPLICATED_PROBES:
        await admin.execute_command("EVAL", _PCALL, 0, *probe.format(key=key).split())
    assert await admin.exists(key) == 0


_PCALL = "redis.pcall(unpack(ARGV)); return 1"


async def test_a_refused_store_works_once_its_settings_are_mended(
    spare: ServerHandle, make_store: StoreMaker
) -> None:
    """After the right is granted, the same store can be used."""
    async with spare.client() as admin:
        await limited(admin, "+@all", "-xadd")
        store = make_store(spare.url(f"limited:{SECRET}"))
        await refusal(store.create("run", "work"), StoreConfigurationError)
        await limited(admin, "+@all")
        await store.create("run", "work")
        assert (await store.audit("run")).problems == ()


async def test_a_claim_without_a_right_takes_no_run(
    spare: ServerHandle, make_store: StoreMaker, log: pytest.LogCaptureFixture
) -> None:
    """A right that is taken away later is an error of the user's rights, and the run waits on."""
    async with spare.client() as admin:
        await limited(admin, "+@all")
        store = make_store(spare.url(f"limited:{SECRET}"))
        await store.submit("run", "work")
        queue = store.queue(lease_seconds=60)
        await queue.prepare(["work"])
        for command in ("hset", "xadd", "zadd", "zrem", "get"):
            await limited(admin, "+@all", f"-{command}")
            text = await refusal(
                queue.claim("worker", [TargetRule("work")], 1), StoreConfigurationError
            )
            # Redis 6.2 does not say which command it was.
            assert command in text.lower() or "can't run this command" in text
        assert "changed by hand" not in log.text
        await limited(admin, "+@all")
        (claim,) = (await queue.claim("worker", [TargetRule("work")], 1)).claims
        assert (claim.run_id, claim.attempt) == ("run", 1)
        assert (await store.audit("run")).problems == ()
