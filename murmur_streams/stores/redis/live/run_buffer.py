"""A followed run: the last entries in memory, shared by all its subscribers in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from murmur_streams.core.model.feed import read_position

TAIL_ENTRIES = 256


class Followed:
    """The entries of one run that the live source has delivered since it was followed.

    The buffer only saves reads. A subscriber goes by seq, and reads the journal when the buffer has
    a hole, begins too late, or was marked as incomplete.
    """

    def __init__(self, run_id: str, last_id: str) -> None:
        self.run_id = run_id
        self.last_id = last_id
        """The id of the last entry that the live source has delivered."""
        self.followers = 0
        self.is_armed = False
        """Whether the live source serves it."""
        self.rereads = 0
        """Counts the times when entries may be missing here: read the journal from the position."""
        self.verifies = 0
        """Counts the times when the journal may be another one: check the cursor first."""
        self.error: BaseException | None = None
        self._tail: deque[tuple[int, Any]] = deque(maxlen=TAIL_ENTRIES)
        self._changed = asyncio.Event()

    def put(self, entry_id: str, raw: Any | None) -> None:
        """Add an entry; ``raw`` is None when it must be read from the journal."""
        last_ms, last_seq = read_position(self.last_id)
        ms, seq = read_position(entry_id)
        if seq <= last_seq and ms <= last_ms:
            return  # Delivered before, by the other source.
        self.last_id = entry_id
        if seq <= last_seq:
            # A failover rewound the journal, or the id has a new run.
            self.verify()
            return
        if raw is None or seq != last_seq + 1:
            self._tail.clear()
            self.rereads += 1
        if raw is not None:
            self._tail.append((seq, raw))
        self.wake()

    def reread(self) -> None:
        """Entries may have been missed."""
        self._tail.clear()
        self.rereads += 1
        self.wake()

    def verify(self) -> None:
        """The connection broke, or the run may be gone."""
        self._tail.clear()
        self.verifies += 1
        self.wake()

    def fail(self, error: BaseException) -> None:
        """The live source has ended for good."""
        self.error = error
        self.wake()

    def wake(self) -> None:
        """Wake every waiting subscriber."""
        self._changed.set()
        self._changed = asyncio.Event()

    def since(self, seq: int) -> list[Any] | None:
        """The entries after ``seq`` without a hole; None: read the journal."""
        tail = self._tail
        if not tail or tail[-1][0] <= seq:
            return []
        if tail[0][0] > seq + 1:
            return None
        raws: list[Any] = []
        wanted = seq + 1
        for found, raw in tail:
            if found < wanted:
                continue
            if found > wanted:
                return raws or None
            raws.append(raw)
            wanted += 1
        return raws

    def oldest(self) -> Any | None:
        """The oldest entry of the buffer."""
        return self._tail[0][1] if self._tail else None

    @property
    def news(self) -> asyncio.Event:
        """An event that the next change sets.

        Take it before looking at the entries. Taken afterwards, it would miss a change between the
        look and the wait, and the subscriber would sleep although there is an entry for it.
        """
        return self._changed

    @staticmethod
    async def changed(news: asyncio.Event, seconds: float) -> None:
        """Wait for news, at most ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await news.wait()
        except TimeoutError:
            return
