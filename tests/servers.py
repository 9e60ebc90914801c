"""How tests get a server: the embedded Valkey, one per worker process, a clean one per test."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from murmur_streams.embedded import ensure_server, stop_server
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import RedisRunStore
from tests.key_audit import dump_keys


@dataclass(frozen=True)
class Space:
    """The key space of one test: nothing else is on its server."""

    url: str
    admin: Redis
    """A plain client, for looking and for tampering."""
    prefix: str = field(default_factory=lambda: f"test-{secrets.token_hex(4)}")

    @property
    def keys(self) -> Keys:
        return Keys(self.prefix)

    def store(self, **options: Any) -> RedisRunStore:
        """Open a store; closing it is the caller's."""
        return RedisRunStore(self.url, key_prefix=self.prefix, **options)

    def dump(self) -> dict[str, object]:
        """Everything on the server."""
        return dump_keys(self.admin)


@contextmanager
def embedded_valkey(folder: Path) -> Generator[tuple[str, Redis]]:
    """A server of our own: its URL, and a client that keeps it from ending for want of clients."""
    server = ensure_server(folder)
    admin = Redis.from_url(server.url)
    try:
        admin.ping()
        yield server.url, admin
    finally:
        admin.close()
        stop_server(folder)
