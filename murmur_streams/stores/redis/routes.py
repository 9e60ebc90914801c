"""Which writer each write goes to, also while the number of partitions is raised."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import islice

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.stores.own_tasks import end_tasks
from murmur_streams.stores.redis.partition_writer import PartitionWriter
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.writes import WaitingWrite

_LOOKED_FOR_AT_ONCE = 500
_LINES = 16
"""A run that is looked for on a node that is gone delays no runs but those of its line."""
MakeWriter = Callable[[int, bool], PartitionWriter]


class _Line:
    """Writes to runs that must be looked for first, in their order."""

    def __init__(self) -> None:
        self.writes: deque[WaitingWrite] = deque()
        self.runs: Counter[str] = Counter()
        self.task: asyncio.Task[None] | None = None

    def add(self, write: WaitingWrite) -> None:
        self.writes.append(write)
        self.runs[write.run_id] += 1

    def add_first(self, write: WaitingWrite) -> None:
        self.writes.appendleft(write)
        self.runs[write.run_id] += 1

    def take(self) -> WaitingWrite:
        write = self.writes.popleft()
        self.runs[write.run_id] -= 1
        if not self.runs[write.run_id]:
            del self.runs[write.run_id]
        return write


class Routes:
    """The writers of one store.

    A raise gives runs other partitions, and so other writers. The writes of a run must not overtake
    each other on the way: so those of the new writers wait until the earlier writers have ended.

    Args:
        server: where the runs are.
        make: makes the writer of a partition, for runs of older numbers or for all others.
    """

    def __init__(self, server: Server, make: MakeWriter) -> None:
        self._server = server
        self._keys = server.keys
        self._make = make
        self._writers: dict[int, PartitionWriter] = {}
        """By partition; those for runs of older numbers by its complement."""
        self._earlier: list[PartitionWriter] = []
        """Those that end: the number of partitions has changed."""
        self._lines = [_Line() for _ in range(_LINES)]
        self._is_plain = True
        """Whether the only number of partitions says where each run is, and no write waits here."""
        server.key_space.when_changed.append(self._change)

    @property
    def writers(self) -> list[PartitionWriter]:
        """All of them."""
        return [*self._writers.values(), *self._earlier]

    @property
    def is_idle(self) -> bool:
        """Nothing waits, and nothing is in flight."""
        is_waiting = any(line.writes for line in self._lines)
        return not is_waiting and all(writer.is_idle for writer in self.writers)

    def of(self, run_id: str) -> PartitionWriter | None:
        """The writer of a run; None if the run must be looked for first."""
        if self._is_plain:
            partition = self._keys.partition(run_id)
            return self._writers.get(partition) or self.at(partition)
        if self._earlier or not self._keys.is_located(run_id):
            return None
        if run_id in self._line(run_id).runs:
            return None
        return self._writer(run_id)

    def add(self, write: WaitingWrite) -> None:
        """Take a write to a run that must be looked for."""
        line = self._line(write.run_id)
        line.add(write)
        self._start(line)

    def take_back(self, writes: Sequence[WaitingWrite]) -> None:
        """Take writes that were not executed: their runs belong in other partitions."""
        for write in reversed(writes):
            line = self._line(write.run_id)
            line.add_first(write)
            self._start(line)
        self._note_plain()

    def move(self, writes: Sequence[WaitingWrite]) -> None:
        """Take writes that create runs, and found none in the partition of an older number."""
        counts = self._keys.counts
        for write in writes:
            self._keys.locate(write.run_id, counts.of_new_run(write.run_id))
        self.take_back(writes)

    async def close(self, error: MurmurError) -> None:
        """Refuse what waits."""
        await end_tasks([line.task for line in self._lines if line.task is not None])
        for line in self._lines:
            while line.writes:
                line.take().finish(error)

    def _line(self, run_id: str) -> _Line:
        return self._lines[zlib.crc32(run_id.encode()) % _LINES]

    def _change(self) -> None:
        """Let the writers end: runs may belong to others now."""
        writers, self._writers = self._writers, {}
        self._earlier += writers.values()
        for writer in writers.values():
            self.take_back(writer.retire())
        self._note_plain()

    def _note_plain(self) -> None:
        is_waiting = self._earlier or any(line.writes for line in self._lines)
        self._is_plain = self._keys.counts.is_single and not is_waiting

    def _start(self, line: _Line) -> None:
        if line.task is None or line.task.done():
            line.task = self._server.start(self._route(line), "find the partitions of writes")

    async def _route(self, line: _Line) -> None:
        try:
            await self._route_all(line)
        except Exception as bug:  # noqa: BLE001  # no caller may wait for ever
            while line.writes:
                line.take().finish(bug)

    async def _route_all(self, line: _Line) -> None:
        while line.writes:
            if self._earlier:
                await self._earlier[0].until_idle()
                self._earlier = [each for each in self._earlier if not each.is_idle]
                self._note_plain()
                continue
            first = [*islice(line.writes, _LOOKED_FOR_AT_ONCE)]
            try:
                await self._server.locator.locate(*dict.fromkeys(write.run_id for write in first))
            except MurmurError as error:
                for write in first:
                    if line.writes and line.writes[0] is write:
                        line.take().finish(error)
                continue
            await self._hand_on(line)
        self._note_plain()

    async def _hand_on(self, line: _Line) -> None:
        """Give writes to their writers, as long as their runs were found."""
        while line.writes and not self._earlier and self._keys.is_located(line.writes[0].run_id):
            write = line.writes[0]
            writer = self._writer(write.run_id)
            if not writer.budget.take(write.size):
                await writer.budget.reserve(write.size)
                if writer.is_retired or line.writes[0] is not write:
                    writer.budget.release(write.size)
                    continue
            line.take()
            writer.add(write)

    def _writer(self, run_id: str) -> PartitionWriter:
        counts, partition = self._keys.counts, self._keys.partition(run_id)
        is_older = not counts.is_single and partition != counts.of_new_run(run_id)
        return self.at(~partition if is_older else partition)

    def at(self, number: int) -> PartitionWriter:
        """The writer of a partition; with its complement, that for runs of older numbers."""
        found = self._writers.get(number)
        if found is None:
            found = self._writers[number] = self._make(max(number, ~number), number < 0)
        return found
