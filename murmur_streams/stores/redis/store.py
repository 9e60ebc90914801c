"""RedisRunStore: the interface over the scripts and the tails."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any, Self, cast

from murmur_streams.core.archive.run_archive import RunArchive, restorable
from murmur_streams.core.model import run
from murmur_streams.core.model.commands import Append, Command, SetState
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError, StoreConfigurationError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.feed import FeedEntry
from murmur_streams.core.model.limits import (
    Limits,
    check_max_events,
    check_run_id,
    check_target,
    duration_ms,
)
from murmur_streams.core.model.results import RunResult, decode_result
from murmur_streams.core.model.states import RunState, RunStatus
from murmur_streams.core.redaction import redacted
from murmur_streams.core.rules.audit import AuditReport
from murmur_streams.core.rules.decide import Answer
from murmur_streams.core.rules.executions import check_answer
from murmur_streams.settings import DAY_SECONDS
from murmur_streams.stores.redis import replies
from murmur_streams.stores.redis.audit import gather_audit
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.connection.maker import AnyClient
from murmur_streams.stores.redis.connection.topology import partitions_of
from murmur_streams.stores.redis.connection.urls import client_of
from murmur_streams.stores.redis.dead import RedisDeadLetters
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.ends import EndWaits
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.listing import list_runs
from murmur_streams.stores.redis.live.feed import Feeds
from murmur_streams.stores.redis.live.tail import RedisTails
from murmur_streams.stores.redis.owners import Owners, new_owner, sweep
from murmur_streams.stores.redis.pauses import Pauses
from murmur_streams.stores.redis.queue import Queue
from murmur_streams.stores.redis.replication import Durability
from murmur_streams.stores.redis.restoring import archive_run, rebuild_run, restore_run
from murmur_streams.stores.redis.rewinds import OnRewind
from murmur_streams.stores.redis.server import CALL_SECONDS, Revive, Server
from murmur_streams.stores.redis.workers import Workers
from murmur_streams.stores.redis.writer import Writer
from murmur_streams.stores.timing import wall_clock_ms
from murmur_streams.stores.work_store import NoteState, WorkStore


class RedisRunStore(WorkStore):
    """Runs in Redis or Valkey, shared by every process that names the same server and prefix.

    Guarantees: a write that returned is in the journal exactly once. A write that raised
    OutcomeUnknownError was applied at most once. Every other error means that nothing was
    written. Whether the journal survives a crash of the machine is up to the server's persistence.

    Args:
        url: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://; exactly one of it
            and ``client``.
        client: the caller's client (``Redis``, also one of Sentinels, or ``RedisCluster``), which
            the caller closes; the store's own connections use its addresses and credentials.
        key_prefix: the beginning of every key.
        ttl_seconds: how long an ended run stays; 0 or less means for ever.
        partitions: over how many hash tags new runs are spread. The first program that uses the
            prefix records its number; None takes that, and records 16 on a cluster and 1 elsewhere.
            A number that was not recorded is refused.
        max_events: the journal's cap, at least 1,000: about this many of the last entries stay.
            0 for no cap.
        live_ttl_seconds: how long a live run may go without a write before a sweep fails it; 0 for
            ever.
        owner_lease_seconds: for programs without workers. The store extends the leases of runs
            that it sets running, in the background. When it is gone (or closed) and a run got no
            write for so long, any store with this option fails it with the error ``owner_lost``.
        late_event_seconds: how long after the end of a run its closing event may still come.
        retry_seconds: how long a call retries a broken connection, at most 300; the first
            connection of all gets 5 seconds.
        call_seconds: how long one try of a call may take before its connection counts as broken.
        durability: ``primary``: a write returns when the primary has it. ``replicated``: when every
            replica that keeps up has it, too, and at least one.
        read_only: the store never writes, and its user needs only the right to read: every call
            that would change something raises StoreConfigurationError.
        on_rewind: called with the ids of runs when the server has lost writes to them that it had
            acknowledged to this store. The next write that continues one of these runs raises
            StoreRewoundError.
        limits: sizes of events, inputs and results.
        clock: milliseconds of Unix time, for entry ids.
        revive: called before each retry; starts an embedded server again.
    """

    def __init__(  # noqa: PLR0913  # the interface's, and one keyword for each setting
        self,
        url: str | None = None,
        *,
        client: AnyClient | None = None,
        key_prefix: str = "murmur:runs",
        ttl_seconds: float = 3600,
        partitions: int | None = None,
        max_events: int = 100_000,
        live_ttl_seconds: float = 30 * DAY_SECONDS,
        owner_lease_seconds: float | None = None,
        late_event_seconds: float = 2.0,
        feed_max_entries: int = 10_000,
        retry_seconds: float = 60.0,
        call_seconds: float = CALL_SECONDS,
        durability: Durability = "primary",
        read_only: bool = False,
        on_rewind: OnRewind | None = None,
        limits: Limits | None = None,
        clock: Callable[[], int] = wall_clock_ms,
        revive: Revive | None = None,
    ) -> None:
        self._client, self._owns_client = client_of(url, client), client is None
        self._limits = limits or Limits()
        self._keys = Keys(key_prefix, partitions_of(self._client, partitions))
        self._server = Server(
            self._client,
            self._keys,
            where=redacted(url) if url is not None else "the given client's server",
            read_only=read_only,
            is_number_given=partitions is not None,
            retry_seconds=retry_seconds,
            call_seconds=call_seconds,
            revive=revive,
        )
        self._locator = self._server.locator
        self._durations = Durations(
            ttl_ms=duration_ms("ttl_seconds", ttl_seconds),
            live_ttl_ms=duration_ms("live_ttl_seconds", live_ttl_seconds),
            late_event_ms=duration_ms("late_event_seconds", late_event_seconds),
            feed_max_entries=feed_max_entries,
            max_events=check_max_events(max_events),
            owner=new_owner(owner_lease_seconds),
        )
        self._writer = Writer(self._server, self._durations, clock, durability, on_rewind)
        self._calls = Calls(self._writer, self._durations)
        self._tails = RedisTails(self._server, self._durations, self._execute)
        self._feeds, self._ends = Feeds(self._server), EndWaits(self._server)
        self._owners, self._pauses = Owners(self._server, self._durations), Pauses(self._server)

    @property
    def client(self) -> AnyClient:
        """The client that was given, or made for the URL."""
        return self._client

    @property
    def where(self) -> str:
        return self._server.where

    async def __aenter__(self) -> Self:
        await self._server.ready()
        return self

    async def close(self) -> None:
        """Finish the writes under way, wake every subscriber, and close the store's connections."""
        if self._server.closed:
            return
        await self._owners.close()
        await self._writer.close(seconds=5.0)
        await self._feeds.close()
        await self._tails.close()
        await self._server.close()
        if self._owns_client:
            await self._client.aclose()

    async def get_status(self, run_id: str) -> RunStatus:
        return await self._locator.find(check_run_id(run_id), lambda: self._status(run_id))

    async def _status(self, run_id: str) -> RunStatus:
        fields = replies.STATUS_FIELDS
        values = await self._server.read("HMGET", self._keys.run(run_id), *fields)
        return replies.read_status(run_id, values)

    async def snapshot(self, run_id: str) -> run.Run:
        return await self._locator.find(check_run_id(run_id), lambda: self._snapshot(run_id))

    async def _snapshot(self, run_id: str) -> run.Run:
        flat = await self._server.read("HGETALL", self._keys.run(run_id))
        if not flat:
            raise RunNotFoundError(run_id)
        return run.run_from_fields(run_id, replies.pairs(flat))

    async def result_at_end(self, run_id: str, note: NoteState) -> RunResult | None:
        if self._ends.is_full:
            return await super().result_at_end(run_id, note)
        check_run_id(run_id)
        stored = await self._locator.find(run_id, lambda: self._ends.wait(run_id, note))
        if stored is None:
            return None
        return run.read_payload(run_id, run.PayloadKind.RESULT, decode_result, stored)

    async def _list(self, wanted: run.RunFilter, limit: int, cursor: str | None) -> run.RunPage:
        return await list_runs(self._server, wanted, limit, cursor)

    def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        return self._tails.events(run_id, after)

    def journal(
        self, run_id: str, *, after: str | None = None, follow: bool = False
    ) -> AsyncGenerator[JournalEntry]:
        return self._tails.journal(run_id, after, follow=follow)

    def feed(
        self,
        *,
        after: str | None = None,
        targets: Collection[str] | None = None,
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[FeedEntry]:
        return self._feeds.read(after, targets, types)

    async def audit(self, run_id: str) -> AuditReport:
        check_run_id(run_id)
        return await self._locator.find(run_id, lambda: gather_audit(self._server, run_id))

    async def rebuild(self, run_id: str) -> None:
        check_run_id(run_id)
        await self._locator.find(run_id, lambda: rebuild_run(self._server, self._durations, run_id))

    async def archive(self, run_id: str) -> RunArchive:
        check_run_id(run_id)
        return await self._locator.find(run_id, lambda: archive_run(self._server, run_id))

    async def restore(self, archive: RunArchive) -> bool:
        return await restore_run(self._server, self._calls, archive, restorable(archive))

    async def sweep(self) -> int:
        return await sweep(self._server, self._durations)

    @property
    def live_ttl_ms(self) -> int:
        return self._durations.live_ttl_ms

    def queue(self, lease_seconds: float) -> Queue:
        return Queue(self._server, self._calls, self._durations, lease_seconds)

    def workers(self, interval_seconds: float = 5.0) -> Workers:
        return Workers(self._server, interval_seconds)

    def dead_letters(self) -> RedisDeadLetters:
        return RedisDeadLetters(self._server, self._calls, self._limits)

    @property
    def rewinds(self) -> int:
        return self._writer.rewinds.count

    @property
    def warnings(self) -> dict[str, str]:
        return self._server.use.warnings.texts()

    async def recover(self, attempt: int) -> None:
        await self._server.recover(attempt)

    async def ping(self) -> None:
        await self._server.ping()

    async def pause(self, target: str) -> None:
        await self._pauses.pause(check_target(target))

    async def resume(self, target: str) -> None:
        await self._pauses.resume(check_target(target))

    async def paused(self) -> set[str]:
        return await self._pauses.paused()

    async def lease_left_ms(self, run_id: str) -> int | None:
        await self._locator.locate(check_run_id(run_id))
        leases = self._keys.leases(self._keys.partition(run_id))
        until, clock = await self._server.read_all(("ZSCORE", leases, run_id), ("TIME",))
        return None if until is None else int(float(until)) - replies.clock_ms(clock)

    async def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        await self._locator.locate(check_run_id(run_id))
        epoch, page = await self._server.read_all(
            ("HGET", self._keys.run(run_id), "epoch"),
            ("XREVRANGE", self._keys.journal(run_id), "+", "-", "COUNT", count),
        )
        if epoch is None:
            return []
        raws, life = cast("list[Any]", page), replies.text(epoch)
        return [replies.read_entry(run_id, life, raw) for raw in reversed(raws)]

    async def check_feed_cursor(self, after: str) -> None:
        await self._feeds.check(after)

    async def _payload(self, run_id: str, kind: run.PayloadKind) -> str | None:
        return await self._locator.find(run_id, lambda: self._stored_payload(run_id, kind))

    async def _stored_payload(self, run_id: str, kind: run.PayloadKind) -> str | None:
        keys = self._keys
        form = {"input": keys.input, "result": keys.result, "checkpoint": keys.checkpoint}[kind]
        stored, exists = await self._server.read_all(
            ("GET", form(run_id)), ("EXISTS", keys.run(run_id))
        )
        if not exists:
            raise RunNotFoundError(run_id)
        return replies.text_or_none(stored)

    async def _execute(
        self, run_id: str, command: Command, result: RunResult | None = None
    ) -> Answer:
        del result  # Redis keeps its JSON, which the command has.
        check_run_id(run_id)
        if isinstance(command, SetState) and command.state is RunState.RUNNING:
            self._owners.take(run_id)
        answer = await self._calls.execute(run_id, command)
        if answer[0] == "NOT_FOUND" and await self._locator.has_moved(run_id):
            answer = await self._calls.execute(run_id, command)
        expected = command.expected_version if isinstance(command, Append) else None
        return check_answer(answer, run_id, expected)


def server_of(store: WorkStore) -> Server:
    """The server behind a Redis store, for code that works with its keys.

    Raises:
        StoreConfigurationError: the store is of another kind.
    """
    return redis_only(store)._server  # pyright: ignore[reportPrivateUsage]  # the only way from outside


def redis_only(store: WorkStore) -> RedisRunStore:
    """The same store, for code that works with Redis keys.

    Raises:
        StoreConfigurationError: the store is of another kind.
    """
    if isinstance(store, RedisRunStore):
        return store
    kind = type(store).__name__.removesuffix("RunStore")
    raise StoreConfigurationError(f"this looks at Redis keys; this store is {kind} ({store.where})")
