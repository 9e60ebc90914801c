"""RocksDatabase: a group of writes as one batch of RocksDB."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import OutcomeUnknownError
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.run import PayloadKind
from murmur_streams.stores.local.engine.database import Changes, Reader, RunChange, Stored
from murmur_streams.stores.local.rocksdb import keys, rows
from murmur_streams.stores.local.rocksdb.binding import WriteBatch
from murmur_streams.stores.local.rocksdb.failures import failure, is_ours_to_translate, translated
from murmur_streams.stores.local.rocksdb.find_rows import positions_of
from murmur_streams.stores.local.rocksdb.handle import Handle
from murmur_streams.stores.local.rocksdb.reading import Reading
from murmur_streams.stores.local.rocksdb.scan_starts import Heads
from murmur_streams.stores.local.rocksdb.view import Row, View

# A range that is removed costs every later read a little, a row only those that pass it.
_MOST_ROWS_ONE_BY_ONE = 1000
_SLACK = 10
"""The feed is trimmed when it is a tenth of its size too long: rarely, and much at once."""


class RocksDatabase(Reading):
    """The writer's side.

    Args:
        handle: the open folder; closed by this.
        sync: wait for the disk at each commit: not even a power loss takes what was written.
        feed_max_entries: about how many entries the feed keeps.
    """

    def __init__(self, handle: Handle, *, sync: bool, feed_max_entries: int) -> None:
        self._handle = handle
        self._sync = sync
        self._feed_max = feed_max_entries
        self._is_broken = False
        self._heads = Heads()
        self._feed_floor, self._feed_last = self.feed_ends()

    def begin(self) -> bool:
        """Begin a group; no other process writes."""
        return False

    def rollback(self) -> None:
        """End the group; nothing was written before its commit."""

    def commit(self, changes: Changes) -> Position:
        """Write all of it or nothing.

        Raises:
            StoreFullError: the disk is full. Nothing was written.
            StoreReadOnlyError: the folder cannot be written. Likewise.
            StoreUnavailableError: the folder is not where it was opened. Likewise.
            OutcomeUnknownError: it was written, but the disk would not say that it has it.
            StoreError: whatever else; nothing was written.
        """
        self._handle.check_there()
        if self._is_broken:
            self._mend()
        batch = self._handle.batch()
        try:
            return self._commit(batch, changes)
        finally:
            # The traceback of an error keeps the batch: it must not keep the folder open as well.
            batch.set_default_column_family(None)

    def _commit(self, batch: WriteBatch, changes: Changes) -> Position:
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
        self._feed_floor, self._feed_last = floor, last
        return last

    def reader(self) -> Reader:
        """One more way to read, for another thread; the caller closes it first."""
        return RocksReader(self._handle)

    def close(self) -> None:
        """Close the folder; a second call does nothing."""
        self._handle.close()

    def _first(self, prefix: bytes, stop: bytes, limit: int) -> list[Row]:
        # Rows leave a queue at its head, and what left is in the way until it is compacted.
        if limit <= 0:
            return []
        found = super()._first(max(prefix, self._heads.of(prefix)), stop, limit)
        self._heads.learn(prefix, found[0][0] if found else stop)
        return found

    @contextmanager
    def _view(self, *, is_one_moment: bool) -> Generator[View]:  # noqa: ARG002  # this is the only writer
        view = View(self._handle.family, is_one_moment=False)
        with translated(self._handle.path):
            yield view

    def _write(self, batch: WriteBatch) -> None:
        try:
            self._handle.write(batch)
        except Exception as error:
            if not is_ours_to_translate(error):
                raise
            self._is_broken = True
            self._handle.check_there()
            raise failure(self._handle.path, error) from error
        if not self._sync:
            return
        try:
            self._handle.sync()
        except Exception as error:
            if not is_ours_to_translate(error):
                raise
            self._is_broken = True
            raise OutcomeUnknownError(
                f"the disk of {self._handle.path} did not confirm a write ({error}): it is there "
                "now, and may be gone after a power loss; read before you write it again"
            ) from error

    def _mend(self) -> None:
        self._handle.reopen()
        self._feed_floor, self._feed_last = self.feed_ends()
        self._is_broken = False

    def _add_run(
        self, batch: WriteBatch, run_id: str, change: RunChange, texts: dict[int, bytes]
    ) -> None:
        before, after = change.before, change.after
        if change.is_repair:
            with self._view(is_one_moment=False) as view:
                for key in positions_of(view, run_id):
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
            self._trim_journal(batch, run_id, change.keep_from_seq)
        for kind, text in change.payloads.items():
            batch[keys.payload(run_id, kind)] = rows.text_bytes(text)

    def _add_head(self, batch: WriteBatch, run_id: str, change: RunChange) -> None:
        before, after = change.before, change.after
        old, new = _index_rows(before), _index_rows(after)
        for key in old.keys() - new.keys():
            del batch[key]
        for key, row in new.items():
            if old.get(key) != row:
                batch[key] = row
        if after is not None:
            for key, prefix in keys.positions(after).items():
                self._heads.lower(prefix, key)
            batch[keys.run(run_id)] = rows.run_row(after)
        elif before is not None or change.is_repair:
            del batch[keys.run(run_id)]
            del batch[keys.version(run_id)]

    def _remove_rows(self, batch: WriteBatch, run_id: str) -> None:
        prefix = keys.journal(run_id)
        stop = keys.after_all(prefix)
        with self._view(is_one_moment=False) as view:
            found = view.scan(prefix, stop, _MOST_ROWS_ONE_BY_ONE)
        if len(found) == _MOST_ROWS_ONE_BY_ONE:
            self._handle.delete_range(batch, prefix, stop)
        else:
            for key, _ in found:
                del batch[key]
        for kind in PayloadKind:
            del batch[keys.payload(run_id, kind)]

    def _trim_journal(self, batch: WriteBatch, run_id: str, keep_from_seq: int) -> None:
        # Always as a range: one row by one, all that was ever trimmed would lie before the oldest
        # stored entry.
        prefix = keys.journal(run_id)
        self._handle.delete_range(batch, prefix, keys.numbered(prefix, keep_from_seq))

    def _add_feed(
        self, batch: WriteBatch, entries: list[tuple[str, JournalEntry]], texts: dict[int, bytes]
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
        self, batch: WriteBatch, floor: Position, new_n: int, written: dict[int, int]
    ) -> Position:
        ms = written.get(new_n)
        if ms is None:
            with self._view(is_one_moment=False) as view:
                row = view.get(keys.feed(new_n))
            ms = rows.feed_position_ms(row, floor[0])
        self._handle.delete_range(batch, keys.feed(floor[1] + 1), keys.feed(new_n + 1))
        return ms, new_n


def _index_rows(stored: Stored | None) -> dict[bytes, bytes]:
    if stored is None:
        return {}
    found = dict.fromkeys(keys.listings(stored.run), rows.listing_row(stored))
    found.update(dict.fromkeys(keys.positions(stored), b""))
    return found


class RocksReader(Reading):
    """The reader's side: each call sees one moment, whatever is committed meanwhile.

    Args:
        handle: the open folder; its owner closes it.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def close(self) -> None:
        """Nothing is held between calls."""

    def _view(self, *, is_one_moment: bool) -> AbstractContextManager[View]:
        return self._locked_view(is_one_moment)

    @contextmanager
    def _locked_view(self, is_one_moment: bool) -> Generator[View]:
        with self._handle.lock, translated(self._handle.path):
            view = View(self._handle.family, is_one_moment=is_one_moment)
            try:
                yield view
            finally:
                view.close()
