"""What every command knows: where the runs are, and how to print."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from murmur_streams.core.errors import StoreConfigurationError
from murmur_streams.embedded import default_data_dir
from murmur_streams.settings import Settings
from murmur_streams.stores.open import open_store
from murmur_streams.stores.redis.store import RedisRunStore

RETRY_SECONDS = 5.0
"""A person waits for the answer; a fleet retries for longer."""


@dataclass(frozen=True, slots=True)
class Globals:
    """The options that stand before or after any command."""

    url: str | None = None
    prefix: str | None = None
    as_json: bool = False
    debug: bool = False

    def over(self, other: Globals) -> Globals:
        """These options, and where they say nothing, ``other``."""
        return Globals(
            url=self.url or other.url,
            prefix=self.prefix or other.prefix,
            as_json=self.as_json or other.as_json,
            debug=self.debug or other.debug,
        )


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation: its options over the environment's."""

    given: Globals
    settings: Settings

    @classmethod
    def of(cls, given: Globals) -> Session:
        """Read the environment; StoreConfigurationError for a value that breaks its rule."""
        return cls(given, Settings.from_environment(os.environ))

    @property
    def as_json(self) -> bool:
        """Whether a program reads what is printed."""
        return self.given.as_json

    @property
    def url(self) -> str:
        """--url, else MURMUR_URL, else the embedded server's."""
        return self.given.url or self.settings.url or "embedded:"

    @property
    def prefix(self) -> str:
        """--prefix, else MURMUR_KEY_PREFIX, else the default."""
        return self.given.prefix or self.settings.key_prefix

    @property
    def is_embedded(self) -> bool:
        """Whether the runs are on the embedded server."""
        return self.url.startswith("embedded:")

    @property
    def data_dir(self) -> Path:
        """The embedded server's folder."""
        path = urlsplit(self.url).path if self.is_embedded else ""
        return Path(unquote(path)) if path else default_data_dir(os.environ)

    @asynccontextmanager
    async def store(self, partitions: int | None = None) -> AsyncGenerator[RedisRunStore]:
        """Open the store; it is closed at the end of the block. partitions: None is the setting."""
        if self.url.startswith("memory:"):
            raise StoreConfigurationError(
                "memory: lives inside one process, and this is another one; "
                "give --url or MURMUR_URL a server, or neither for the embedded one"
            )
        store = cast(
            "RedisRunStore",
            open_store(
                self.url,
                key_prefix=self.prefix,
                partitions=partitions or self.settings.partitions,
                ttl_seconds=self.settings.ttl_seconds,
                live_ttl_seconds=self.settings.live_ttl_seconds,
                retry_seconds=RETRY_SECONDS,
            ),
        )
        try:
            yield store
        finally:
            await store.close()

    def to_environment(self) -> dict[str, str]:
        """The options as variables, for code of the user's and for processes that we start."""
        variables: dict[str, str] = {}
        if self.given.url:
            variables["MURMUR_URL"] = self.given.url
        if self.given.prefix:
            variables["MURMUR_KEY_PREFIX"] = self.given.prefix
        return variables
