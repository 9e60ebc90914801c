"""Where ranges begin that lose their rows at the head."""

from __future__ import annotations


class Heads:
    """For each range a key before which it has no row, as far as was seen.

    The writer must report a new row before it at once.
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
        """Report a row at ``key`` before it is written: to look too early does no harm."""
        head = self._heads.get(prefix)
        if head is not None and key < head:
            self._heads[prefix] = key
