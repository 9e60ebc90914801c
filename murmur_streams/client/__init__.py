"""The HTTP client: the fleet's calls over a network; nothing here knows a store."""

from importlib import import_module
from typing import TYPE_CHECKING

from murmur_streams.client.answers import (
    ForbiddenError,
    HTTPError,
    UnauthorizedError,
    UnreadableAnswerError,
)
from murmur_streams.wire.answers import Ticket

if TYPE_CHECKING:
    from murmur_streams.client.async_client import AsyncClient, AsyncHandle
    from murmur_streams.client.sync_client import Client, Handle

__all__ = [
    "AsyncClient",
    "AsyncHandle",
    "Client",
    "ForbiddenError",
    "HTTPError",
    "Handle",
    "Ticket",
    "UnauthorizedError",
    "UnreadableAnswerError",
]


def __getattr__(name: str) -> object:
    # Loaded on first use: httpx comes with an extra.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "async_client" if name.startswith("Async") else "sync_client"
    try:
        value = getattr(import_module(f"murmur_streams.client.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise ImportError("the client needs httpx: pip install 'murmur-streams[client]'") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
