"""Bell: ends a wait early."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Bell:
    """Ends one wait of the running event loop early; it rings once."""

    def __init__(self) -> None:
        self._rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._at_once: Callable[[], None] | None = None

    @property
    def is_rung(self) -> bool:
        """Whether it has rung."""
        return self._rung.done()

    def ring(self) -> None:
        """End the wait."""
        if not self._rung.done():
            self._rung.set_result(None)
            if self._at_once is not None:
                self._at_once()

    async def wait(self) -> None:
        """Wait until it rings."""
        await asyncio.wait([self._rung])

    async def ends(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for a coroutine, or until the bell rings."""
        task = asyncio.create_task(waiting)
        try:
            await asyncio.wait([task, self._rung], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    @contextlib.contextmanager
    def calling(self, at_once: Callable[[], None]) -> Generator[None]:
        """While the block runs, call a function within ``ring``, not a turn of the loop later."""
        self._at_once = at_once
        try:
            yield
        finally:
            self._at_once = None
