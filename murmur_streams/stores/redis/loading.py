"""Loads the scripts into a server: as a library of functions, or one by one.

A function runs in half the time of a script: a script makes all its local functions anew in each
call. Servers before 7.0 have no functions, and some managed servers refuse to load any. Whatever
prevents it, the scripts serve instead, with the same meaning.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from redis.exceptions import RedisError

from murmur_streams.settings import DAY_SECONDS
from murmur_streams.stores.redis.connection.connections import Connections, Reply
from murmur_streams.stores.redis.connection.failures import NeverSentError, is_not_found
from murmur_streams.stores.redis.replies import pairs
from murmur_streams.stores.redis.scripts import (
    FREEING_COMMIT,
    LOADED,
    load_commands,
    load_library,
    load_scripts,
)

logger = logging.getLogger("murmur_streams.redis")

STAMP_MS = DAY_SECONDS * 1000
UNUSED_MS = 7 * STAMP_MS
"""After this time a library of another version, which no program has stamped since, is removed."""
_STAMP = "library:"


class Loader:
    """Knows how one store's server is called, and loads what that needs.

    Args:
        connections: to the server.
        is_cluster: whether it is a node of a cluster, where scripts wake workers in another way.
    """

    def __init__(self, connections: Connections, *, is_cluster: bool = False) -> None:
        self._connections = connections
        self._is_cluster = is_cluster
        self.uses_functions = False
        self._functions: dict[str, str] = {}
        """The names of functions that were called, by script."""
        self._stamped_ms = 0

    async def find_functions(self) -> None:
        """Find out, by trying, whether the server has the library or takes it."""
        library = load_library(is_cluster=self._is_cluster)
        loaded = ("FCALL", library.function(LOADED), 0)
        [found] = await self._connections.every_reply([loaded])
        if isinstance(found, RedisError) and is_not_found(found):
            # It fails where another program has loaded the library in the same moment, too.
            commands: list[tuple[object, ...]] = [("FUNCTION", "LOAD", library.text), loaded]
            _, found = await self._connections.every_reply(commands)
        self.uses_functions = not isinstance(found, RedisError)
        if not self.uses_functions:
            logger.debug("the server has no functions, scripts are used: %s", found)

    def first_commands(self) -> list[tuple[object, ...]]:
        """What a new connection sends first, so that its calls find their scripts.

        Never nothing: a TLS server sends session tickets after the handshake, and until a reply was
        read they make a new connection look like one that the server has closed.
        """
        return [("PING",)] if self.uses_functions else load_commands(is_cluster=self._is_cluster)

    def command(
        self, script: str, keys: Sequence[str], arguments: Sequence[object]
    ) -> tuple[object, ...]:
        """The command that executes a script."""
        if self.uses_functions:
            function = self._functions.get(script)
            if function is None:
                function = load_library(is_cluster=self._is_cluster).function(script)
                self._functions[script] = function
            return ("FCALL", function, len(keys), *keys, *arguments)
        # Without functions, what a script writes first decides whether it is executed while the
        # server has no free memory.
        sha = load_scripts(is_cluster=self._is_cluster)[
            "commit" if script == FREEING_COMMIT else script
        ].sha
        return ("EVALSHA", sha, len(keys), *keys, *arguments)

    def probe(self) -> tuple[object, ...]:
        """A command that shows whether the scripts are loaded."""
        if self.uses_functions:
            return ("FCALL", load_library(is_cluster=self._is_cluster).function(LOADED), 0)
        return (
            "SCRIPT",
            "EXISTS",
            *(script.sha for script in load_scripts(is_cluster=self._is_cluster).values()),
        )

    def is_stamp_due(self, now_ms: int) -> bool:
        """Whether a day has passed since this program looked at the stamps."""
        return self.uses_functions and now_ms - self._stamped_ms >= STAMP_MS

    async def stamp(self, meta: str, now_ms: int) -> None:
        """Note that the library is in use, and remove those that no program uses.

        A server keeps libraries for ever, and each version of this package has its own. Programs
        stamp theirs once a day. A library that is removed although a program with another key
        prefix uses it is loaded again by that program's next call.

        Args:
            meta: the key of the hash that has the stamps.
            now_ms: Unix milliseconds.
        """
        if not self.uses_functions:
            return
        own = f"{_STAMP}{load_library(is_cluster=self._is_cluster).name}"
        try:
            stored = pairs(await self._connections.call("HGETALL", meta))
            if now_ms - int(stored.get(own, 0)) >= STAMP_MS:
                await self._connections.call("HSET", meta, own, now_ms)
            for field, stamped in stored.items():
                is_library = field.startswith(_STAMP) and field != own
                if is_library and now_ms - int(stamped) >= UNUSED_MS:
                    await self._remove(meta, field)
        except (RedisError, NeverSentError, OSError, ValueError) as error:
            logger.debug("the use of the library was not noted: %s", error)
        else:
            self._stamped_ms = now_ms

    async def _remove(self, meta: str, field: str) -> None:
        [removed] = await self._connections.every_reply(
            [("FUNCTION", "DELETE", field.removeprefix(_STAMP))]
        )
        # A user without the right leaves the stamp for a program that has it.
        if not isinstance(removed, RedisError) or "not found" in str(removed):
            await self._connections.call("HDEL", meta, field)


def is_complete(reply: Reply) -> bool:
    """Whether the reply to ``Loader.probe`` says that all scripts are loaded."""
    return all(cast("list[object]", reply)) if isinstance(reply, list) else bool(reply)
