"""A history: what programs asked of runs, and what they were answered. ``checker`` judges it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from murmur_streams.core.model.commands import Command
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.run import Run
from murmur_streams.core.rules.executions import Answer
from murmur_streams.stores.protocol import RunStore

_OfRun = TypeVar("_OfRun", "Call", "ReaderSession", "ReportedLoss", FeedEntry)


class Outcome(StrEnum):
    """How a call ended for its caller."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """The store reported that it wrote nothing."""
    UNKNOWN = "unknown"
    """It may have been applied, once."""


@dataclass(slots=True)
class Call:
    """One call of one program."""

    run_id: str
    command: Command
    began: float
    """By any one clock that all programs of the history share."""
    ended: float = math.inf
    """Infinite for a call without an answer."""
    outcome: Outcome = Outcome.UNKNOWN
    answer: Answer | None = None
    """The store's answer, tagged as ``core.rules.decide`` documents; None when none came."""
    program: int = 0
    """The program that made it: its recorder's number."""

    @property
    def version(self) -> int | None:
        """The run's version after an acknowledged write."""
        if self.outcome is not Outcome.ACKNOWLEDGED or self.answer is None:
            return None
        text = self.answer[1] if len(self.answer) > 1 else ""
        return int(text) if text.isdigit() else None


@dataclass(frozen=True, slots=True)
class ReportedLoss:
    """A StoreRewoundError: a program learned that the server has lost writes of it to a run."""

    run_id: str
    program: int
    moment: float


@dataclass(slots=True)
class ReaderSession:
    """One reading of a run's stream."""

    run_id: str
    after: str | None = None
    """The cursor with which it began."""
    events: list[RunEvent] = field(default_factory=list[RunEvent])
    is_complete: bool = False
    """Whether the stream ended by itself, at the run's seal."""


@dataclass(slots=True)
class History:
    """What programs did."""

    calls: list[Call] = field(default_factory=list[Call])
    readers: list[ReaderSession] = field(default_factory=list[ReaderSession])
    feeds: list[list[FeedEntry]] = field(default_factory=list[list[FeedEntry]])
    """What each reader of the feed received."""
    is_whole: bool = True
    """Whether every event of these runs was written by a call of the history."""

    may_rewind: bool = False
    """Whether a failover may have taken entries away: readers see what the primary has, also what
    no replica has yet. What readers of the feed received is not judged then."""
    losses: list[ReportedLoss] = field(default_factory=list[ReportedLoss])
    """Earlier writes of these programs to these runs may be missing."""
    programs: int = 0
    """How many recorders it has."""

    @property
    def run_ids(self) -> list[str]:
        """The runs that its calls and readers name."""
        return [*dict.fromkeys(each.run_id for each in (*self.calls, *self.readers))]

    def take(self, run_ids: Collection[str]) -> History:
        """Move what is known of some runs into a history of its own.

        A test that goes on for hours judges runs that have ended, and forgets them.

        Args:
            run_ids: of runs on which no call is under way, and that no reader follows.

        Returns:
            Their part of the history, for ``check``.
        """
        taken = frozenset(run_ids)
        part = History(is_whole=self.is_whole, may_rewind=self.may_rewind, programs=self.programs)
        _move(self.calls, part.calls, taken)
        _move(self.readers, part.readers, taken)
        _move(self.losses, part.losses, taken)
        for feed in self.feeds:
            part.feeds.append([])
            _move(feed, part.feeds[-1], taken)
        part.feeds[:] = [feed for feed in part.feeds if feed]
        return part

    def of_runs(self) -> dict[str, History]:
        """The part of each run, of which there may be thousands."""
        parts: dict[str, History] = {}

        def part(run_id: str) -> History:
            if run_id not in parts:
                parts[run_id] = History(is_whole=self.is_whole, may_rewind=self.may_rewind)
            return parts[run_id]

        for call in self.calls:
            part(call.run_id).calls.append(call)
        for reader in self.readers:
            part(reader.run_id).readers.append(reader)
        for loss in self.losses:
            part(loss.run_id).losses.append(loss)
        for feed in self.feeds:
            by_run: dict[str, list[FeedEntry]] = {}
            for entry in feed:
                by_run.setdefault(entry.run_id, []).append(entry)
            for run_id, entries in by_run.items():
                part(run_id).feeds.append(entries)
        return parts


def _move(source: list[_OfRun], target: list[_OfRun], run_ids: Collection[str]) -> None:
    """Move the items of some runs; the lists stay the same objects, as programs append to them."""
    target += [each for each in source if each.run_id in run_ids]
    source[:] = [each for each in source if each.run_id not in run_ids]


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a store has of a run at the end."""

    run: Run | None
    journal: tuple[JournalEntry, ...] = ()


async def stored_runs(store: RunStore, run_ids: Iterable[str]) -> dict[str, StoredRun]:
    """Read what a store has of each run."""
    found: dict[str, StoredRun] = {}
    for run_id in run_ids:
        try:
            run = await store.snapshot(run_id)
            journal = tuple([entry async for entry in store.journal(run_id)])
        except RunNotFoundError:
            found[run_id] = StoredRun(None)
        else:
            found[run_id] = StoredRun(run, journal)
    return found
