"""Writes that wait for the server, the calls that carry them, and the answers to each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.connection.failures import UNCONFIRMED, UnconfirmedError
from murmur_streams.stores.redis.server import text

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
    answer = tuple(text(part) for part in reply)
    if answer[0] == UNCONFIRMED:
        raise UnconfirmedError("the number of partitions is not confirmed")
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
        return sum(len(part.encode()) if isinstance(part, str) else 8 for part in own)
    except UnicodeEncodeError as error:
        # In a call with other writes it would make them fail, too.
        raise InvalidInputError(
            f"{ascii(error.object)[:60]} is not a text: {error.reason}"
        ) from None
