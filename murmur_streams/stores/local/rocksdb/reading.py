"""Reads of the store, the same on the writer's thread and on the reader's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, StoreDamagedError
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.pages import RunFilter
from murmur_streams.core.model.run import PayloadKind, Run
from murmur_streams.stores.local.engine.database import Due, FeedRow, Space, Stored
from murmur_streams.stores.local.rocksdb import keys, rows
from murmur_streams.stores.local.rocksdb.view import Row, View

_PAGE = 1000
_MOST_ROWS = 1 << 31


class Reading(ABC):
    """Every read of the protocol; where a view comes from is the subclass's."""

    @abstractmethod
    def _view(self, *, is_one_moment: bool) -> AbstractContextManager[View]:
        """The view to read from; ``is_one_moment``: several reads must see the same moment."""

    def stored(self, run_id: str) -> Stored | None:
        """The run, expired or not; None when there is none."""
        with self._view(is_one_moment=True) as view:
            return _stored(view, run_id)

    def journal(
        self, run_id: str, after_seq: int, limit: int
    ) -> tuple[Stored, list[JournalEntry]] | None:
        """The run and the first ``limit`` stored entries whose seq is above ``after_seq``."""
        with self._view(is_one_moment=True) as view:
            stored = _stored(view, run_id)
            if stored is None:
                return None
            return stored, _entries(view, run_id, after_seq, stored.run.version, limit)

    def stored_entries(self, run_id: str, after_seq: int, limit: int) -> list[JournalEntry]:
        """The entries that ``journal`` reads, of a run whose own row cannot be read, too."""
        with self._view(is_one_moment=True) as view:
            return list(islice(_legible(view, run_id, after_seq), _most(limit)))

    def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        """The newest entries of the run's journal, oldest first; [] when it does not exist."""
        with self._view(is_one_moment=True) as view:
            stored = _stored(view, run_id)
            if stored is None:
                return []
            newest, count = stored.run.version, _most(count)
            return _entries(view, run_id, max(0, newest - count), newest, count)

    def payload(self, run_id: str, kind: PayloadKind) -> str | None:
        """The JSON text; None when there is none."""
        with self._view(is_one_moment=False) as view:
            row = view.get(keys.payload(run_id, kind))
        try:
            return rows.read_text(row)
        except ValueError as error:
            raise RunDamagedError(run_id, f"its {kind} is not text") from error

    def listing(self, wanted: RunFilter, now_ms: int, limit: int, before: str | None) -> list[Run]:
        """The newest runs of those wanted that have not expired, by ``core.pages.listing_key``."""
        prefix = keys.listing(wanted)
        stop = keys.after_all(prefix) if before is None else prefix + before.encode()
        sieve = rows.Sieve.of(wanted, now_ms)
        limit = _most(limit)
        size = min(limit, _PAGE)
        found: list[Run] = []
        with self._view(is_one_moment=True) as view:
            while len(found) < limit:
                page = view.scan(prefix, stop, size, is_back=True)
                through = (key for key, row in page if sieve.lets_through(row))
                listed = (_listed(view, key, wanted, now_ms) for key in through)
                wanted_runs = (run for run in listed if run is not None)
                found += islice(wanted_runs, limit - len(found))
                if len(page) < size:
                    break
                # Many are not wanted, or else it would be enough.
                stop, size = page[-1][0], min(2 * size, _PAGE)
        return found

    def due(self, what: Due, until_ms: int, limit: int) -> list[str]:
        """Ids of runs whose moment is at or before ``until_ms``, the earliest first."""
        prefix = keys.due(what)
        found = self._first(prefix, keys.scored(prefix, until_ms + 1), _most(limit))
        with _damage_of("a moment of a run"):
            return [keys.score_and_run(key, prefix)[1] for key, _ in found]

    def queue(self, target: str, *, is_ready: bool, limit: int) -> list[tuple[int, str]]:
        """Score and id of the first runs of a range of a target's queue, by score, then id."""
        prefix = keys.queue(target, is_ready=is_ready)
        found = self._first(prefix, keys.after_all(prefix), _most(limit))
        with _damage_of(f"the queue of {target}"):
            return [keys.score_and_run(key, prefix) for key, _ in found]

    def feed(self, after_n: int, limit: int) -> list[FeedRow]:
        """The first stored entries of the feed whose n is above ``after_n``."""
        with self._view(is_one_moment=True) as view:
            floor, last = rows.read_feed_ends(view.get(keys.FEED))
            first_n = max(after_n, floor[1]) + 1
            stop_n = min(first_n + _most(limit), last[1] + 1)
            return _feed_rows(view, floor, range(first_n, stop_n))

    def feed_ends(self) -> tuple[Position, Position]:
        """The position just before the oldest stored entry, and that of the last one."""
        with self._view(is_one_moment=False) as view:
            return rows.read_feed_ends(view.get(keys.FEED))

    def item(self, space: Space, key: str) -> str | None:
        """One text; None when there is none."""
        with self._view(is_one_moment=False) as view:
            row = view.get(keys.item(space, key))
        with _damage_of(f"{key} of {space}"):
            return rows.read_text(row)

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
        prefix = keys.item(space, "")
        stop = keys.after_all(prefix) if before is None else keys.item(space, before)
        with self._view(is_one_moment=False) as view:
            found = view.scan(keys.item(space, first), stop, _most(limit), is_back=newest_first)
        with _damage_of(f"the items of {space}"):
            return [(keys.item_name(key), rows.text(row)) for key, row in found]

    def has_foreign_writes(self) -> bool:
        """Never: the folder is this process's."""
        return False

    def _first(self, prefix: bytes, stop: bytes, limit: int) -> list[Row]:
        with self._view(is_one_moment=False) as view:
            return view.scan(prefix, stop, limit)


