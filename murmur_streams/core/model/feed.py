"""The feed: the entries of all runs in one sequence, and the cursor of its readers."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import CursorGapError, CursorResetError, InvalidCursorError

_CURSOR = re.compile(r"feed((?:\.[0-9]{1,15}-[0-9]{1,15}){1,256})")

Position = tuple[int, int]
"""``ms`` and ``n`` of an entry in one partition's feed; n is dense: a hole is a break."""
START: Position = (0, 0)


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One entry of the feed."""

    cursor: str
    """Resume after this entry with this text."""
    run_id: str
    target: str
    entry: JournalEntry
    """The entry as the run's journal has it. When the run is gone, a large entry has only its type
    left, and the epoch may be ``00000000``. An entry that was damaged by hand has the type "" and
    may have no run id."""


@dataclass(frozen=True, slots=True)
class FeedCursor:
    """A position in the feed of each partition: the reader has seen everything up to there."""

    positions: tuple[Position, ...]

    def __str__(self) -> str:
        return "feed." + ".".join(f"{ms}-{n}" for ms, n in self.positions)

    @classmethod
    def parse(cls, text: object, partitions: int) -> Self:
        """Read a cursor's text.

        Raises:
            InvalidCursorError: the text is not a cursor of a feed.
            CursorResetError: the cursor is of a store with more partitions.
        """
        match = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidCursorError(
                f"{ascii(text)[:60]} is not a cursor of the feed; pass the .cursor of a FeedEntry, "
                "or None for the oldest entry"
            )
        positions = tuple(read_position(part) for part in match[1][1:].split("."))
        if len(positions) > partitions:
            raise CursorResetError(
                f"the cursor is of a store with {len(positions)} partitions, this one has "
                f"{partitions}; read the feed again from the oldest entry",
                None,
            )
        return cls(positions).widened(partitions)

    def widened(self, partitions: int) -> Self:
        """The cursor with a position in each of more partitions: a raise has added them since."""
        missing = partitions - len(self.positions)
        return replace(self, positions=self.positions + (START,) * missing)

    def moved(self, partition: int, position: Position) -> FeedCursor:
        """The cursor with another position in one partition."""
        return FeedCursor((*self.positions[:partition], position, *self.positions[partition + 1 :]))

    def after(self, partition: int, position: Position) -> FeedCursor:
        """The cursor after the partition's next entry, which has this position.

        Raises:
            CursorGapError: entries between were trimmed away.
            CursorResetError: the feed began anew, or a failover rewound it.
        """
        (_, seen), (ms, n) = self.positions[partition], position
        if n == seen + 1:
            return self.moved(partition, position)
        resume = str(self.moved(partition, (ms, n - 1)))
        if n > seen:
            raise _gap(seen, n, resume)
        raise CursorResetError(
            f"entry {n} of the feed came after entry {seen}: the feed was deleted, or the "
            "server lost writes",
            resume,
        )

    def check(
        self, partition: int, *, found: bool, oldest: Position | None, newest: Position | None
    ) -> None:
        """Raise when the partition's feed no longer continues after this cursor.

        Args:
            partition: the index of the partition.
            found: whether its feed has an entry with exactly this id.
            oldest: the position of its oldest entry; None in an empty feed.
            newest: the position of its last entry.

        Raises:
            CursorGapError: entries after the cursor were trimmed away.
            CursorResetError: the feed was replaced, or ends before the cursor.
        """
        ms, n = position = self.positions[partition]
        if found or (position == START and oldest is None):
            return
        if oldest is None or newest is None:
            raise CursorResetError(
                f"the feed is empty, but the cursor stands after its entry {n}: it was "
                "deleted, or the server lost its data",
                str(self.moved(partition, START)),
            )
        # The entry just before the oldest one may be trimmed: nothing after it is missing.
        if n == oldest[1] - 1 and ms <= oldest[0]:
            return
        resume = str(self.moved(partition, (oldest[0], oldest[1] - 1)))
        if n < oldest[1] and position <= oldest:
            raise _gap(n, oldest[1], resume)
        raise CursorResetError(
            f"entry {n} of the feed is not the one that the cursor saw: the feed was "
            "deleted, or the server lost writes",
            resume,
        )


@dataclass(frozen=True, slots=True)
class FeedFilter:
    """The targets and the types of entries that a reader of the feed wants; None for all."""

    targets: frozenset[str] | None
    types: frozenset[str] | None

    @classmethod
    def of(cls, targets: Collection[str] | None, types: Collection[str] | None) -> Self:
        """Build a filter from a caller's names; a single string counts as one name."""
        return cls(_names(targets), _names(types))

    def wants(self, target: str, entry_type: str) -> bool:
        """Whether an entry passes the filter."""
        return (self.targets is None or target in self.targets) and (
            self.types is None or entry_type in self.types
        )


def read_position(entry_id: str) -> Position:
    """Read an entry's id, ``<ms>-<n>``."""
    ms, _, n = entry_id.partition("-")
    return int(ms), int(n)


def _gap(seen: int, n: int, resume: str) -> CursorGapError:
    return CursorGapError(f"entries {seen + 1} to {n - 1} of the feed were trimmed away", resume)


def _names(given: Collection[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    return frozenset([given] if isinstance(given, str) else map(str, given))
