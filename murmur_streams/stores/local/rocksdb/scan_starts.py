"""Where ranges begin that lose their rows at the head."""

from __future__ import annotations


class Heads:
    """For each range a key before which it has no row, as far as was seen.

    For the one who writes: a row that comes to lie before it must be told at once.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, bytes] = {}

    def of(self, prefix: bytes) -> bytes:
        """Where to begin to look."""
        return self._heads.get(prefix, prefix)

    def learn(self, prefix: bytes, first: bytes) -> None:
        """Nothing of the range lies before ``first``."""
        self._heads[prefix] = first

    def lower(self, prefix: bytes, key: bytes) -> None:
        """A row comes to ``key``; told before it is written, since to look too early is no harm."""
        head = self._heads.get(prefix)
        if head is not None and key < head:
            self._heads[prefix] = key
