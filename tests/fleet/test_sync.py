"""fleet.sync: the same calls from threads, forks and scripts that have no event loop."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import RunCancelledError, RunFailedError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.fleet.background import background, disconnect
from murmur_streams.fleet.worker import Worker
from murmur_streams.stores.redis.store import redis_only
from tests.fleet.stage import PATIENCE_SECONDS
from tests.servers import Space
from tests.warm import ROOT

# Python 3.12 warns of any fork beside threads, which is the point here.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")
START = """
import os, signal, sys, threading, time
from murmur_streams import Fleet, RunEvent, RunEventType
fleet = Fleet(sys.argv[1], key_prefix=sys.argv[2])
"""


@contextmanager
def working(fleet: Fleet) -> Generator[None]:
    """Execute the fleet's runs on an event loop in a thread."""
    loop_of: list[asyncio.AbstractEventLoop] = []
    ready = threading.Event()
    worker = Worker(fleet, lease_seconds=5)

    async def work() -> None:
        loop_of.append(asyncio.get_running_loop())
        ready.set()
        async with fleet:
            await worker.run()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    assert ready.wait(PATIENCE_SECONDS)
    try:
        yield
    finally:
        for _ in range(2):
            loop_of[0].call_soon_threadsafe(worker.stop)
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def fleet(space: Space) -> Iterator[Fleet]:
    fleet = Fleet(space.url, key_prefix=space.prefix)

    @fleet.agent
    async def double(number: int) -> int:
        return 2 * number

    @fleet.agent
    async def reports(names: list[str], run: RunContext) -> int:
        for name in names:
            await run.emit("word", name)
        return len(names)

    @fleet.agent
    async def waits() -> None:
        await asyncio.Event().wait()

    @fleet.agent
    def breaks() -> None:
        raise ValueError("broken")

    yield fleet
    fleet.sync.close()


def program(space: Space, text: str) -> tuple[str, ...]:
    return (sys.executable, *WARNINGS, "-c", START + text, space.url, space.prefix)


