"""RedisRunStore: the interface over the scripts and the tails."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue
from redis.asyncio import Redis

from murmur_streams.core.answers import check_answer
from murmur_streams.core.audit import AuditReport
from murmur_streams.core.commands import (
    Append,
    Command,
    Delete,
    Finish,
    PushEvent,
    Release,
    Seal,
    SetResult,
    SetState,
    UpdateProgress,
)
from murmur_streams.core.cursors import Cursor
from murmur_streams.core.decide import Answer
from murmur_streams.core.entries import Fields, JournalEntry, event_fields
from murmur_streams.core.errors import RunNotFoundError
from murmur_streams.core.events import RunEvent
from murmur_streams.core.identifiers import check_run_id
from murmur_streams.core.json_values import decode_json
from murmur_streams.core.limits import (
    Limits,
    check_end,
    check_event_count,
    check_expected_version,
    check_progress,
    check_state,
    error_text,
)
from murmur_streams.core.requests import create_command
from murmur_streams.core.result_codec import decode_result, encode_result
from murmur_streams.core.results import RunResult
from murmur_streams.core.run import Run, run_from_fields
from murmur_streams.core.states import RunProgress, RunState, RunStatus
from murmur_streams.stores.redis.audit import gather_audit
from murmur_streams.stores.redis.calls import Calls, Durations
from murmur_streams.stores.redis.connections import client_from_url, redacted
from murmur_streams.stores.redis.keys import PARTITION, Keys
from murmur_streams.stores.redis.server import CALL_SECONDS, Revive, Server, text
from murmur_streams.stores.redis.tail import Tails
from murmur_streams.stores.redis.writer import Writer

DAY_SECONDS = 86_400
SWEEP_PAGE = 200
STATUS_FIELDS = (
    "state",
    "progress_total",
    "progress_completed",
    "progress_failed",
    "progress_running",
)


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class RedisRunStore:
    """Runs in Redis or Valkey, shared by every process that names the same server and prefix.

    Guarantees: a write that returned is in the journal exactly once; a write that raised
    OutcomeUnknownError is there once or not at all; every other error means that nothing was
    written. What "in the journal" is worth when a machine dies is the server's persistence.

    Args:
        url: redis://, rediss:// or unix://; exactly one of ``url`` and ``client``.
        client: a client of the caller's, which stays the caller's to close; the store's own
            connections share its address and credentials.
        key_prefix: what every key begins with.
        ttl_seconds: how long an ended run is kept; 0 or less means for ever.
        live_ttl_seconds: how long a run is kept that nobody writes to.
        late_event_seconds: how long after the end a closing event may still come.
        retry_seconds: how long a broken connection is retried before a call gives up; the first
            connection of all is given 5 seconds.
        call_seconds: how long one try of a call may take before its connection counts as broken.
        limits: sizes of events, inputs and results.
        clock: milliseconds of Unix time, for entry ids.
        revive: called before each retry; starts an embedded server again.
    """

    def __init__(  # noqa: PLR0913  # the interface's, and one keyword for each setting
        self,
        url: str | None = None,
        *,
        client: Redis | None = None,
        key_prefix: str = "murmur:runs",
        ttl_seconds: float = 3600,
        live_ttl_seconds: float = 30 * DAY_SECONDS,
        late_event_seconds: float = 2.0,
        feed_max_entries: int = 10_000,
        retry_seconds: float = 60.0,
        call_seconds: float = CALL_SECONDS,
        limits: Limits | None = None,
        clock: Callable[[], int] = _wall_clock_ms,
        revive: Revive | None = None,
    ) -> None:
        if (url is None) == (client is None):
            raise ValueError("pass exactly one of url= and client=")
        self._client = client if client is not None else client_from_url(url or "")
        self._owns_client = client is None
        self._limits = limits or Limits()
        self.keys = Keys(key_prefix)
        self.where = redacted(url) if url is not None else "the given client's server"
        self.server = Server(
            self._client,
            self.keys,
            where=self.where,
            retry_seconds=retry_seconds,
            call_seconds=call_seconds,
            revive=revive,
        )
        self.durations = Durations(
            ttl_ms=max(0, round(ttl_seconds * 1000)),
            live_ttl_ms=max(0, round(live_ttl_seconds * 1000)),
            late_event_ms=max(0, round(late_event_seconds * 1000)),
            feed_max_entries=feed_max_entries,
        )
        self._writer = Writer(self.server)
        self.calls = Calls(self._writer, self.keys, self.durations, clock)
        self._tails = Tails(self.server, self._seal)

    @property
    def client(self) -> Redis:
        """The client that was given, or made for the URL."""
        return self._client

    async def __aenter__(self) -> Self:
        await self.server.ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish the writes under way, wake every subscriber, close what the store made."""
        if self.server.closed:
            return
        await self._writer.close(seconds=5.0)
        await self.server.close()
        if self._owns_client:
            await self._client.aclose()

    async def create(
        self,
        run_id: str,
        target: str,
        *,
        input: JsonValue = None,  # noqa: A002  # the interface's name
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Begin a run that waits, all of it visible at once.

        Raises:
            RunExistsError: the id is taken.
            InvalidInputError: an id, target, input or metadata breaks a rule; nothing is written.
        """
        command = create_command(run_id, target, input, metadata, self._limits)
        await self._execute(run_id, command)

    async def submit(
        self,
        run_id: str,
        target: str,
        *,
        input: JsonValue = None,  # noqa: A002  # the interface's name
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Begin a run and put it into its target's queue, in one step; errors as ``create``."""
        command = create_command(run_id, target, input, metadata, self._limits)
        check_answer(await self.calls.execute(run_id, command, enqueue=True), run_id)

    async def get_status(self, run_id: str) -> RunStatus:
        """Read state and progress: one round trip, whatever the size of the run."""
        key = self.keys.run(check_run_id(run_id))
        values = await self.server.read("HMGET", key, *STATUS_FIELDS)
        if values[0] is None:
            raise RunNotFoundError(run_id)
        progress = None
        if values[1]:
            total, completed, failed, running = (int(value) for value in values[1:])
            progress = RunProgress(total=total, completed=completed, failed=failed, running=running)
        return RunStatus(run_id=run_id, state=RunState(text(values[0])), progress=progress)

    async def get_result(self, run_id: str) -> RunResult | None:
        """Read the result; None until there is one.

        An output that was a pydantic model comes back as a StoredModel with the same fields.
        """
        stored = await self._read_payload(run_id, self.keys.result(check_run_id(run_id)))
        return None if stored is None else decode_result(stored)

    async def get_input(self, run_id: str) -> JsonValue:
        """Read the input; None when there is none."""
        stored = await self._read_payload(run_id, self.keys.input(check_run_id(run_id)))
        return None if stored is None else decode_json(stored)

    async def update_progress(
        self, run_id: str, progress: RunProgress, *, claim: str | None = None
    ) -> None:
        """Replace the counters; nothing happens after the end.

        The journal gets them at most once a second and before the end; a poll sees them at once.
        """
        await self._execute(run_id, UpdateProgress(check_progress(progress), claim))

    async def set_state(self, run_id: str, state: RunState) -> None:
        """Change the state as the table allows; elsewhere nothing happens.

        An end without a closing event leaves the stream open for one, for late_event_seconds.
        """
        await self._execute(run_id, SetState(check_state(state)))

    async def set_result(self, run_id: str, result: RunResult) -> None:
        """Store the result; after the end only once, and never for a cancelled run."""
        payload = self._limits.result(encode_result(result))
        await self._execute(run_id, SetResult(payload))

    async def push_event(self, run_id: str, event: RunEvent) -> None:
        """Add an event, also after the end: after the seal it is kept as a late entry."""
        await self._execute(run_id, PushEvent(self._event(run_id, event)))

    async def append(
        self,
        run_id: str,
        *events: RunEvent,
        expected_version: int | None = None,
        claim: str | None = None,
    ) -> int:
        """Add events to a run that has not ended, all or none.

        Args:
            run_id: the run.
            events: 1 to 500 of them.
            expected_version: the version the run must have; None for any.
            claim: the fencing token of the worker that holds the run.

        Returns:
            The run's new version: the seq of the last event.

        Raises:
            WrongExpectedVersionError, RunTerminatedError, LeaseLostError, RunNotFoundError:
                nothing was written.
        """
        check_event_count(len(events))
        check_expected_version(expected_version)
        fields = tuple(self._event(run_id, event) for event in events)
        answer = await self._execute(
            run_id, Append(fields, expected_version, claim), expected_version
        )
        return int(answer[1])

    async def finish(
        self,
        run_id: str,
        state: RunState,
        *,
        result: RunResult | None = None,
        event: RunEvent | None = None,
        error: str | None = None,
        claim: str | None = None,
    ) -> bool:
        """End a run in one step: result, last event, state, seal.

        Returns:
            True when this call ended it, False when it had ended before.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        command = Finish(
            check_end(state),
            None if result is None else self._limits.result(encode_result(result)),
            None if event is None else self._event(run_id, event),
            error_text(error),
            claim,
        )
        return (await self._execute(run_id, command))[0] == "OK"

    async def release(self, run_id: str, claim: str, reason: str) -> bool:
        """Hand a claimed run back: it waits in its queue again. False when it is not running."""
        return (await self._execute(run_id, Release(reason, claim)))[0] == "OK"

    async def snapshot(self, run_id: str) -> Run:
        """Read everything the run's hash knows, typed."""
        flat = await self.server.read("HGETALL", self.keys.run(check_run_id(run_id)))
        if not flat:
            raise RunNotFoundError(run_id)
        return run_from_fields(run_id, pairs(flat))

    async def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        """Replay the run's events, follow live, end when the run is sealed.

        Nothing is missed and nothing comes twice, for any subscriber in any process; each event
        carries ``.id``, from which ``after`` goes on.

        Raises:
            RunNotFoundError, InvalidCursorError: at the first event.
            CursorGapError, CursorResetError: going on would be silence or repeats.
        """
        check_run_id(run_id)
        cursor = None if after is None else Cursor.parse(after)
        async for entry in self._tails.stream(run_id, cursor):
            event = entry.event()
            if event is not None:
                yield event

    async def journal(
        self, run_id: str, *, after: str | None = None, follow: bool = False
    ) -> AsyncGenerator[JournalEntry]:
        """Yield all entries of the journal, late ones included; errors as ``stream``."""
        check_run_id(run_id)
        cursor = None if after is None else Cursor.parse(after)
        async for entry in self._tails.journal(run_id, cursor, follow=follow):
            yield entry

    async def audit(self, run_id: str) -> AuditReport:
        """Compare the hash, payloads, expiry and indexes with the fold of the journal."""
        return await gather_audit(self.server, check_run_id(run_id))

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        """Remove an ended run, or with ``force`` any; its subscribers' streams end.

        Returns:
            False when there is no such run.

        Raises:
            RunNotTerminalError: it has not ended.
        """
        try:
            await self._execute(run_id, Delete(force))
        except RunNotFoundError:
            return False
        return True

    async def sweep(self) -> int:
        """Remove what expiry left behind in the indexes; how many runs that were."""
        base, removed = self.keys.base(PARTITION), 0
        while True:
            answer = await self.server.idempotent_script("sweep", [base], [SWEEP_PAGE])
            removed += int(answer[1])
            if int(answer[1]) < SWEEP_PAGE:
                return removed

    async def _execute(
        self, run_id: str, command: Command, expected_version: int | None = None
    ) -> Answer:
        check_run_id(run_id)
        answer = await self.calls.execute(run_id, command)
        return check_answer(answer, run_id, expected_version)

    async def _seal(self, run_id: str) -> Answer:
        return await self._execute(run_id, Seal())

    def _event(self, run_id: str, event: RunEvent) -> Fields:
        return event_fields(event, run_id, self._limits.max_event_bytes)

    async def _read_payload(self, run_id: str, key: str) -> str | None:
        stored, exists = await self.server.read_all(("GET", key), ("EXISTS", self.keys.run(run_id)))
        if not exists:
            raise RunNotFoundError(run_id)
        return None if stored is None else text(stored)


def pairs(flat: list[Any]) -> dict[str, str]:
    """Read a flat reply of names and values."""
    texts = [text(part) for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
