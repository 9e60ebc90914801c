"""One moment of the database: the rows that were there when it was taken."""

from __future__ import annotations

from murmur_streams.stores.local.rocksdb.binding import rocksdict

Row = tuple[bytes, bytes]
"""Key and value."""


class View:
    """Rows by key and by range.

    An iterator sees what was there when it was made, and only that: it serves as the snapshot.
    (The binding's own Snapshot does not hold for its iterators.)

    Args:
        family: whose rows.
        is_one_moment: False when no other thread writes meanwhile, or when one row or range is
            read. Then a get is a get, and the end of a range is passed to RocksDB, which otherwise
            looks through what was removed behind it for the next row that was not.
    """

    def __init__(self, family: rocksdict.Rdict, *, is_one_moment: bool) -> None:
        self._family = family
        self._moment = family.iter() if is_one_moment else None

    def get(self, key: bytes) -> bytes | None:
        """The row's value; None when there is none."""
        if self._moment is None:
            return self._family.get(key)
        self._moment.seek(key)
        if self._moment.valid():
            return self._moment.value() if self._moment.key() == key else None
        self._moment.status()
        return None

    def scan(self, first: bytes, stop: bytes, limit: int, *, is_back: bool = False) -> list[Row]:
        """The first rows with ``first <= key < stop``, by key; the last ones, from the last one."""
        found: list[Row] = []
        if limit <= 0 or first >= stop:
            return found
        rows = self._moment or self._bounded(first, stop)
        try:
            _seek(rows, first, stop, is_back=is_back)
            while rows.valid():
                key: bytes = rows.key()
                if not first <= key < stop:
                    return found
                found.append((key, rows.value()))
                if len(found) == limit:
                    return found
                if is_back:
                    rows.prev()
                else:
                    rows.next()
            # An iterator ends at damage as it ends at the end.
            rows.status()
        finally:
            # An error's traceback would keep the iterator, and the iterator the folder open.
            del rows
        return found

    def close(self) -> None:
        """Let go of the moment."""
        self._moment = None

    def _bounded(self, first: bytes, stop: bytes) -> rocksdict.RdictIter:
        options = rocksdict.ReadOptions()
        options.set_iterate_lower_bound(first)
        options.set_iterate_upper_bound(stop)
        return self._family.iter(options)


def _seek(rows: rocksdict.RdictIter, first: bytes, stop: bytes, *, is_back: bool) -> None:
    if not is_back:
        rows.seek(first)
        return
    rows.seek_for_prev(stop)
    if rows.valid() and rows.key() == stop:
        rows.prev()
