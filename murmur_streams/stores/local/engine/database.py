"""The protocol of databases: they store rows; every rule is in ``Transaction`` and the core.

All methods block. One thread calls those of a ``Database``, another one those of its ``reader()``;
a database in memory has one thread for both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from murmur_streams.core.model.entries import Fields, JournalEntry
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import PayloadKind, Run, RunFilter


class Due(StrEnum):
    """The moments at which the store must look at a run; each names a field of Stored."""

    EXPIRE = "expire_at_ms"
    OVERDUE = "overdue_ms"
    LEASE = "lease_until_ms"


class Space(StrEnum):
    """Texts that are stored beside the runs, by a key that sorts."""

    PAUSED = "paused"
    """target -> ``1``."""
    WORKERS = "workers"
    """worker -> its last report."""
    DEAD = "dead"
    """``<target>/<ms, 13 digits>/<run id>`` -> the letter."""
    DEAD_RUNS = "dead_runs"
    """run id -> the key of its letter."""
    HOUSEKEEPING = "sweeper"
    """``holder`` -> the worker that does the housekeeping, and until when."""


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The position of a waiting run in its target's queue: in one of two ranges (decision 0010)."""

    is_ready: bool
    score: int
    """Ready: the lowest is first. Delayed: when it is due, Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A run as the database stores it, with the bookkeeping that is not part of its fold."""

    run: Run
    expire_at_ms: int | None = None
    """When an ended run is removed; None: never."""
    live_until_ms: int | None = None
    """A run that has not ended is overdue without a write until then; None: never."""
    overdue_ms: int | None = None
    """When to check whether a live run is overdue; may be early, is never late."""
    lease_until_ms: int | None = None
    """Until when its worker holds it without a heartbeat; None: no worker holds it."""
    queue: QueuePosition | None = None


@dataclass(slots=True)
class RunChange:
    """The effect of a group of writes on one run."""

    before: Stored | None
    """The stored run of this id before the group, expired or not; None without one."""
    after: Stored | None
    """The stored run afterwards; None: it is removed, with its journal and payloads."""
    is_new_life: bool = False
    """The journal and payloads of ``before`` are removed before the new run is written."""
    is_repair: bool = False
    """The run's own rows cannot be read, so ``before`` is None. All rows of the id, also those of
    indexes, moments and queues, are removed before ``after`` is written; the journal and payloads
    stay, unless ``after`` is None."""
    is_plain: bool = True
    """``after`` differs from ``before`` in ``run.version`` and ``run.last_ms`` only."""
    entries: list[JournalEntry] = field(default_factory=lambda: [])
    """To append to the journal, in order. An entry that belongs into the feed as well is the same
    object in ``Changes.feed``; a restored run's entries are not in the feed."""
    keep_from_seq: int | None = None
    """Older entries of the journal are removed; a database may retain those that the feed still
    shows, without a hole."""
    payloads: dict[PayloadKind, str] = field(default_factory=lambda: {})
    """To write; other payloads stay as they are."""


class Changes:
    """The effect of a group of writes, all of it or nothing.

    Not a dataclass: each group makes one, and a dataclass would call a function for each field.

    Args:
        runs: by run id.
        feed: target and entry, in order; the database gives each the next n, dense, and
            ``max(ms before, entry.ms)``.
        items: by space and key; None removes it.
    """

    __slots__ = ("feed", "items", "runs")

    def __init__(
        self,
        runs: dict[str, RunChange] | None = None,
        feed: list[tuple[str, JournalEntry]] | None = None,
        items: dict[tuple[Space, str], str | None] | None = None,
    ) -> None:
        self.runs = {} if runs is None else runs
        self.feed = [] if feed is None else feed
        self.items = {} if items is None else items

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.runs or self.feed or self.items)


@dataclass(frozen=True, slots=True)
class FeedRow:
    """An entry of the feed."""

    position: Position
    target: str
    entry: JournalEntry
    """As the journal had it. Of an entry over 1 KiB whose run was removed, a database may store
    only the type: ``{"type": …}``. An entry that cannot be read stays at its position, with
    ``{"type": ""}``; its run id, target and epoch may be unknown (``""``, ``00000000``)."""


