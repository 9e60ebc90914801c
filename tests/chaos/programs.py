"""The programs of a chaos run: each has a store of its own, and they share their runs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection

from murmur_streams.core.model.errors import CursorError, MurmurError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import new_run_id
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Act
from murmur_streams.testing.history import History
from murmur_streams.testing.recorder import Recorder

TASKS = 4
MOST_EVENTS = 3
CALL_PAUSE = (0.0, 0.01)
"""Between two calls of a task, in seconds."""
HOUR_MS = 3_600_000


class SharedRuns:
    """The runs that all programs work on: one that ends is replaced by a new one."""

    def __init__(self, count: int) -> None:
        self.alive: list[str] = []
        self.created: list[str] = []
        self.left: dict[str, float] = {}
        """Since when no call of them is begun any more, by ``time.monotonic``."""
        self._count = count

    async def fill(self, recorder: Recorder) -> None:
        """Create runs until there are enough."""
        while len(self.alive) < self._count:
            run_id = new_run_id()
            self.created.append(run_id)
            try:
                await recorder.create(run_id, "work")
            except BaseException:
                self.left[run_id] = time.monotonic()
                raise
            self.alive.append(run_id)

    def end(self, run_id: str) -> None:
        """Leave a run alone from now on."""
        if run_id in self.alive:
            self.alive.remove(run_id)
            self.left[run_id] = time.monotonic()

    def forget(self, run_ids: Collection[str]) -> list[str]:
        """Forget some runs; returns those that were known."""
        known = [run_id for run_id in self.created if run_id in run_ids]
        self.created = [run_id for run_id in self.created if run_id not in run_ids]
        self.alive = [run_id for run_id in self.alive if run_id not in run_ids]
        for run_id in known:
            self.left.pop(run_id, None)
        return known


class Program:
    """Makes random calls until it is stopped.

    Args:
        number: of the program; its events carry it.
        open_store: opens its store. The argument is what its clock adds to the time, in ms.
        history: where its calls are recorded.
        runs: shared with the others.
        seed: of its choices.
        pause: between two calls of a task, the shortest and the longest, in seconds.
    """

    def __init__(
        self,
        number: int,
        open_store: Callable[[Callable[[], int]], RedisRunStore],
        history: History,
        runs: SharedRuns,
        seed: int,
        pause: tuple[float, float] = CALL_PAUSE,
    ) -> None:
        self.clock_error_ms = 0
        self._number = number
        self._open = lambda: open_store(lambda: self.clock_error_ms)
        self._recorder = Recorder(self._open(), history)
        self._runs = runs
        self._random = random.Random(seed)
        self._pause = pause
        self._events = 0
        self._versions: dict[str, int] = {}
        self._cursors: dict[str, str] = {}

    async def run(self, is_over: asyncio.Event) -> None:
        """Work until it is over."""
        await asyncio.gather(*(self._work(is_over) for _ in range(TASKS)))

    async def close(self) -> None:
        """Close its store."""
        await self._recorder.store.close()

    def forget(self, run_ids: Collection[str]) -> None:
        """Forget the versions and cursors of some runs."""
        for run_id in run_ids:
            self._versions.pop(run_id, None)
            self._cursors.pop(run_id, None)

    async def reopen(self) -> None:
        """End and begin again, as a program that is deployed anew."""
        old, self._recorder.store = self._recorder.store, self._open()
        await old.close()

    async def _work(self, is_over: asyncio.Event) -> None:
        steps = [
            *([self._append] * 14),
            *([self._append_expecting] * 4),
            *([self._push] * 2),
            *([self._read] * 2),
            *(self._cancelled, self._start, self._finish, self._delete),
        ]
        while not is_over.is_set():
            with contextlib.suppress(MurmurError):
                await self._runs.fill(self._recorder)
                await self._random.choice(steps)(self._random.choice(self._runs.alive))
            await asyncio.sleep(self._random.uniform(*self._pause))

    def _event(self, run_id: str) -> RunEvent:
        self._events += 1
        data = f"{self._number}.{self._events}"
        return RunEvent(type=RunEventType.LOG, run_id=run_id, data=data)

    async def _append(self, run_id: str) -> None:
        events = [self._event(run_id) for _ in range(self._random.randint(1, MOST_EVENTS))]
        self._versions[run_id] = await self._recorder.append(run_id, *events)

    async def _append_expecting(self, run_id: str) -> None:
        version = self._versions.get(run_id, 1)
        self._versions[run_id] = await self._recorder.append(
            run_id, self._event(run_id), expected_version=version
        )

    async def _push(self, run_id: str) -> None:
        await self._recorder.push_event(run_id, self._event(run_id))

    async def _start(self, run_id: str) -> None:
        await self._recorder.set_state(run_id, RunState.RUNNING)

    async def _finish(self, run_id: str) -> None:
        self._runs.end(run_id)
        await self._recorder.finish(run_id, RunState.COMPLETED, self._event(run_id))

    async def _delete(self, run_id: str) -> None:
        self._runs.end(run_id)
        await self._recorder.delete(run_id, force=True)

    async def _cancelled(self, run_id: str) -> None:
        """A call whose caller does not wait for the answer."""
        call = asyncio.create_task(self._recorder.append(run_id, self._event(run_id)))
        await asyncio.sleep(self._random.uniform(0, 0.003))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def _read(self, run_id: str) -> None:
        """Read for a moment, from where an earlier reader of the run stopped."""
        readers = self._recorder.history.readers
        after = self._cursors.get(run_id)
        reading = asyncio.create_task(self._recorder.read(run_id, after))
        await asyncio.sleep(self._random.uniform(0, 0.3))
        same = [each for each in readers if each.run_id == run_id and each.after == after]
        reading.cancel()
        (outcome,) = await asyncio.gather(reading, return_exceptions=True)
        if isinstance(outcome, CursorError):
            self._cursors.pop(run_id, None)
        elif same and same[-1].events:
            self._cursors[run_id] = str(same[-1].events[-1].id)


def program_faults(programs: list[Program], choice: random.Random) -> dict[str, Act]:
    """A program's clock jumps, it restarts, and all of them stand still for a moment."""

    async def clock_jumps() -> None:
        program = choice.choice(programs)
        program.clock_error_ms = choice.choice([-HOUR_MS, HOUR_MS])
        await asyncio.sleep(choice.uniform(0.1, 0.5))
        program.clock_error_ms = 0

    async def restarts() -> None:
        await choice.choice(programs).reopen()

    async def blocked() -> None:
        # Every program of this process stands still; the servers and the workers do not.
        time.sleep(choice.uniform(0.1, 0.6))  # noqa: ASYNC251

    return {
        "a program's clock jumps": clock_jumps,
        "a program restarts": restarts,
        "the programs' event loop is blocked": blocked,
    }
