"""A Sentinel service of the chosen server."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from murmur_streams.embedded.sentinel_group import SentinelGroup, sentinel_group
from tests.server_choice import own_settings, server_binary


def sentinel_service(folder: Path, replicas: int = 1) -> AbstractContextManager[SentinelGroup]:
    """A running service; its processes end with the block."""
    settings = [f"{name} {value}" for name, value in own_settings().items()]
    return sentinel_group(server_binary(), folder, replicas, settings)
