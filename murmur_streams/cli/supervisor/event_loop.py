"""Which event loop a worker runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum

from murmur_streams.core.model.errors import StoreConfigurationError


class Loop(StrEnum):
    """The choice; ``auto`` is uvloop where it is installed."""

    AUTO = "auto"
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


def loop_factory(choice: Loop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop; None is asyncio's own way.

    Raises:
        StoreConfigurationError: uvloop was asked for and is not installed.
    """
    if choice is Loop.ASYNCIO:
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        if choice is Loop.AUTO:
            return None
        raise StoreConfigurationError(
            "--loop uvloop needs uvloop: pip install 'murmur-streams[uvloop]'"
        ) from None
    return uvloop.new_event_loop
