"""RocksReader: what is read of a store in RocksDB."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunDamagedError, StoreDamagedError
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import PayloadKind, Run, RunFilter
from murmur_streams.stores.local.engine import database as engine
from murmur_streams.stores.local.engine.bookkeeping import is_due
from murmur_streams.stores.local.rocksdb import keys, rows
from murmur_streams.stores.local.rocksdb.binding import Row, Translated, View
from murmur_streams.stores.local.rocksdb.open_folder import OpenFolder

_PAGE = 1000
_MOST_ROWS = 1 << 31


class RocksReader(engine.Reader):
    """Reads from any thread: each call sees one moment, whatever is committed meanwhile.

    Args:
        folder: the open folder; its owner closes it.
    """

    def __init__(self, folder: OpenFolder) -> None:
        self._folder = folder

    @contextmanager
    def _view(self, *, is_one_moment: bool = False) -> Generator[View]:
        """The view to read from; ``is_one_moment``: several reads must see the same moment."""
        with self._folder.lock, Translated(self._folder.path):
            view = View(self._folder.family, is_one_moment=is_one_moment)
            try:
                yield view
            finally:
                view.close()

    def stored(self, run_id: str) -> engine.Stored | None:
        with self._view(is_one_moment=True) as view:
            return read_stored(view, run_id)

    def journal_rows(self, run_id: str, after_seq: int, limit: int) -> engine.RowPage | None:
        prefix, first_seq = keys.journal(run_id), max(0, after_seq) + 1
        with self._view(is_one_moment=True) as view:
            stored = read_stored(view, run_id)
            if stored is None:
                return None
            # The newest entry is known, so the scan ends at it: the rows behind it belong to
            # another run, and may be thousands that were removed.
            newest = stored.run.version
            first, stop = keys.numbered(prefix, first_seq), keys.numbered(prefix, newest + 1)
            found = view.scan(first, stop, min(_most(limit), newest + 1 - first_seq))
        start, read = len(prefix), rows.read_entry_row
        return stored, [read(run_id, keys.number_at(key, start), row) for key, row in found]

    def stored_entries(self, run_id: str, after_seq: int, limit: int) -> list[JournalEntry]:
        with self._view(is_one_moment=True) as view:
            return list(islice(_legible(view, run_id, after_seq), _most(limit)))

    def payload(self, run_id: str, kind: PayloadKind) -> str | None:
        row = self._get(keys.payload(run_id, kind))
        try:
            return rows.read_text(row)
        except ValueError as error:
            raise RunDamagedError(run_id, f"its {kind} is not text") from error

    def listing(self, wanted: RunFilter, now_ms: int, limit: int, before: str | None) -> list[Run]:
        prefix = keys.listing(wanted)
        stop = keys.after_all(prefix) if before is None else prefix + before.encode()
        limit = _most(limit)
        size = min(limit, _PAGE)
        found: list[Run] = []
        with self._view(is_one_moment=True) as view:
            while len(found) < limit:
                page = view.scan(prefix, stop, size, is_back=True)
                found += islice(_listed(view, page, wanted, now_ms), limit - len(found))
                if len(page) < size:
                    break
                # Many are not wanted, or else it would be enough.
                stop, size = page[-1][0], min(2 * size, _PAGE)
        return found

    def due(self, what: engine.Due, until_ms: int, limit: int) -> list[str]:
        prefix = keys.due(what)
        found = self._first(prefix, keys.scored(prefix, until_ms + 1), _most(limit))
        with _damage_of("a moment of a run"):
            return [keys.score_and_run(key, prefix)[1] for key, _ in found]

    def queue(self, target: str, *, is_ready: bool, limit: int) -> list[tuple[int, str]]:
        prefix = keys.queue(target, is_ready=is_ready)
        found = self._first(prefix, keys.after_all(prefix), _most(limit))
        with _damage_of(f"the queue of {target}"):
            return [keys.score_and_run(key, prefix) for key, _ in found]

    def feed(self, after_n: int, limit: int) -> list[engine.FeedRow]:
        with self._view(is_one_moment=True) as view:
            floor, last = rows.read_feed_ends(view.get(keys.FEED))
            first_n = max(after_n, floor[1]) + 1
            stop_n = min(first_n + _most(limit), last[1] + 1)
            return _feed_rows(view, floor, range(first_n, stop_n))

    def feed_ends(self) -> tuple[Position, Position]:
        return rows.read_feed_ends(self._get(keys.FEED))

    def item(self, space: engine.Space, key: str) -> str | None:
        row = self._get(keys.item(space, key))
        with _damage_of(f"{key} of {space}"):
            return rows.read_text(row)

    def items(self, wanted: engine.ItemRange) -> list[tuple[str, str]]:
        space, before, limit = wanted.space, wanted.before, _most(wanted.limit)
        first = keys.item(space, wanted.first)
        stop = keys.after_all(keys.item(space, "")) if before is None else keys.item(space, before)
        with self._view() as view:
            found = view.scan(first, stop, limit, is_back=wanted.newest_first)
        with _damage_of(f"the items of {space}"):
            return [(keys.item_name(key), rows.text(row)) for key, row in found]

    def _get(self, key: bytes) -> bytes | None:
        with self._view() as view:
            return view.get(key)

    def _first(self, prefix: bytes, stop: bytes, limit: int) -> list[Row]:
        with self._view() as view:
            return view.scan(prefix, stop, limit)


def read_stored(view: View, run_id: str) -> engine.Stored | None:
    """The stored run; None when it does not exist. RunDamagedError: it cannot be read."""
    row = view.get(keys.run(run_id))
    return None if row is None else rows.read_run(run_id, row, view.get(keys.version(run_id)))


def _legible(view: View, run_id: str, after_seq: int) -> Iterator[JournalEntry]:
    prefix = keys.journal(run_id)
    first, stop = keys.numbered(prefix, max(0, after_seq) + 1), keys.after_all(prefix)
    while page := view.scan(first, stop, _PAGE):
        for key, row in page:
            with suppress(RunDamagedError):
                yield rows.read_entry(run_id, keys.number_at(key, len(prefix)), row)
        first = page[-1][0] + b"\0"


def _listed(view: View, page: list[Row], wanted: RunFilter, now_ms: int) -> Iterator[Run]:
    """The runs of a page of an index that are wanted and can be read."""
    for key, row in page:
        if not rows.may_be_listed(row, wanted, now_ms):
            continue
        with suppress(RunDamagedError, ValueError):
            stored = read_stored(view, keys.listed_run(key))
            if stored is not None and wanted.wants(stored.run) and not is_due(stored, now_ms):
                yield stored.run


def _feed_rows(view: View, floor: Position, numbers: range) -> list[engine.FeedRow]:
    if not numbers:
        return []
    first, stop = keys.feed(numbers.start), keys.feed(numbers.stop)
    stored = dict(view.scan(first, stop, len(numbers)))
    found: list[engine.FeedRow] = []
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


def _feed_row(view: View, read: tuple[engine.FeedRow, bool]) -> engine.FeedRow:
    found, is_in_journal = read
    if not is_in_journal:
        return found
    entry = found.entry
    stored = view.get(keys.numbered(keys.journal(entry.run_id), entry.seq))
    # The feed of all runs goes on; the run's own journal reports the damage.
    with suppress(RunDamagedError):
        if stored is not None:
            journalled = rows.read_entry(entry.run_id, entry.seq, stored)
            if journalled.epoch == entry.epoch:
                return engine.FeedRow(found.position, found.target, journalled)
    return found


def _most(limit: int) -> int:
    return max(0, min(int(limit), _MOST_ROWS))


@contextmanager
def _damage_of(what: str) -> Generator[None]:
    try:
        yield
    except ValueError as error:
        raise StoreDamagedError(f"{what} cannot be read ({error})") from error
