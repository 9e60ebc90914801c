"""The server that runs when no URL is given: it is found, started, watched and stopped here."""

from murmur_streams.embedded.folder import default_data_dir, is_keep_set, set_keep
from murmur_streams.embedded.server import (
    EmbeddedServer,
    ensure_server,
    ensure_server_async,
    server_status,
    stop_server,
)

__all__ = [
    "EmbeddedServer",
    "default_data_dir",
    "ensure_server",
    "ensure_server_async",
    "is_keep_set",
    "server_status",
    "set_keep",
    "stop_server",
]
