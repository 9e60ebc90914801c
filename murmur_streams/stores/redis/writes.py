"""Writes that wait for the server: how many may, which calls carry them, the answers to each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from murmur_streams.core.model.errors import (
    InvalidInputError,
    NotReplicatedError,
    OutcomeUnknownError,
)
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.connection.failures import (
    ScriptError,
    TooFewReplicasError,
    UnconfirmedError,
)
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.script_rights import FREEING_COMMANDS
from murmur_streams.stores.redis.scripts import HOT_COMMANDS

Arguments = Sequence[str | int]
CREATING_COMMANDS = frozenset({"create", "submit", "requeue", "restore"})
"""Commands that the server executes only if the partition records these numbers of partitions."""
OLDER = "OLDER"
"""In place of the numbers: the partition has runs of an older number, and gets no other ones."""
CALL_MICROSECONDS = 1_000
"""About how much of the server's time a call takes: all other clients wait meanwhile."""
CALL_BYTES = 512 * 1024
EVENT_MICROSECONDS = 5
_MICROSECONDS = {"append": 5, "push_event": 5, "update_progress": 10, "seal": 15}
_LONGER_MICROSECONDS = 60
"""The server's time for a command, roughly: weights for the size of a call."""


@dataclass(slots=True)
class WaitingWrite:
    """The write of one caller."""

    command: str
    run_id: str
    arguments: Arguments
    weight: int
    """About how many microseconds of the server's time it takes."""
    size: int
    """Its bytes."""
    since: float
    """When it was made, by the loop's clock."""
    answer: asyncio.Future[Answer]

    def finish(self, answer: Answer | BaseException) -> None:
        """Give the answer or the error to the caller, unless it was cancelled."""
        if self.answer.done():
            return
        if isinstance(answer, BaseException):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


@dataclass(slots=True)
class CommandGroup:
    """One command of a call: one write, or appends of several callers to one run."""

    writes: list[WaitingWrite]

    @property
    def name(self) -> str:
        return self.writes[0].command

    def arguments(self) -> list[str | int]:
        """Its part of the call's ARGV."""
        first = self.writes[0]
        if first.command not in HOT_COMMANDS:
            return [first.command, first.run_id, len(first.arguments), *first.arguments]
        own = [*chain.from_iterable([write.arguments for write in self.writes])]
        return [first.command, first.run_id, len(own) + 1, len(self.writes), *own]


@dataclass(slots=True)
class NumberedCall:
    """One numbered call and the commands that it carries."""

    n: int
    groups: list[CommandGroup]
    now_ms: int
    """The store's clock when it was last sent, for the ids of its entries."""
    weight: int
    reply: asyncio.Future[Reply] | None = None
    """The reply to the last try."""
    mode: str = ""
    maybe_applied: bool = False
    """A try was sent and its outcome is unknown."""
    producer: str = ""
    """The producer of the last try."""
    parts: list[str | int] = field(default_factory=list[str | int])

    @property
    def writes(self) -> list[WaitingWrite]:
        return [write for group in self.groups for write in group.writes]

    @property
    def since(self) -> float:
        """When its oldest write was made, by the loop's clock."""
        return min(write.since for write in self.writes)

    @property
    def names(self) -> set[str]:
        """The commands that it carries."""
        return {group.name for group in self.groups}

    def keep_freeing(self) -> list[WaitingWrite]:
        """Drop the commands that a server without free memory refuses, and return their writes."""
        return self.remove(lambda write: write.command not in FREEING_COMMANDS)

    def remove(self, is_removed: Callable[[WaitingWrite], bool]) -> list[WaitingWrite]:
        """Drop commands, each by its first write, and return their writes."""
        removed = [group for group in self.groups if is_removed(group.writes[0])]
        self.groups = [group for group in self.groups if not is_removed(group.writes[0])]
        self.parts = []
        return [write for group in removed for write in group.writes]

    def arguments(
        self, producer: str, settled: int, known: int, durations: Durations, recorded: str
    ) -> list[str | int]:
        """Its ARGV.

        Args:
            producer: the id of the producer.
            settled: the producer waits for no answer to a call up to this number.
            known: the last number that the producer knows as executed.
            durations: the store's settings.
            recorded: the numbers of partitions that the partition must record, if a command
                creates a run.
        """
        if not self.parts:
            self.parts = [len(self.groups)]
            for group in self.groups:
                self.parts += group.arguments()
        confirmed = recorded if self.names & CREATING_COMMANDS else ""
        numbers = (producer, self.n, settled, known, self.mode, self.now_ms)
        return [*numbers, *durations.shared, confirmed, *self.parts]


