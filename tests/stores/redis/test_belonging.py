"""A store belongs to one process and one event loop; its tasks belong to no caller."""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import select
import subprocess
import sys
from contextlib import aclosing
from typing import Any

import pytest

from murmur_streams.core.model.errors import InvalidInputError, StoreClosedError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space, forget_scripts
from tests.stores.faults.waiting import wait_until
from tests.stores.redis.test_clients import lives_a_run

CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("caller")
OWN_TASKS = {
    "check the server",
    "lane",
    "live check",
    "live source",
    "prepare a server again",
    "repeat writes",
    "shared read",
    "feed",
    "extend owned runs",
}
FORK = """
import asyncio, os, sys
from murmur_streams import RedisRunStore
from murmur_streams.core.model.errors import StoreClosedError

async def main(url, prefix):
    async with RedisRunStore(url, key_prefix=prefix) as store:
        await store.create("before", "t")
        pid = os.fork()
        if pid == 0:
            for call in (store.create("child", "t"), store.get_status("before")):
                try:
                    await call
                except StoreClosedError as error:
                    print(error)
            await store.close()
            sys.stdout.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        await store.create("after", "t")
        return [run.run_id for run in (await store.list_runs()).runs]

print(asyncio.run(main(*sys.argv[1:])))
"""


def test_a_store_rejects_calls_from_another_event_loop(
    space: Space,
) -> None:
    """A call from another event loop fails at once; in its own loop the store still works."""
    store = space.store()
    home, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        home.run_until_complete(store.create("run", "t"))
        for call in (store.create("other", "t"), store.get_status("run")):
            with pytest.raises(StoreClosedError, match="another event loop"):
                other.run_until_complete(call)
        other.run_until_complete(store.close())
        assert home.run_until_complete(store.get_status("run")).state is RunState.PENDING
        home.run_until_complete(store.close())
    finally:
        for loop in (home, other):
            loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_store_rejects_calls_after_a_fork(
    space: Space,
) -> None:
    """A call in a forked child fails at once; in the parent the store still works."""
    warnings = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")
    done = subprocess.run(
        (sys.executable, *warnings, "-c", FORK, space.url, space.prefix),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    refused = "the store belongs to another process (before a fork); open one here"
    assert done.stdout.splitlines() == [refused, refused, "['after', 'before']"]
    assert (done.returncode, done.stderr) == (0, "")


async def test_no_task_of_the_store_inherits_what_its_caller_set(space: Space) -> None:
    """Tasks of the store see none of the context variables of the call that started them."""
    tasks: dict[asyncio.Task[Any], str | None] = {}

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        tasks[task] = CALLER.get(None)
        return task

    asyncio.get_running_loop().set_task_factory(factory)
    CALLER.set("an agent")
    async with space.store(owner_lease_seconds=3600) as store:
        await store.create("run", "t")
        forget_scripts(space.admin)
        event = RunEvent(type=RunEventType.LOG, run_id="run", data="a")
        await store.append("run", event)
        stream = store.stream("run")
        assert (await anext(stream)).data == "a"
        async with aclosing(store.feed()) as feed:
            await anext(feed)
        waiting = asyncio.ensure_future(anext(stream))
        await wait_until(
            lambda: any(task.get_name() == "live source" for task in tasks), "it is followed"
        )
        await store.append("run", event)
        await waiting
        await stream.aclose()
    asyncio.get_running_loop().set_task_factory(None)
    seen = {(task.get_name(), context) for task, context in tasks.items()}
    assert {name for name, _ in seen} >= OWN_TASKS
    assert {context for name, context in seen if name in OWN_TASKS} == {None}


async def test_a_system_without_poll_is_served_too(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no poll(), the store works with select()."""
    monkeypatch.delattr(select, "poll")
    async with space.store() as store:
        await lives_a_run(store)


@pytest.mark.parametrize("seconds", [-1, 301, math.inf, math.nan])
def test_retries_may_not_outlive_what_makes_them_safe(seconds: float) -> None:
    """retry_seconds beyond 300 would outlive the producers' records, so it is refused."""
    with pytest.raises(InvalidInputError, match=r"retry_seconds is .* from 0 to 300"):
        RedisRunStore("redis://localhost", retry_seconds=seconds)
