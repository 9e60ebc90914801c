"""RocksDatabase: a group of writes as one batch of RocksDB."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import OutcomeUnknownError, StoreError
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import PayloadKind
from murmur_streams.stores.local.engine.database import Changes, Database, RunChange, Stored
from murmur_streams.stores.local.rocksdb import keys, rows
from murmur_streams.stores.local.rocksdb.binding import (
    Row,
    Translated,
    View,
    is_ours_to_translate,
    rocksdict,
)
from murmur_streams.stores.local.rocksdb.open_folder import OpenFolder
from murmur_streams.stores.local.rocksdb.reading import RocksReader, read_stored

# A range that is removed costs every later read a little, a row only those that pass it.
_MOST_ROWS_ONE_BY_ONE = 1000
_SLACK = 10
"""The feed is trimmed when it is a tenth of its size too long: rarely, and much at once."""


class RocksDatabase(RocksReader, Database):
    """The writer's side.

    Args:
        folder: the open folder; closed by this.
        sync: wait for the disk at each commit: not even a power loss takes what was written.
        feed_max_entries: about how many entries the feed keeps.
    """

    def __init__(self, folder: OpenFolder, *, sync: bool, feed_max_entries: int) -> None:
        self._folder = folder
        self._translated = Translated(folder.path)
        self._sync = sync
        self._feed_max = feed_max_entries
        self._is_broken = False
        self._heads: dict[bytes, bytes] = {}
        """By the prefix of a queue or of a kind of moment: no row of it lies before this key."""
        self._feed_floor, self._feed_last = self.feed_ends()

    def commit(self, changes: Changes) -> Position:
        self._folder.check_there()
        if self._is_broken:
            self._folder.reopen()
            self._feed_floor, self._feed_last = self.feed_ends()
        batch = self._folder.batch()
        try:
            texts: dict[int, bytes] = {}
            for run_id, change in changes.runs.items():
                self._add_run(batch, run_id, change, texts)
            for (space, key), text in changes.items.items():
                if text is None:
                    del batch[keys.item(space, key)]
                else:
                    batch[keys.item(space, key)] = rows.text_bytes(text)
            floor, last = self._add_feed(batch, changes.feed, texts)
            if len(batch):
                self._write(batch)
            self._is_broken = False
        finally:
            # The traceback of an error keeps the batch: it must not keep the folder open as well.
            batch.set_default_column_family(None)
        self._feed_floor, self._feed_last = floor, last
        return last

    def reader(self) -> RocksReader:
        return RocksReader(self._folder)

    def close(self) -> None:
        self._folder.close()

    def stored(self, run_id: str) -> Stored | None:
        with self._translated:
            return read_stored(View(self._folder.family, is_one_moment=False), run_id)

    def _first(self, prefix: bytes, stop: bytes, limit: int) -> list[Row]:
        # Rows leave a queue at its head, and what left is in the way until it is compacted.
        if limit <= 0:
            return []
        found = super()._first(max(prefix, self._heads.get(prefix, prefix)), stop, limit)
        self._heads[prefix] = found[0][0] if found else stop
        return found

    @contextmanager
    def _view(self, *, is_one_moment: bool = False) -> Generator[View]:  # noqa: ARG002  # this is the only writer
        with self._translated:
            yield View(self._folder.family, is_one_moment=False)

    def _write(self, batch: rocksdict.WriteBatch) -> None:
        self._is_broken = True  # until all of it has succeeded
        try:
            with self._translated:
                self._folder.write(batch)
        except StoreError:
            self._folder.check_there()
            raise
        try:
            if self._sync:
                self._folder.sync()
        except Exception as error:
            if not is_ours_to_translate(error):
                raise
            raise OutcomeUnknownError(
                f"the disk of {self._folder.path} did not confirm a write ({error}): it is there "
                "now, and may be gone after a power loss; read before you write it again"
            ) from error

    def _add_run(
        self, batch: rocksdict.WriteBatch, run_id: str, change: RunChange, texts: dict[int, bytes]
    ) -> None:
        before, after = change.before, change.after
        if change.is_repair:
            with self._view() as view:
                for key in _positions_of(view, run_id):
                    del batch[key]
        is_there = before is not None or change.is_repair
        if is_there and (after is None or change.is_new_life):
            self._remove_rows(batch, run_id)
        if after is None or before is None or change.is_new_life or not change.is_plain:
            self._add_head(batch, run_id, change)
        if after is None:
            return
        batch[keys.version(run_id)] = rows.version_row(after)
        if change.entries:
            prefix = keys.journal(run_id)
            for entry in change.entries:
                text = texts[id(entry)] = rows.json_bytes(entry.fields)
                batch[keys.numbered(prefix, entry.seq)] = rows.journal_row(entry, text)
        if change.keep_from_seq is not None:
            # Always as a range: one row by one, all that was ever trimmed would lie before the
            # oldest stored entry.
            prefix = keys.journal(run_id)
            self._folder.delete_range(batch, prefix, keys.numbered(prefix, change.keep_from_seq))
        for kind, text in change.payloads.items():
            batch[keys.payload(run_id, kind)] = rows.text_bytes(text)

    def _add_head(self, batch: rocksdict.WriteBatch, run_id: str, change: RunChange) -> None:
        before, after = change.before, change.after
        old = {} if before is None else _index_rows(before, keys.positions(before))
        new: dict[bytes, bytes] = {}
        if after is not None:
            positions = keys.positions(after)
            for key, prefix in positions.items():
                if key < self._heads.get(prefix, key):
                    self._heads[prefix] = key
            new = _index_rows(after, positions)
            batch[keys.run(run_id)] = rows.run_row(after)
        elif before is not None or change.is_repair:
            del batch[keys.run(run_id)]
            del batch[keys.version(run_id)]
        for key in old:
            if key not in new:
                del batch[key]
        for key, row in new.items():
            if old.get(key) != row:
                batch[key] = row

    def _remove_rows(self, batch: rocksdict.WriteBatch, run_id: str) -> None:
        prefix = keys.journal(run_id)
        stop = keys.after_all(prefix)
        with self._view() as view:
            found = view.scan(prefix, stop, _MOST_ROWS_ONE_BY_ONE)
        if len(found) == _MOST_ROWS_ONE_BY_ONE:
            self._folder.delete_range(batch, prefix, stop)
        else:
            for key, _ in found:
                del batch[key]
        for kind in PayloadKind:
            del batch[keys.payload(run_id, kind)]

    def _add_feed(
        self,
        batch: rocksdict.WriteBatch,
        entries: list[tuple[str, JournalEntry]],
        texts: dict[int, bytes],
    ) -> tuple[Position, Position]:
        floor, (ms, n) = self._feed_floor, self._feed_last
        if not entries:
            return floor, (ms, n)
        written: dict[int, int] = {}
        for target, entry in entries:
            n += 1
            ms = max(ms, entry.ms)
            written[n] = ms
            text = texts.get(id(entry)) or rows.json_bytes(entry.fields)
            batch[keys.feed(n)] = rows.feed_row(ms, target, entry, text)
        if n - floor[1] > self._feed_max + self._feed_max // _SLACK:
            floor = self._trim_feed(batch, floor, n - self._feed_max, written)
        batch[keys.FEED] = rows.feed_ends_row(floor, (ms, n))
        return floor, (ms, n)

    def _trim_feed(
        self, batch: rocksdict.WriteBatch, floor: Position, new_n: int, written: dict[int, int]
    ) -> Position:
        ms = written.get(new_n)
        if ms is None:
            ms = rows.feed_position_ms(self._get(keys.feed(new_n)), floor[0])
        self._folder.delete_range(batch, keys.feed(floor[1] + 1), keys.feed(new_n + 1))
        return ms, new_n


def _index_rows(stored: Stored, positions: Iterable[bytes]) -> dict[bytes, bytes]:
    found = dict.fromkeys(keys.listings(stored.run), rows.listing_row(stored))
    found.update(dict.fromkeys(positions, b""))
    return found


def _positions_of(view: View, run_id: str) -> Iterator[bytes]:
    """Every key by which a listing, a moment or a queue finds a run that cannot be read.

    All keys of all indexes are looked through: those of 50,000 runs in 0.12 seconds.
    """
    wanted = run_id.encode()
    for letter in keys.INDEXES:
        first, stop = letter, keys.after_all(letter)
        while page := view.scan(first, stop, _MOST_ROWS_ONE_BY_ONE):
            yield from (key for key, _ in page if keys.is_of(key, wanted))
            first = page[-1][0] + b"\0"