class WaitingRuns:
    """The writes of a partition that wait, of each run in their order."""

    def __init__(self) -> None:
        self._runs: dict[str, deque[WaitingWrite]] = {}
        self.weight = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, write: WaitingWrite) -> None:
        waiting = self._runs.get(write.run_id)
        if waiting is None:
            waiting = self._runs[write.run_id] = deque()
        waiting.append(write)
        self.weight += write.weight

    def take(self) -> list[CommandGroup]:
        """Take what one call carries: a command of each run in turn, until the call is full."""
        groups, weight, size = list[CommandGroup](), 0, 0
        while self._runs:
            run_id = next(iter(self._runs))
            waiting = self._runs.pop(run_id)
            writes = list[WaitingWrite]()
            while waiting and _may_join(waiting[0], writes):
                write = waiting[0]
                weight, size = weight + write.weight, size + write.size
                if (groups or writes) and (weight > CALL_MICROSECONDS or size > CALL_BYTES):
                    break
                writes.append(waiting.popleft())
                self.weight -= write.weight
            if writes:
                groups.append(CommandGroup(writes))
            if waiting:
                self._runs[run_id] = waiting
            if weight > CALL_MICROSECONDS or size > CALL_BYTES:
                break
        return groups

    def remove(self, is_removed: Callable[[WaitingWrite], bool]) -> list[WaitingWrite]:
        """Take some of the writes; the others keep their order."""
        writes = self.take_all()
        for write in writes:
            if not is_removed(write):
                self.add(write)
        return [write for write in writes if is_removed(write)]

    def take_all(self) -> list[WaitingWrite]:
        """Take every write."""
        writes = [write for waiting in self._runs.values() for write in waiting]
        self._runs, self.weight = {}, 0
        return writes


def _may_join(write: WaitingWrite, writes: list[WaitingWrite]) -> bool:
    """Whether a write can be part of a command that has these writes already."""
    if not writes:
        return True
    return write.command in HOT_COMMANDS and write.command == writes[0].command


def weight_of(command: str, events: int) -> int:
    """About how many microseconds of the server's time a command takes."""
    return _MICROSECONDS.get(command, _LONGER_MICROSECONDS) + EVENT_MICROSECONDS * events


class NotExecutedError(Exception):
    """The script executed nothing.

    Args:
        answer: what it answered.
        last: with REWOUND the last call that the server has; 0 for none.
    """

    def __init__(self, answer: str, last: int = 0) -> None:
        super().__init__(answer)
        self.answer = answer
        self.last = last


def read_reply(call: NumberedCall, reply: Reply) -> Sequence[Answer | ScriptError]:
    """The answer to each write of a call, from the reply of its script.

    Raises:
        NotExecutedError, UnconfirmedError: the call must be sent again.
        TypeError, ValueError, AttributeError: the reply does not have the form of a script's.
    """
    tag, *texts = reply
    if tag == b"OK":
        return answers_to(call, texts)
    if tag == b"UNCONFIRMED":
        raise UnconfirmedError("the number of partitions is not confirmed")
    if tag in {b"GAP", b"REWOUND", b"UNKNOWN"}:
        raise NotExecutedError(tag.decode(), *map(int, texts))
    return [(tag.decode(),)] * len(call.writes)


def unknown_outcome(call: NumberedCall, where: str, reason: BaseException) -> OutcomeUnknownError:
    """The error of a call that was sent and has no confirmed answer.

    Args:
        call: its oldest write is named.
        where: the server's address, without a password.
        reason: of the last try.
    """
    write, said = call.writes[0], str(reason) or type(reason).__name__
    name = f"the {write.command} of run {write.run_id!r}"
    if isinstance(reason, TooFewReplicasError):
        return NotReplicatedError(
            f"{name} was applied on {where}, but {said}: a failover would take it away; read the "
            "run to know"
        )
    return OutcomeUnknownError(
        f"{name} was sent to {where}, but no answer came back ({said}); it was applied once or not "
        "at all: read the run to know"
    )


def answers_to(call: NumberedCall, texts: Sequence[bytes]) -> list[Answer | ScriptError]:
    """The answer to each write of a call, from the texts that its script answered."""
    if len(texts) != len(call.groups):
        raise ValueError(f"{len(texts)} answers came to {len(call.groups)} commands")
    answers: list[Answer | ScriptError] = []
    for group, text in zip(call.groups, texts, strict=True):
        count, answer = len(group.writes), text.decode(errors="replace")
        if answer.startswith("ERROR "):
            answers += [ScriptError(answer[6:])] * count
        elif count == 1 or "|" not in answer:
            answers += [tuple(answer.split(" "))] * count
        else:
            answers += [tuple(each.split(" ")) for each in answer.split("|")]
    if len(answers) != len(call.writes):
        raise ValueError(f"{len(answers)} answers came to {len(call.writes)} writes")
    return answers


def size_of(arguments: Arguments) -> int:
    """The bytes of a write; InvalidInputError for a text that cannot be encoded."""
    size = 0
    try:
        for part in arguments:
            if isinstance(part, int):
                size += 8
            else:
                size += len(part) if part.isascii() else len(part.encode())
    except UnicodeEncodeError as error:
        # In a call with other writes it would make them fail, too.
        raise InvalidInputError(
            f"{ascii(error.object)[:60]} is not a text: {error.reason}"
        ) from None
    return size


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

    def take(self, size: int) -> bool:
        """Take room for ``size`` bytes, if there is any and no other write waits for it."""
        if self._line or not self._fits(size):
            return False
        self._take(size)
        return True

    async def reserve(self, size: int) -> None:
        """Wait until a write of ``size`` bytes fits; ``release`` must be called after the write."""
        if self.take(size):
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

    def release(self, size: int, writes: int = 1) -> None:
        """Give back what ``take`` or ``reserve`` took for so many writes."""
        self._writes -= writes
        self._size -= size
        if self._line:
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
