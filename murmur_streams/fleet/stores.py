"""One store for each event loop: opened at first use, never shared across loops or forks.

And the look for live workers of a submission's target, which does not delay the submission.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from murmur_streams.core.model.errors import InvalidInputError, StoreConfigurationError
from murmur_streams.settings import Settings
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.stores.local.engine.store import LocalOptions
from murmur_streams.stores.open import open_store
from murmur_streams.stores.own_tasks import start_task
from murmur_streams.stores.redis.connection.maker import AnyClient
from murmur_streams.stores.redis.connection.topology import check_client
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.threads import call_in_thread

_NOT_OPTIONS = frozenset({"url", "client", "revive"})
"""Parameters of RedisRunStore that are not options of a fleet."""
_ON_DISK = {"sqlite": "SQLite", "rocksdb": "RocksDB"}
_MEMORY = "memory"


class StoreOfLoop:
    """Opens one store per process and event loop at first use.

    Args:
        source: the store's URL, or a client, of which every store uses the addresses, credentials
            and options alone; None for the URL of the environment.
        options: for the store.

    Raises:
        TypeError: the store has no such option.
    """

    def __init__(self, source: str | AnyClient | None, options: Mapping[str, Any]) -> None:
        _check(source, options)
        self._source = source
        self._options = options
        self._opened: dict[tuple[int, asyncio.AbstractEventLoop], asyncio.Task[WorkStore]] = {}
        """By process and loop. A forked child keeps references to its parent's stores and never
        uses or closes them: closing them would unregister the parent's sockets."""
        self._in_use: Counter[tuple[int, asyncio.AbstractEventLoop]] = Counter()
        """How many ``keep_open`` blocks each loop has."""

    async def get(self) -> WorkStore:
        """The running loop's store.

        Raises:
            StoreConfigurationError, StoreUnavailableError: it cannot be opened.
        """
        here = _here()
        known = self._opened.get(here)
        if known is None or _failed(known):
            self._forget_closed_loops()
            known = self._opened[here] = start_task(self._open(), "open the store")
        elif known.done():
            return known.result()
        return await asyncio.shield(known)

    @contextmanager
    def keep_open(self) -> Generator[None]:
        """Keep the running loop's store open while the block runs: ``close`` has no effect."""
        here = _here()
        self._in_use[here] += 1
        try:
            yield
        finally:
            self._in_use[here] -= 1

    async def close(self) -> None:
        """Close the running loop's store, unless a ``keep_open`` block is under way."""
        if self._in_use[_here()]:
            return
        known = self._opened.pop(_here(), None)
        if known is not None and not _failed(known):
            await (await known).close()

    def _forget_closed_loops(self) -> None:
        for pid, loop in list(self._opened):
            if pid == os.getpid() and loop.is_closed():
                # With a default, because another thread may remove the same entry.
                self._opened.pop((pid, loop), None)

    async def _open(self) -> WorkStore:
        settings = Settings.from_environment(os.environ)
        source = self._source or settings.url or "embedded:"
        _check(source, self._options)
        if _scheme(source) == _MEMORY:
            self._check_is_alone()
        options = {**default_options(source, settings), **self._options}
        return await open_work_store(source, options)

    def _check_is_alone(self) -> None:
        """Refuse a second event loop or process for runs in memory: it would see none of them."""
        here = _here()
        if any(each != here and not each[1].is_closed() for each in self._opened):
            raise StoreConfigurationError(
                "the runs of memory: belong to another event loop or process, which has this fleet "
                "open: use the fleet there, or take a store that both can open, such as "
                "sqlite:runs.db"
            )


def source_of(url: object, client: AnyClient | None) -> str | AnyClient | None:
    """Where a fleet's runs are: a URL or a client; None for the URL of the environment.

    Raises:
        InvalidInputError: the URL is not text, the client is not one of redis.asyncio, or both are
            given.
        StoreConfigurationError: the client reads from replicas.
    """
    if client is not None:
        check_client(client)
    if url is None:
        return client
    if not isinstance(url, str):
        raise InvalidInputError(
            f"url is {url!r}, but must be text such as redis://localhost:6379/0, or None"
        )
    if client is not None:
        raise InvalidInputError("a fleet takes a url or a client, not both: leave one of them out")
    return url


def kind_on_disk(url: str) -> str | None:
    """SQLite or RocksDB for the URL of a file or folder, else None."""
    return _ON_DISK.get(_scheme(url))


def default_options(source: str | AnyClient, settings: Settings) -> dict[str, Any]:
    """The options that the MURMUR_* variables set for the store of a URL or client."""
    lifetimes: dict[str, Any] = {
        "ttl_seconds": settings.ttl_seconds,
        "live_ttl_seconds": settings.live_ttl_seconds,
    }
    if _is_local(source):
        return lifetimes
    names = ("key_prefix", "partitions", "durability", "read_only")
    return lifetimes | {name: getattr(settings, name) for name in names}


