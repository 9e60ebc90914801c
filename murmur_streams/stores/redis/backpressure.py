"""Limits how many writes, and how many bytes of them, wait to be sent."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """Admits writes while there is room; the others wait in the order in which they came.

    Args:
        writes: the most writes at a time.
        size: the most bytes together; a single larger write is admitted when it is alone.
    """

    def __init__(self, writes: int, size: int) -> None:
        self._most = (writes, size)
        self._writes = self._size = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int) -> None:
        """Wait until a write of ``size`` bytes fits; the caller must call ``leave`` afterwards."""
        if not self._line and self._fits(size):
            self._take(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (size, turn)
        self._line.append(waiter)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.remove(waiter)
                # It may have been the first in line, and the writes behind it may fit.
                self._let_in()
            else:
                self.leave(size)
            raise

    def leave(self, size: int) -> None:
        """Return the room that ``enter`` took."""
        self._writes -= 1
        self._size -= size
        self._let_in()

    def _fits(self, size: int) -> bool:
        writes, most = self._most
        return self._writes == 0 or (self._writes < writes and self._size + size <= most)

    def _take(self, size: int) -> None:
        self._writes += 1
        self._size += size

    def _let_in(self) -> None:
        while self._line:
            size, turn = self._line[0]
            # A future that is done was cancelled; its waiter is about to leave the line.
            if turn.done() or not self._fits(size):
                return
            self._line.popleft()
            self._take(size)
            turn.set_result(None)