def ran(space: Space, text: str) -> list[str]:
    """The output of a separate program; its stderr must be empty."""
    done = subprocess.run(
        program(space, text), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_run_is_submitted_awaited_and_read(fleet: Fleet) -> None:
    """Each call of a handle has its blocking form."""
    with working(fleet):
        handle = fleet.sync.submit("double", 21, metadata={"by": "a view"})
        assert handle.output(timeout=PATIENCE_SECONDS) == 42
        assert handle.status().state is RunState.COMPLETED
        assert handle.snapshot().metadata == {"by": "a view"}
        assert handle.result().output == 42
        again = fleet.sync.handle(handle.run_id, "double")
        assert again.output() == 42
        assert repr(again) == f"SyncRunHandle({handle.run_id!r})"


def test_the_errors_are_those_of_the_asynchronous_calls(fleet: Fleet) -> None:
    """Failures, missing runs and timeouts."""
    with working(fleet):
        with pytest.raises(RunFailedError, match="broken"):
            fleet.sync.submit("breaks").output(timeout=PATIENCE_SECONDS)
        with pytest.raises(RunNotFoundError):
            fleet.sync.handle("unknown").status()
        handle = fleet.sync.submit("waits")
        with pytest.raises(TimeoutError):
            handle.output(timeout=0.01)
        assert not handle.status().state.is_terminal


def test_a_stream_is_a_plain_generator_that_resumes(fleet: Fleet) -> None:
    """It can continue after an event, and be closed."""
    with working(fleet):
        handle = fleet.sync.submit("reports", ["a", "b", "c"])
        events = list(handle.stream())
    assert [event.data for event in events if event.name == "word"] == ["a", "b", "c"]
    resumed = handle.stream(after=events[0].id)
    assert next(resumed).seq == events[1].seq
    resumed.close()


def test_a_stream_that_is_left_follows_no_more(fleet: Fleet) -> None:
    """Closing the generator ends the subscription."""
    handle = fleet.sync.submit("waits")
    event = RunEvent(type=RunEventType.LOG, run_id=handle.run_id, data="a")

    async def append() -> None:
        await (await fleet.store()).append(handle.run_id, event)

    async def followers() -> int:
        return redis_only(await fleet.store())._tails.followers

    fleet.sync.run(append)
    events = handle.stream()
    assert next(events).data == "a"
    assert fleet.sync.run(followers) == 1
    events.close()
    until(lambda: fleet.sync.run(followers) == 0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_is_cancelled_and_listed(fleet: Fleet) -> None:
    """The blocking calls return the reason, and pages of runs."""
    with working(fleet):
        waiting = fleet.sync.submit("waits", delay=3600)
        printed = waiting.cancel(reason="enough", wait=True)
        assert (printed.state, printed.how) == (RunState.CANCELLED, "pending")
        with pytest.raises(RunCancelledError, match="enough"):
            waiting.output()
        done = fleet.sync.submit("double", 1)
        done.output(timeout=PATIENCE_SECONDS)
    first = fleet.sync.list(limit=1)
    assert [run.run_id for run in first.runs] == [done.run_id]
    rest = fleet.sync.list(cursor=first.cursor)
    assert [run.run_id for run in rest.runs] == [waiting.run_id]
    cancelled = fleet.sync.list(state=RunState.CANCELLED, target="waits")
    assert [run.run_id for run in cancelled.runs] == [waiting.run_id]


def test_agents_are_paused_and_workers_listed(fleet: Fleet) -> None:
    """The calls of operators work without a loop."""
    fleet.sync.pause("double")
    assert fleet.sync.paused() == {"double"}
    fleet.sync.resume("double")
    assert fleet.sync.paused() == set()
    assert list(fleet.sync.workers()) == []


def test_many_threads_share_one_store(fleet: Fleet, space: Space) -> None:
    """Sixteen threads use one background loop."""
    with working(fleet), ThreadPoolExecutor(16) as threads:
        numbers = range(64)
        handles = list(threads.map(lambda number: fleet.sync.submit("double", number), numbers))
        outputs = list(threads.map(lambda handle: handle.output(PATIENCE_SECONDS), handles))
    assert outputs == [2 * number for number in numbers]
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("murmur-streams sync") == 1


async def test_it_blocks_a_running_loops_thread_and_is_done(fleet: Fleet) -> None:
    """A call from a coroutine blocks, and does not deadlock."""
    handle = fleet.sync.submit("double", 1)
    assert (await fleet.handle(handle.run_id).status()).state is RunState.PENDING
    await fleet.close()


def test_its_own_thread_is_refused_instead_of_waiting_for_itself(fleet: Fleet) -> None:
    """A blocking call inside fleet.sync.run raises RuntimeError."""

    async def inside() -> None:
        fleet.sync.list()

    with pytest.raises(RuntimeError, match="its own event loop"):
        fleet.sync.run(inside)


def test_after_a_disconnection_the_next_call_connects_anew(fleet: Fleet) -> None:
    """The closed store is replaced."""
    handle = fleet.sync.submit("double", 1)
    before = redis_only(fleet.sync.run(fleet.store))
    disconnect()
    assert before._server._closed
    assert handle.status().state is RunState.PENDING
    assert background() is background()


def test_a_script_that_ends_mid_call_prints_nothing(space: Space) -> None:
    """A script that ends while calls and streams are under way prints no warning and no error."""
    printed = ran(
        space,
        """
handle = fleet.sync.submit("any", 1)
events = handle.stream()
threading.Thread(target=lambda: next(events), daemon=True).start()
threading.Thread(target=handle.output, daemon=True).start()
store = fleet.sync.run(fleet.store)
while store._tails.followers + store._ends.waits < 2:
    time.sleep(0.01)
async def append():
    event = RunEvent(type=RunEventType.LOG, run_id=handle.run_id, data="a")
    await (await fleet.store()).append(handle.run_id, event)
fleet.sync.run(append)
left = handle.stream()
print(next(left).data, handle.status().state)
""",
    )
    assert printed == ["a pending"]


def test_a_forked_child_has_its_own_background_loop(space: Space) -> None:
    """A forked child has a background loop of its own, and does not disturb its parent's."""
    printed = ran(
        space,
        """
handle = fleet.sync.submit("any", 1)
events = handle.stream()
waiting = threading.Thread(target=lambda: next(events), daemon=True)
waiting.start()
while fleet.sync.run(fleet.store)._tails.followers < 1:
    time.sleep(0.01)
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        fleet.sync.submit("any", 2)
        print("child", len(fleet.sync.list().runs), flush=True)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
for number in range(20):
    fleet.sync.submit("any", number)
handle.cancel()
waiting.join(30)
print("parent", len(fleet.sync.list().runs), waiting.is_alive(), flush=True)
""",
    )
    assert printed == ["child 2", "child 3", "child 4", "parent 24 False"]


def test_ctrl_c_interrupts_a_call_that_waits(space: Space, tmp_path: Path) -> None:
    """KeyboardInterrupt arrives in the main thread, and calls go on."""
    text = """
handle = fleet.sync.submit("any", 1)

main = threading.main_thread().ident

def announce():
    while fleet.sync.run(fleet.store)._ends.waits < 1:
        time.sleep(0.01)
    while sys._current_frames()[main].f_code.co_name != "wait":
        time.sleep(0.01)
    print("ready", flush=True)

threading.Thread(target=announce).start()
try:
    handle.output()
except KeyboardInterrupt:
    print("interrupted", handle.status().state, flush=True)
"""
    with subprocess.Popen(
        program(space, text),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("interrupted pending\n", "", 0)


def test_a_script_whose_server_is_gone_ends_all_the_same(tmp_path: Path) -> None:
    """The interpreter exits after the error."""
    text = """
import sys
from murmur_streams import Fleet
from murmur_streams.core.model.errors import StoreUnavailableError
try:
    Fleet("unix://" + sys.argv[1], retry_seconds=0.1).sync.submit("any")
except StoreUnavailableError:
    print("unavailable")
"""
    done = subprocess.run(
        (sys.executable, *WARNINGS, "-c", text, str(tmp_path / "none.sock")),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "unavailable\n", "")


def test_nothing_starts_before_the_first_call(space: Space) -> None:
    """Making a handle starts no thread."""
    printed = ran(
        space, "fleet.sync.handle('run')\nprint(threading.active_count(), os.getpid() > 0)"
    )
    assert printed == ["1 True"]
