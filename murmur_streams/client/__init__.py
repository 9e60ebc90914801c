"""The HTTP client: the fleet's calls over a network; nothing here knows a store."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from murmur_streams.client.answers import Ticket
    from murmur_streams.client.async_client import AsyncClient, AsyncHandle
    from murmur_streams.client.errors import (
        ForbiddenError,
        HTTPError,
        UnauthorizedError,
        UnreadableAnswerError,
    )
    from murmur_streams.client.sync_client import Client, Handle

_MODULES = {
    "AsyncClient": "murmur_streams.client.async_client",
    "AsyncHandle": "murmur_streams.client.async_client",
    "Client": "murmur_streams.client.sync_client",
    "Handle": "murmur_streams.client.sync_client",
    "ForbiddenError": "murmur_streams.client.errors",
    "HTTPError": "murmur_streams.client.errors",
    "Ticket": "murmur_streams.client.answers",
    "UnauthorizedError": "murmur_streams.client.errors",
    "UnreadableAnswerError": "murmur_streams.client.errors",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise ImportError("the client needs httpx: pip install 'murmur-streams[client]'") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


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
