"""The session of a command: its options over the environment's, and the store they name."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from murmur_streams.cli.shell.options import option
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.embedded import default_data_dir
from murmur_streams.fleet.stores import default_options, kind_on_disk, open_work_store
from murmur_streams.server.auth import is_open_to_others
from murmur_streams.settings import Settings
from murmur_streams.stores.open import path_on_disk
from murmur_streams.stores.redis.store import RedisRunStore, redis_only
from murmur_streams.stores.work_store import WorkStore

logger = logging.getLogger("murmur_streams.cli")

RETRY_SECONDS = 5.0
"""Shorter than a fleet's: a person waits for the answer."""
NEEDS_STORE = (
    "this command looks into the store, and a server does not show that: give --url or MURMUR_URL"
)


_shared = partial(option, rich_help_panel="Options of every command")


@dataclass(frozen=True, slots=True)
class Globals:
    """The shared options, which may stand before or after the command."""

    url: str | None = _shared(
        "--url",
        metavar="URL",
        help="The store of the runs. Default: MURMUR_URL, else the embedded server.",
        shown=False,
    )
    prefix: str | None = _shared(
        "--prefix",
        metavar="PREFIX",
        help="The first part of the keys. Default: MURMUR_KEY_PREFIX.",
    )
    as_json: bool = _shared("--json", help="Print JSON, for programs.", default=False)
    debug: bool = _shared("--debug", help="Show the traceback behind an error.", default=False)
    server: str | None = _shared(
        "--server",
        metavar="URL",
        help="Ask this HTTP server instead. Default: MURMUR_SERVER.",
        shown=False,
    )
    token_file: Path | None = _shared(
        "--token-file",
        metavar="FILE",
        help="A file with the token for the server. Default: MURMUR_TOKEN, MURMUR_TOKEN_FILE.",
    )

    def over(self, other: Globals) -> Globals:
        """These options, completed by ``other``."""
        names = [each.name for each in fields(self)]
        return Globals(**{name: getattr(self, name) or getattr(other, name) for name in names})

    def argv(self) -> list[str]:
        """The options that name a store or a server, for a command that a person repeats."""
        options = {
            "--prefix": self.prefix,
            "--url": self.url and redacted(self.url),
            "--server": self.server and redacted(self.server),
            "--token-file": self.token_file and str(self.token_file),
        }
        return [part for name, value in options.items() if value for part in (name, value)]


