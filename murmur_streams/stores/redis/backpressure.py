"""Room for what waits to be sent: so many writes, and so many bytes of them."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """Lets in who fits, and the others in the order in which they came.

    Args:
        writes: how many there may be.
        size: how many bytes they may have together; a larger one is let in when it is alone.
    """

    def __init__(self, writes: int, size: int) -> None:
        self._most = (writes, size)
        self._writes = self._size = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int) -> None:
        """Wait until a write of ``size`` bytes fits; who returns from here must ``leave``."""
        if not self._line and self._fits(size):
            self._take(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (size, turn)
        self._line.append(place)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.remove(place)
                # It may have been the first, too large for what those behind it fit into.
                self._let_in()
            else:
                self.leave(size)
            raise

    def leave(self, size: int) -> None:
        """Give back what ``enter`` took."""
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
            # One that is done was cancelled, and is about to take itself out of the line.
            if turn.done() or not self._fits(size):
                return
            self._line.popleft()
            self._take(size)
            turn.set_result(None)
