"""The event loop that a worker or a pod runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.settings import EventLoop


def loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The factory of the event loop; None means asyncio's own.

    Raises:
        StoreConfigurationError: ``uvloop`` was chosen and is not installed.
    """
    if choice == EventLoop.ASYNCIO:
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        if choice == EventLoop.AUTO:
            return None
        raise StoreConfigurationError(
            "--loop uvloop needs uvloop: pip install 'murmur-streams[uvloop]'"
        ) from None
    return uvloop.new_event_loop