@dataclass(frozen=True, slots=True)
class ItemRange:
    """Texts of a space: those with ``first <= key < before``."""

    space: Space
    limit: int
    first: str = ""
    before: str | None = None
    newest_first: bool = False
    """From the end, in the other order."""


JournalPage = tuple[Stored, list[JournalEntry]]
"""A run, and entries of its journal."""
EntryRow = tuple[str, int, int, Fields]
"""Epoch, ms, seq and fields of a run's entry: the most that a reader of events needs."""
RowPage = tuple[Stored, list[EntryRow]]
"""A run, and rows of its journal."""


class Reader(Protocol):
    """Reads what was committed. Each call sees one moment of the database, not half a group.

    Rows that were changed by hand and cannot be read raise RunDamagedError when they belong to one
    run, else StoreDamagedError. A listing leaves such a run out.
    """

    def stored(self, run_id: str) -> Stored | None:
        """The run, expired or not; None when it does not exist."""
        ...

    def journal_rows(self, run_id: str, after_seq: int, limit: int) -> RowPage | None:
        """The run and the first ``limit`` stored entries whose seq is above ``after_seq``.

        The fields may be shared: they must not be changed.
        """
        ...

    def journal(self, run_id: str, after_seq: int, limit: int) -> JournalPage | None:
        """The same as entries, which the caller may change."""
        page = self.journal_rows(run_id, after_seq, limit)
        if page is None:
            return None
        return page[0], [
            JournalEntry(run_id, epoch, ms, seq, dict(fields)) for epoch, ms, seq, fields in page[1]
        ]

    def stored_entries(self, run_id: str, after_seq: int, limit: int) -> list[JournalEntry]:
        """The same entries, also of a run whose own row cannot be read.

        Entries that cannot be read are left out.
        """
        ...

    def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        """The newest entries of the run's journal, oldest first; [] when it does not exist."""
        stored = self.stored(run_id)
        page = stored and self.journal(run_id, stored.run.version - int(count), count)
        return page[1] if page else []

    def payload(self, run_id: str, kind: PayloadKind) -> str | None:
        """The JSON text; None without one."""
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
        """The first stored entries of the feed whose n is above ``after_n``."""
        ...

    def feed_ends(self) -> tuple[Position, Position]:
        """The position just before the oldest stored entry, and that of the last entry.

        Both are that of the last entry when none is stored, and (0, 0) before the first entry.
        """
        ...

    def item(self, space: Space, key: str) -> str | None:
        """One text; None without one."""
        ...

    def items(self, wanted: ItemRange) -> list[tuple[str, str]]:
        """Keys and texts of a range, by key."""
        ...

    def has_foreign_writes(self) -> bool:
        """Whether the database changed since the last call, by any connection but this one.

        Cheap enough to be asked fifty times a second; True at the first call. A database of one
        process always answers False.
        """
        return False

    def close(self) -> None:
        """Close it, where anything is held between calls; a second call does nothing."""


class Database(Reader, Protocol):
    """Reads and writes."""

    def begin(self) -> bool:
        """Begin a group: no other process writes until it ends.

        Returns:
            True when another process may have written since the group before.

        Raises:
            StoreUnavailableError: another process has locked the file for too long.
        """
        return False

    def commit(self, changes: Changes) -> Position:
        """Write all of it or nothing, and end the group; a killed process loses none of it.

        Returns:
            The position of the feed's last entry.

        Raises:
            StoreFullError: the disk is full. Nothing was written; the group is over.
            StoreReadOnlyError: the file cannot be written. Likewise.
            OutcomeUnknownError: it was written, but the disk did not confirm it.
            StoreError: any other failure. Nothing was written; the group is over.
        """
        ...

    def rollback(self) -> None:
        """End the group and write nothing; nothing to do where ``commit`` alone writes."""

    def reader(self) -> Reader:
        """One more way to read, for another thread; the caller closes it first."""
        ...
