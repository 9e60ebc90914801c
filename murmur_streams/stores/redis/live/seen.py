"""What a reader has seen of a journal or feed that may have been rewound since."""

from __future__ import annotations

from typing import Any

from murmur_streams.core.model.entries import Cursor
from murmur_streams.stores.redis.live.views import Raw
from murmur_streams.stores.redis.replies import read_id

REWIND_MARGIN_MS = 10_000


def surely_before(ms: int) -> str:
    """The end of a range of entries that were written well before one of this time.

    After a rewind, entries of that time may be others than those that the reader has seen: the
    clocks of programs differ, and for a moment a failover leaves two primaries. Some entries come
    twice for a reader that resumes; none is missing.
    """
    # Servers refuse an end before 0-0.
    return f"({ms - REWIND_MARGIN_MS}-0" if ms > REWIND_MARGIN_MS else "0-0"


def just_before(oldest: list[Any], epoch: str) -> Cursor | None:
    """The position just before the oldest entry, where a reader may resume after a gap."""
    if not oldest:
        return None
    ms, seq = read_id(oldest[0][0])
    return Cursor(epoch, ms, seq - 1)


class LastSeen:
    """The last entry that a tail fetched: another one may have its id after a failover."""

    __slots__ = ("_hash", "_id")

    def __init__(self) -> None:
        self._id, self._hash = b"", 0

    def note(self, raw: Raw) -> None:
        """This is the last one now. Its fields are hashed, as an idle reader keeps no entry."""
        self._id, self._hash = raw[0], hash(tuple(raw[1]))

    def was_replaced_by(self, raw: Raw) -> bool:
        """Whether an entry has the same id and other fields."""
        return raw[0] == self._id and hash(tuple(raw[1])) != self._hash
