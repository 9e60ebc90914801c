"""What a database on disk must do. It keeps rows; every rule is in ``Transaction`` and the core.

All methods block. Those of a ``Database`` are called by one thread, the writer's; those of what
``reader()`` returned by one other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.pages import RunFilter
from murmur_streams.core.model.run import PayloadKind, Run


class Due(StrEnum):
    """The moments at which somebody must look at a run; each names the field of Stored."""

    EXPIRE = "expire_at_ms"
    OVERDUE = "overdue_ms"
    LEASE = "lease_until_ms"


class Space(StrEnum):
    """What is kept beside the runs, as texts by a key that sorts."""

    PAUSED = "paused"
    """target -> ``1``."""
    WORKERS = "workers"
    """worker -> what it tells of itself."""
    DEAD = "dead"
    """``<target>/<ms, 13 digits>/<run id>`` -> the letter."""
    DEAD_RUNS = "dead_runs"
    """run id -> the key of its letter."""
    SWEEPER = "sweeper"
    """``holder`` -> who tends now, and until when."""


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a waiting run stands in its target's queue: two ranges, as decision 0010 has them."""

    is_ready: bool
    score: int
    """Ready: the lowest is first. Delayed: when it is due, Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A run as the database has it, with what the fold of its journal does not tell."""

    run: Run
    expire_at_ms: int | None = None
    """When an ended run goes; None: never."""
    live_until_ms: int | None = None
    """Until when somebody must have written to a run that has not ended; None: for ever."""
    overdue_ms: int | None = None
    """When to look whether a live run is overdue; may be early, is never late."""
    lease_until_ms: int | None = None
    """Until when its worker holds it without a heartbeat; None: nobody holds it."""
    queue: QueuePlace | None = None


@dataclass(slots=True)
class Change:
    """What a group of writes does to one run."""

    before: Stored | None
    """What the database has of the id before the group; None: nothing. Expired runs count."""
    after: Stored | None
    """What it has afterwards; None: nothing, journal and payloads go too."""
    is_new_life: bool = False
    """Whatever ``before`` had (journal, payloads) goes before the new run is written."""
    is_repair: bool = False
    """The run's own rows cannot be read, so ``before`` is None: whatever rows of the id there are,
    those of indexes, moments and queues too, go before ``after`` is written. Journal and payloads
    stay, unless ``after`` is None."""
    is_plain: bool = True
    """``after`` differs from ``before`` in ``run.version`` and ``run.last_ms`` only."""
    entries: list[JournalEntry] = field(default_factory=list[JournalEntry])
    """To append to the journal, in order. What is in ``Changes.feed`` as well is the same object;
    of what is not (a restored run's entries) the feed is not told."""
    keep_from_seq: int | None = None
    """Older entries than this of the journal go; a database may keep those that the feed still
    shows, without a hole."""
    payloads: dict[PayloadKind, str] = field(default_factory=dict[PayloadKind, str])
    """To write; a payload that is left out stays as it was."""


@dataclass(slots=True)
class Changes:
    """What a group of writes does, all of it or nothing."""

    runs: dict[str, Change] = field(default_factory=dict[str, Change])
    """By run id."""
    feed: list[tuple[str, JournalEntry]] = field(default_factory=list[tuple[str, JournalEntry]])
    """Target and entry, in order; the database gives each the next n, dense, and
    ``max(ms before, entry.ms)``."""
    items: dict[tuple[Space, str], str | None] = field(
        default_factory=dict[tuple[Space, str], str | None]
    )
    """By space and key; None removes it."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.runs or self.feed or self.items)


@dataclass(frozen=True, slots=True)
class FeedRow:
    """An entry of the feed."""

    place: Position
    target: str
    entry: JournalEntry
    """As the journal had it. Of an entry over 1 KiB whose life of the run is gone only the type is
    left: ``{"type": …}``. One that cannot be read keeps its place, with ``{"type": ""}``; its run
    id, target and epoch may be unknown (``""``, ``00000000``)."""


class Reader(Protocol):
    """Reads what was committed. Each call sees one moment of the database, not half a group.

    What was changed by hand and cannot be read is told by RunDamagedError where it is of one run,
    else by StoreDamagedError; nothing else is raised for it. A listing leaves such a run out.
    """

    def stored(self, run_id: str) -> Stored | None:
        """The run, expired or not; None when there is none."""
        ...

    def journal(
        self, run_id: str, after_seq: int, limit: int
    ) -> tuple[Stored, list[JournalEntry]] | None:
        """The run and the first ``limit`` kept entries whose seq is above ``after_seq``."""
        ...

    def kept_entries(self, run_id: str, after_seq: int, limit: int) -> list[JournalEntry]:
        """The entries that ``journal`` reads, of a run whose own row cannot be read, too.

        Those that cannot be read themselves are left out.
        """
        ...

    def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        """The newest entries of the run's journal, oldest first; none when there is no run."""
        ...

    def payload(self, run_id: str, kind: PayloadKind) -> str | None:
        """The JSON text; None when there is none."""
        ...

    def listing(self, wanted: RunFilter, now_ms: int, limit: int, before: str | None) -> list[Run]:
        """The newest runs of those wanted that have not expired, by ``core.pages.listing_key``.

        ``before``: only runs whose key is lower. The cost is the page's, not the store's: by the
        index of the one filter that is given (state, target or tenant; of several, one index is
        walked).
        """
        ...

    def due(self, what: Due, until_ms: int, limit: int) -> list[str]:
        """Ids of runs whose moment is at or before ``until_ms``, the earliest first."""
        ...

    def queue(self, target: str, *, is_ready: bool, limit: int) -> list[tuple[int, str]]:
        """Score and id of the first runs of a range of a target's queue, by score, then id."""
        ...

    def feed(self, after_n: int, limit: int) -> list[FeedRow]:
        """The first kept entries of the feed whose n is above ``after_n``.

        None is before the place that ``feed_ends`` tells.
        """
        ...

    def feed_ends(self) -> tuple[Position, Position]:
        """The place just before the oldest kept entry, and that of the last one.

        Both are the last one's when nothing is kept, and (0, 0) before the first one.
        """
        ...

    def item(self, space: Space, key: str) -> str | None:
        """One text; None when there is none."""
        ...

    def items(
        self,
        space: Space,
        *,
        first: str = "",
        before: str | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> list[tuple[str, str]]:
        """Keys and texts with ``first <= key < before``, by key; from the end if newest first."""
        ...

    def has_foreign_writes(self) -> bool:
        """Whether the database changed since the last call, by any connection but this one.

        Cheap enough to be asked fifty times a second; True at the first call. A database of one
        process always answers False.
        """
        ...

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        ...


class Database(Reader, Protocol):
    """Reads and writes."""

    def begin(self) -> bool:
        """Begin a group: nobody else writes until it ends.

        Returns:
            True when another process may have written since the group before.

        Raises:
            StoreUnavailableError: somebody else has held the file for too long.
        """
        ...

    def commit(self, changes: Changes) -> Position:
        """Write all of it or nothing, and end the group; a killed process loses none of it.

        Returns:
            The place of the feed's last entry.

        Raises:
            StoreFullError: the disk is full. Nothing was written; the group is over.
            StoreReadOnlyError: the file cannot be written. Likewise.
            OutcomeUnknownError: it was written, but the disk did not confirm it.
            StoreError: whatever else. Nothing was written; the group is over.
        """
        ...

    def rollback(self) -> None:
        """End the group and write nothing."""
        ...

    def reader(self) -> Reader:
        """One more way to read, for another thread; the caller closes it first."""
        ...
