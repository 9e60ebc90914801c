"""The feed: every entry of every run, and the cursor that proves where its reader is."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import CursorGapError, CursorResetError, InvalidCursorError

_CURSOR = re.compile(r"feed((?:\.[0-9]{1,15}-[0-9]{1,15}){1,256})")

Place = tuple[int, int]
"""``ms`` and ``n`` of an entry of one partition's feed; n is dense, so it shows a break."""
START: Place = (0, 0)


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One entry of the feed."""

    cursor: str
    """Go on after this entry with this text."""
    run_id: str
    target: str
    entry: JournalEntry
    """As the run's journal has it. A large entry whose run is gone has only its type left, and
    the epoch of a run that is gone may be ``00000000``. One that was damaged by hand has the type
    "", and perhaps no run id."""


@dataclass(frozen=True, slots=True)
class FeedCursor:
    """A place in the feed of each partition."""

    places: tuple[Place, ...]

    def __str__(self) -> str:
        return "feed." + ".".join(f"{ms}-{n}" for ms, n in self.places)

    @classmethod
    def parse(cls, text: object, partitions: int) -> Self:
        """Read a cursor's text.

        Raises:
            InvalidCursorError: it is none of the feed's.
            CursorResetError: it was given when there were more or fewer partitions.
        """
        match = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidCursorError(
                f"{ascii(text)[:60]} is no cursor of the feed; pass the .cursor of a FeedEntry, "
                "or None for the oldest kept entry"
            )
        places = tuple(read_place(part) for part in match[1][1:].split("."))
        if len(places) != partitions:
            raise CursorResetError(
                f"the cursor is of a store with {len(places)} partitions, this one has "
                f"{partitions}; read the feed again from the oldest kept entry",
                None,
            )
        return cls(places)

    def moved(self, partition: int, place: Place) -> FeedCursor:
        """The cursor with another place in one partition."""
        return FeedCursor((*self.places[:partition], place, *self.places[partition + 1 :]))

    def after(self, partition: int, place: Place) -> FeedCursor:
        """The cursor after the partition's next entry.

        Raises:
            CursorGapError: entries between were trimmed away.
            CursorResetError: the feed began anew, or a failover rewound it.
        """
        n = self.places[partition][1]
        if place[1] == n + 1:
            return self.moved(partition, place)
        resume = str(self.moved(partition, (place[0], place[1] - 1)))
        if place[1] > n:
            raise CursorGapError(
                f"entries {n + 1} to {place[1] - 1} of the feed were trimmed away", resume
            )
        raise CursorResetError(
            f"entry {place[1]} of the feed came after entry {n}: the feed was deleted, or the "
            "server lost writes",
            resume,
        )

    def check(
        self, partition: int, *, found: bool, oldest: Place | None, newest: Place | None
    ) -> None:
        """Refuse to go on when the partition's feed does not hold what this stands after.

        Args:
            partition: which feed.
            found: whether it has an entry with exactly this id.
            oldest: its oldest kept entry; None in an empty feed.
            newest: its last entry.

        Raises:
            CursorGapError: entries after the cursor were trimmed away.
            CursorResetError: the feed is another one, or ends before the cursor.
        """
        place = self.places[partition]
        if found or (place == START and oldest is None):
            return
        if oldest is None or newest is None:
            raise CursorResetError(
                f"the feed is empty, but the cursor stands after its entry {place[1]}: it was "
                "deleted, or the server lost its data",
                str(self.moved(partition, START)),
            )
        # Nothing is missing after the place before the oldest entry, even if it is trimmed.
        if place[1] == oldest[1] - 1 and place[0] <= oldest[0]:
            return
        resume = str(self.moved(partition, (oldest[0], oldest[1] - 1)))
        if place[1] < oldest[1] and place <= oldest:
            raise CursorGapError(
                f"entries {place[1] + 1} to {oldest[1] - 1} of the feed were trimmed away", resume
            )
        raise CursorResetError(
            f"entry {place[1]} of the feed is not the one that the cursor saw: the feed was "
            "deleted, or the server lost writes",
            resume,
        )


@dataclass(frozen=True, slots=True)
class FeedFilter:
    """Which entries a reader of the feed wants; None for all."""

    targets: frozenset[str] | None
    types: frozenset[str] | None

    @classmethod
    def of(cls, targets: Collection[str] | None, types: Collection[str] | None) -> Self:
        """Make a filter of a caller's names; one bare name counts as one."""
        return cls(_names(targets), _names(types))

    def wants(self, target: str, entry_type: str) -> bool:
        """Whether an entry passes."""
        return (self.targets is None or target in self.targets) and (
            self.types is None or entry_type in self.types
        )


def read_place(entry_id: str) -> Place:
    """Read an id, ``<ms>-<n>``."""
    ms, _, n = entry_id.partition("-")
    return int(ms), int(n)


def _names(given: Collection[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    return frozenset([given] if isinstance(given, str) else map(str, given))
