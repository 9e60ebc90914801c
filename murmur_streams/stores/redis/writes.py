"""Writes that wait for the server: how many may, which calls carry them, the answers to each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.replies import read_answer

Arguments = Sequence[str | int]
MERGED_SCRIPTS = frozenset({"append", "push_event"})
"""Scripts that take any number of writes in one call, and answer each of them."""
MERGED_WRITES = 200
MERGED_BYTES = 512 * 1024


@dataclass(slots=True)
class WaitingWrite:
    """The write of one caller."""

    script: str
    keys: list[str]
    now_ms: int
    shared: Arguments
    own: Arguments
    size: int
    answer: asyncio.Future[Answer]


@dataclass(slots=True)
class RunWriteQueue:
    """The writes to one run that wait, and whether a call is in flight."""

    run_id: str
    waiting: deque[WaitingWrite] = field(default_factory=deque[WaitingWrite])
    busy: bool = False


@dataclass(slots=True)
class NumberedCall:
    """One numbered call and the writes that it carries."""

    queue: RunWriteQueue
    writes: list[WaitingWrite]
    command: tuple[object, ...]


def answers_to(call: NumberedCall, reply: Reply) -> list[Answer]:
    """The answer to each write of a call; UnconfirmedError when it must be sent again."""
    answer = read_answer(reply)
    merged = call.writes[0].script in MERGED_SCRIPTS and answer[0] != "DROPPED"
    if not merged or len(answer) == 1:
        return [answer] * len(call.writes)
    answers: list[Answer] = list(zip(answer[::2], answer[1::2], strict=True))
    if len(answers) != len(call.writes):
        raise ValueError(f"{len(answers)} answers came to {len(call.writes)} writes")
    return answers


def take_writes(waiting: deque[WaitingWrite]) -> list[WaitingWrite]:
    """Take the first write, and those behind it that can go into the same call."""
    writes = [waiting.popleft()]
    script, size = writes[0].script, writes[0].size
    if script not in MERGED_SCRIPTS:
        return writes
    while waiting and waiting[0].script == script and len(writes) < MERGED_WRITES:
        size += waiting[0].size
        if size > MERGED_BYTES:
            break
        writes.append(waiting.popleft())
    return writes


def size_of(own: Arguments) -> int:
    """The bytes of a write; InvalidInputError for a text that cannot be encoded."""
    try:
        return sum([len(part.encode()) if isinstance(part, str) else 8 for part in own])
    except UnicodeEncodeError as error:
        # In a call with other writes it would make them fail, too.
        raise InvalidInputError(
            f"{ascii(error.object)[:60]} is not a text: {error.reason}"
        ) from None


class WriteBudget:
    """Limits how many writes, and how many bytes of them, wait to be sent.

    Callers beyond the limits wait, and are admitted in the order in which they came.

    Args:
        writes: the most writes at a time.
        size: the most bytes together; a single larger write is admitted when it is alone.
    """

    def __init__(self, writes: int, size: int) -> None:
        self._most = (writes, size)
        self._writes = self._size = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def reserve(self, size: int) -> None:
        """Wait until a write of ``size`` bytes fits; ``release`` must be called after the write."""
        if not self._line and self._fits(size):
            self._take(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (size, turn)
        self._line.append(waiter)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.remove(waiter)
                # It may have been the first in line, and the writes behind it may fit.
                self._admit_next()
            else:
                self.release(size)
            raise

    def release(self, size: int) -> None:
        """Give back what ``reserve`` took."""
        self._writes -= 1
        self._size -= size
        self._admit_next()

    def _fits(self, size: int) -> bool:
        writes, most = self._most
        return self._writes == 0 or (self._writes < writes and self._size + size <= most)

    def _take(self, size: int) -> None:
        self._writes += 1
        self._size += size

    def _admit_next(self) -> None:
        while self._line:
            size, turn = self._line[0]
            # A future that is done was cancelled; its waiter is about to leave the line.
            if turn.done() or not self._fits(size):
                return
            self._line.popleft()
            self._take(size)
            turn.set_result(None)