def _stored(view: View, run_id: str) -> Stored | None:
    row = view.get(keys.run(run_id))
    return None if row is None else rows.read_run(run_id, row, view.get(keys.version(run_id)))


def _entries(
    view: View, run_id: str, after_seq: int, newest: int, limit: int
) -> list[JournalEntry]:
    # The newest entry is known, so the scan ends at it: what lies behind it is another run's, and
    # may be thousands of rows that were removed.
    prefix = keys.journal(run_id)
    after_seq = max(0, after_seq)
    limit = min(_most(limit), newest - after_seq)
    first, stop = keys.numbered(prefix, after_seq + 1), keys.numbered(prefix, newest + 1)
    found: list[JournalEntry] = []
    for key, row in view.scan(first, stop, limit):
        found.append(rows.read_entry(run_id, keys.number_at(key, len(prefix)), row))
    return found


def _legible(view: View, run_id: str, after_seq: int) -> Iterator[JournalEntry]:
    prefix = keys.journal(run_id)
    first, stop = keys.numbered(prefix, max(0, after_seq) + 1), keys.after_all(prefix)
    while page := view.scan(first, stop, _PAGE):
        for key, row in page:
            with suppress(RunDamagedError):
                yield rows.read_entry(run_id, keys.number_at(key, len(prefix)), row)
        first = page[-1][0] + b"\0"


def _listed(view: View, key: bytes, wanted: RunFilter, now_ms: int) -> Run | None:
    try:
        stored = _stored(view, keys.listed_run(key))
    except (RunDamagedError, ValueError):
        return None
    if stored is None or not wanted.wants(stored.run):
        return None
    is_over = stored.expire_at_ms is not None and stored.expire_at_ms <= now_ms
    return None if is_over else stored.run


def _feed_rows(view: View, floor: Position, numbers: range) -> list[FeedRow]:
    if not numbers:
        return []
    first, stop = keys.feed(numbers.start), keys.feed(numbers.stop)
    stored = dict(view.scan(first, stop, len(numbers)))
    found: list[FeedRow] = []
    for n in numbers:
        row = stored.get(keys.feed(n))
        read = rows.read_feed_row(n, row, found[-1].position[0] if found else floor[0])
        if not found and rows.is_illegible(read[0]):
            # Its position must not depend on where the page begins.
            read = rows.read_feed_row(n, row, _ms_before(view, floor, n))
        found.append(_feed_row(view, read))
    return found


def _ms_before(view: View, floor: Position, n: int) -> int:
    first = keys.feed(floor[1] + 1)
    for key, row in view.scan(first, keys.feed(n), _PAGE, is_back=True):
        found, _ = rows.read_feed_row(keys.number_at(key, 1), row, 0)
        if not rows.is_illegible(found):
            return found.position[0]
    return floor[0]


def _feed_row(view: View, read: tuple[FeedRow, bool]) -> FeedRow:
    found, is_in_journal = read
    if not is_in_journal:
        return found
    entry = found.entry
    stored = view.get(keys.numbered(keys.journal(entry.run_id), entry.seq))
    if stored is None:
        return found
    try:
        journalled = rows.read_entry(entry.run_id, entry.seq, stored)
    except RunDamagedError:
        return found  # the feed of all runs goes on; the run's own journal reports the damage
    if journalled.epoch != entry.epoch:
        return found
    return FeedRow(found.position, found.target, journalled)


def _most(limit: int) -> int:
    return max(0, min(int(limit), _MOST_ROWS))


@contextmanager
def _damage_of(what: str) -> Generator[None]:
    try:
        yield
    except ValueError as error:
        raise StoreDamagedError(f"{what} cannot be read ({error})") from error
