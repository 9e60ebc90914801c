"""The part of the Redis store for workers and for the care of their work."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.identifiers import check_run_id, check_target
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.run import PayloadKind
from murmur_streams.stores.redis.calls import Calls, Durations
from murmur_streams.stores.redis.dead import RedisDeadLetters
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.live.feed import Feeds
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.replies import clock_ms, read_entry, text, text_or_none
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.workers import Workers
from murmur_streams.stores.work_store import WorkStore


class RedisWork(WorkStore):
    """The queue, the worker list, the dead letters, and reads for the care of queued runs."""

    _keys: Keys
    _server: Server
    _calls: Calls
    _durations: Durations
    _feeds: Feeds
    _limits: Limits

    @property
    def live_ttl_ms(self) -> int:
        """How long a live run may go without a write; 0 for ever."""
        return self._durations.live_ttl_ms

    def queue(self, lease_seconds: float) -> Queue:
        """The queue for workers; a claim holds for ``lease_seconds`` without a heartbeat."""
        return Queue(self._server, self._calls, self._durations, lease_seconds)

    def workers(self, interval_seconds: float = 5.0) -> Workers:
        """The list of live workers, each of which reports once in an interval."""
        return Workers(self._server, interval_seconds)

    def dead_letters(self) -> RedisDeadLetters:
        """The runs that failed for good."""
        return RedisDeadLetters(self._server, self._calls, self._limits)

    @property
    def warning(self) -> str | None:
        """Advice about a server that works, such as its eviction policy; None without any."""
        return self._server.preparation.eviction.warning

    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, to two seconds."""
        await self._server.recover(attempt)

    async def ping(self) -> None:
        """Check that the server answers and has the scripts; load them if it has not."""
        await self._server.ping()

    async def pause(self, target: str) -> None:
        """Keep workers from starting runs of this target; running ones continue."""
        await self._in_every_partition("pause", check_target(target))

    async def resume(self, target: str) -> None:
        """Let workers start runs of this target again, and wake some."""
        await self._in_every_partition("resume", check_target(target))

    async def paused(self) -> set[str]:
        """The targets that are paused in any partition; an interrupted pause counts."""
        rows = [self._keys.paused(partition) for partition in self._keys.all_partitions]
        replies = await self._server.read_all(*(("SMEMBERS", row) for row in rows))
        return {text(target) for reply in replies for target in reply}

    async def lease_left_ms(self, run_id: str) -> int | None:
        """How long the run's lease still holds, negative when it ran out; None without a lease."""
        leases = self._keys.leases(self._keys.partition(check_run_id(run_id)))
        until, clock = await self._server.read_all(("ZSCORE", leases, run_id), ("TIME",))
        return None if until is None else int(float(until)) - clock_ms(clock)

    async def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        """The newest entries of the journal, oldest first; empty when the run does not exist."""
        epoch, page = await self._server.read_all(
            ("HGET", self._keys.run(check_run_id(run_id)), "epoch"),
            ("XREVRANGE", self._keys.journal(run_id), "+", "-", "COUNT", count),
        )
        if epoch is None:
            return []
        return [read_entry(run_id, text(epoch), raw) for raw in reversed(cast("list[Any]", page))]

    async def check_feed_cursor(self, after: str) -> None:
        """Reject a cursor after which the feed cannot continue, without waiting for entries.

        Raises:
            InvalidCursorError, CursorGapError, CursorResetError: as the feed.
        """
        await self._feeds.check(after)

    async def _in_every_partition(self, script: str, target: str) -> None:
        calls = [
            self._server.idempotent_script(
                script, [self._keys.base(partition)], [target, str(self._keys.partitions)]
            )
            for partition in self._keys.all_partitions
        ]
        await asyncio.gather(*calls)

    async def _payload(self, run_id: str, kind: PayloadKind) -> str | None:
        keys = self._keys
        form = {
            PayloadKind.INPUT: keys.input,
            PayloadKind.RESULT: keys.result,
            PayloadKind.CHECKPOINT: keys.checkpoint,
        }[kind]
        stored, exists = await self._server.read_all(
            ("GET", form(run_id)), ("EXISTS", keys.run(run_id))
        )
        if not exists:
            raise RunNotFoundError(run_id)
        return text_or_none(stored)