def read_secret(path: Path, what: str, *, shortest: int = 0, danger: str = "") -> bytes:
    """Read a file with a secret; a warning is logged when others have access to it.

    Raises:
        StoreConfigurationError: it cannot be read, or is too short.
    """
    try:
        with path.open("rb") as file:
            secret, mode = file.read().strip(), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise StoreConfigurationError(
            f"the {what} {path} cannot be read: {error.strerror}"
        ) from None
    if len(secret) < shortest:
        raise StoreConfigurationError(
            f"the {what} {path} must have {shortest} bytes or more, "
            "such as `openssl rand -base64 32` prints"
        )
    if is_open_to_others(mode):
        logger.warning(
            "others on this machine have access to the %s %s%s: chmod 600 it", what, path, danger
        )
    return secret


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation of a command: its options over the environment's."""

    given: Globals
    settings: Settings

    @classmethod
    def of(cls, given: Globals) -> Session:
        """Read the environment; StoreConfigurationError for a value that breaks its rule."""
        if given.server and (given.url or given.prefix):
            raise StoreConfigurationError(
                "--server asks a server for runs, --url and --prefix look into a store: "
                "leave one of them out"
            )
        return cls(given, Settings.from_environment(os.environ))

    @property
    def as_json(self) -> bool:
        """Whether a program reads the output."""
        return self.given.as_json

    def print(self, value: object, text: str) -> None:
        """Print the outcome of a command: the value as JSON for a program, else the text."""
        if self.as_json:
            print_json(value)
        else:
            print(text, flush=True)

    @property
    def server(self) -> str | None:
        """--server, else MURMUR_SERVER unless --url or --prefix is given; None: use a store."""
        if self.given.url or self.given.prefix:
            return None
        return self.given.server or self.settings.server

    @property
    def token(self) -> str | None:
        """The token in --token-file, else MURMUR_TOKEN, else the one in MURMUR_TOKEN_FILE.

        Raises:
            StoreConfigurationError: the file cannot be read.
        """
        if self.given.token_file is None and self.settings.token is not None:
            return self.settings.token
        path = self.given.token_file or self.settings.token_file
        if path is None:
            return None
        try:
            return read_secret(path, "token file").decode("utf-8-sig")
        except UnicodeDecodeError:
            raise StoreConfigurationError(
                f"the token file {path} cannot be read: it is not text"
            ) from None

    def check_is_store(self, *, may_be_new: bool = False) -> None:
        """Refuse anything that is not a store which other processes can reach.

        Args:
            may_be_new: whether a missing file may be created. A command that only reads must not:
                it would create an empty store under a mistyped name, and find nothing in it.

        Raises:
            StoreConfigurationError: the runs are behind a server, or in one process's memory, or
                the file does not exist.
        """
        if self.server is not None and self.settings.url is None:
            raise StoreConfigurationError(NEEDS_STORE)
        if self.url.startswith("memory:"):
            raise StoreConfigurationError(
                "memory: lives inside one process, and this is another one; "
                "give --url or MURMUR_URL a server, or neither for the embedded one"
            )
        if self.given.prefix and kind_on_disk(self.url):
            raise StoreConfigurationError(
                "--prefix is what Redis keys begin with, and these runs are in a file: leave it out"
            )
        if not may_be_new and not self.store_exists:
            raise StoreConfigurationError(f"no store exists at {self.path}")

    @property
    def path(self) -> Path | None:
        """The file or folder of the store; None for a store on a server.

        Raises:
            StoreConfigurationError: the URL should name one, and does not.
        """
        return path_on_disk(self.url)

    @property
    def store_exists(self) -> bool:
        """False when the store is a file or folder that does not exist yet."""
        path = self.path
        try:
            return path is None or bool(path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            # Opening the store will raise the error that says why.
            return True

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
    async def store(
        self, partitions: int | None = None, *, may_be_new: bool = False
    ) -> AsyncGenerator[WorkStore]:
        """Open the store; it is closed at the end of the block.

        Args:
            partitions: None is the setting.
            may_be_new: whether a missing file is created.

        Raises:
            StoreConfigurationError: the store does not exist.
        """
        self.check_is_store(may_be_new=may_be_new)
        options = default_options(self.url, self.settings) | self.redis_options
        if partitions is not None:
            options["partitions"] = partitions
        store = await open_work_store(self.url, options)
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def redis_store(self, partitions: int | None = None) -> AsyncGenerator[RedisRunStore]:
        """The same for a command that reads Redis keys.

        Raises:
            StoreConfigurationError: the runs are in a file, or behind a server.
        """
        kind = kind_on_disk(self.url)
        if kind is not None:
            raise StoreConfigurationError(
                f"this command looks at Redis keys; this store is {kind}, which has none"
            )
        async with self.store(partitions) as store:
            yield redis_only(store)

    @property
    def redis_options(self) -> dict[str, Any]:
        """The options for a Redis store beside the defaults; empty for a store on disk."""
        if kind_on_disk(self.url):
            return {}
        return {"key_prefix": self.prefix, "retry_seconds": RETRY_SECONDS}

    def to_environment(self) -> dict[str, str]:
        """The options as variables, for the user's code and for child processes."""
        given = {"MURMUR_URL": self.given.url, "MURMUR_KEY_PREFIX": self.given.prefix}
        return {name: value for name, value in given.items() if value}