async def open_work_store(source: str | AnyClient, options: Mapping[str, Any]) -> WorkStore:
    """Open a store for a fleet: that of a URL, or one with a client's settings.

    Raises:
        StoreConfigurationError, StoreUnavailableError: it cannot be opened.
    """
    if not isinstance(source, str):
        return RedisRunStore(client=source, **options)
    # In a thread: an embedded server may have to be started.
    store = await call_in_thread("open a store", lambda: open_store(source, **options))
    if isinstance(store, FileRunStore):
        # An unreachable server may come back; a file that cannot be opened is reported at once.
        await store.ping()
    return store


def _check(source: object, options: Mapping[str, Any]) -> None:
    """Check where the fleet is made, and not at its first submission, in another file."""
    known = _options_of(source)
    for name in options:
        if name not in known:
            why = _whose(name, source) if isinstance(source, str) else ""
            raise TypeError(f"a Fleet has no option {name!r}; it has: {', '.join(known)}{why}")


def _options_of(source: object) -> list[str]:
    """The options of the store of a URL or client; without either, those of every store."""
    local, redis = [*LocalOptions.__annotations__, "sync"], _options_of_redis()
    if source is None:
        return [*dict.fromkeys(redis + local)]
    if _scheme(source) == _MEMORY:
        local.remove("sync")
    return local if _is_local(source) else redis


def _options_of_redis() -> list[str]:
    known = inspect.signature(RedisRunStore).parameters
    return [name for name in known if name not in _NOT_OPTIONS]


def _whose(name: str, url: str) -> str:
    """Why an option of other fleets does not exist here."""
    if not _is_local(url) or name not in _options_of_redis():
        return ""
    kind = kind_on_disk(url) or "memory"
    return f"; {name} is an option of Redis's, and this URL names {kind}"


def _is_local(source: object) -> bool:
    return _scheme(source) in {_MEMORY, *_ON_DISK}


def _scheme(source: object) -> str:
    """The scheme of a URL; "" for a client."""
    return source.partition(":")[0].strip().lower() if isinstance(source, str) else ""


def _here() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()


def _failed(task: asyncio.Task[WorkStore]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


logger = logging.getLogger("murmur_streams.fleet")

EVERY_SECONDS = 60.0
"""A process looks for workers of one target at most once in this time."""
LOOK_SECONDS = 5.0
"""The limit of one look."""
SECOND_LOOK_SECONDS = 0.1
"""A worker that this program has just started gets this time to register."""
MOST_TARGETS = 1_000
"""How many targets are remembered: a fleet without agents submits to any name."""


def unserved_warning(target: str) -> str:
    """The warning for the submitter of a run."""
    return (
        f"no live worker serves {target!r}: its runs wait until one does; start one with "
        "`murmur-streams worker`, or compare the name with those in `murmur-streams workers`"
    )


class UnservedTargets:
    """Looks for workers of the targets that a fleet submits to, and logs when it finds none."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._looked: dict[str, float] = {}
        self._looks: set[asyncio.Task[str | None]] = set()

    def look(self, store: WorkStore, target: str) -> asyncio.Task[str | None] | None:
        """Begin to look for a worker; None when that was done within the last minute.

        The task returns a warning, or None when a worker exists or the store did not reply. It
        raises nothing.
        """
        now = self._now()
        last = self._looked.get(target)
        if last is not None and now - last < EVERY_SECONDS:
            return None
        if len(self._looked) >= MOST_TARGETS:
            self._looked.clear()
        self._looked[target] = now
        task = start_task(_warn(store, target), "look for a worker")
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        return task

    async def settle(self) -> None:
        """Wait for the looks of the running loop, so that a short program gets its warning."""
        here = asyncio.get_running_loop()
        looks = [task for task in self._looks if task.get_loop() is here]
        if looks:
            await asyncio.wait(looks)


async def _warn(store: WorkStore, target: str) -> str | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            if await _is_served(store, target):
                return None
            await asyncio.sleep(SECOND_LOOK_SECONDS)
            if await _is_served(store, target):
                return None
    except Exception as error:  # noqa: BLE001  # the run is submitted, and the look must not fail that
        logger.debug("no look for workers of %s: %r", target, error)
        return None
    warning = unserved_warning(target)
    logger.warning("%s", warning)
    return warning


async def _is_served(store: WorkStore, target: str) -> bool:
    workers = await store.workers().list()
    return any(target in each.targets and each.state != "draining" for each in workers)
