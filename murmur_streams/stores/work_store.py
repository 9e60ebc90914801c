"""WorkStore: a store whose runs wait in queues, and what all stores of this package share.

The writes are checked here and turned into commands of the core; a store only executes them. The
documentation of the methods is here and on RunStore; the stores inherit it.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import aclosing
from typing import TypeVar, Unpack

from pydantic import JsonValue

from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model import commands, run
from murmur_streams.core.model import limits as bounds
from murmur_streams.core.model.commands import Command
from murmur_streams.core.model.entries import EntryType, Fields, JournalEntry, event_fields
from murmur_streams.core.model.errors import InvalidInputError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.limits import check_run_id, new_run_id
from murmur_streams.core.model.results import RunResult, decode_result, encode_result
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.rules import requests
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.dead_letters import DeadLetterBox
from murmur_streams.stores.protocol import RunStore, WorkerList, WorkQueue

T = TypeVar("T")
NoteState = Callable[[str, RunState], None]
"""Called with the target and the state of a run, each time that its state was read."""


class WorkStore(RunStore, ABC):
    """A store whose runs wait in queues and are executed by workers."""

    _limits: bounds.Limits

    @abstractmethod
    async def _execute(
        self, run_id: str, command: Command, result: RunResult | None = None
    ) -> Answer:
        """Execute a command exactly once and return its answer, or raise what it means.

        ``result`` is the value behind the command's result, for stores that can keep it.
        """

    @abstractmethod
    async def _payload(self, run_id: str, kind: run.PayloadKind) -> str | None:
        """Read a JSON text, None without one; RunNotFoundError when the run does not exist."""

    @abstractmethod
    async def _list(self, wanted: run.RunFilter, limit: int, cursor: str | None) -> run.RunPage:
        """Read a page of the wanted runs, newest first."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where the runs are, for people; without a password."""

    @property
    @abstractmethod
    def live_ttl_ms(self) -> int:
        """How long a run that has not ended may go without a write; 0 for ever."""

    @abstractmethod
    def queue(self, lease_seconds: float) -> WorkQueue:
        """The waiting work; a claim of it holds for ``lease_seconds`` without a heartbeat."""

    @abstractmethod
    def workers(self, interval_seconds: float = 5.0) -> WorkerList:
        """The list of live workers, each of which reports itself once in an interval."""

    @abstractmethod
    def dead_letters(self) -> DeadLetterBox:
        """The runs that failed for good."""

    @abstractmethod
    async def ping(self) -> None:
        """Return when the store can be used now, else raise why not."""

    @abstractmethod
    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, up to two seconds."""

    @abstractmethod
    async def check_feed_cursor(self, after: str) -> None:
        """Refuse a cursor from which the feed cannot go on, without waiting for entries.

        Raises:
            InvalidCursorError, CursorGapError, CursorResetError: as the feed.
        """

    @abstractmethod
    async def last_entries(self, run_id: str, count: int) -> list[JournalEntry]:
        """Read the newest entries of the run's journal, oldest first; [] if it does not exist."""

    @abstractmethod
    async def lease_left_ms(self, run_id: str) -> int | None:
        """How long the run's lease still holds, below 0 when it ran out; None without one."""

    @abstractmethod
    async def pause(self, target: str) -> None:
        """Let no worker start a run of this target from now on; running ones go on."""

    @abstractmethod
    async def resume(self, target: str) -> None:
        """Let workers start runs of this target again, and wake some of them."""

    @abstractmethod
    async def paused(self) -> set[str]:
        """The targets that are paused."""

    @staticmethod
    def new_run_id() -> str:
        return new_run_id()

    @property
    def limits(self) -> bounds.Limits:
        """The largest sizes that the store accepts."""
        return self._limits

    @property
    def warnings(self) -> dict[str, str]:
        """Problems that an operator should mend though the store works: the advice by its kind."""
        return {}

    @property
    def warning(self) -> str | None:
        """The same in one text; None without any."""
        return "; ".join(self.warnings.values()) or None

    @property
    def rewinds(self) -> int:
        """How often this store found that its server had lost writes that it had acknowledged."""
        return 0

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def create(
        self, run_id: str, target: str, **options: Unpack[requests.RunOptions]
    ) -> None:
        await self._execute(
            run_id, requests.create_command(run_id, target, self._limits, **options)
        )

    async def submit(
        self, run_id: str, target: str, **options: Unpack[requests.QueuedRunOptions]
    ) -> None:
        """Begin a run and put it into its target's queue, in one step.

        Args:
            run_id: the run.
            target: the name of an agent.
            options: those of ``create``, and
                priority: from -100 to 100; a step is worth a minute of waiting, so that every
                run gets its turn.
                delay_seconds: how long from now on it must not start, by the server's clock.
                at: when it is due, with a time zone; instead of a delay.
                deadline_seconds: how long after it is due it fails if it has not ended.
                trace: the W3C headers ``traceparent`` and ``tracestate``.
                request_sha256: the digest of a request with an idempotency key, stored with the
                run.

        Raises:
            RunExistsError: the id is taken.
            InvalidInputError: an argument breaks a rule; nothing was written.
        """
        await self._execute(
            run_id, requests.submit_command(run_id, target, self._limits, **options)
        )

    async def get_result(self, run_id: str) -> RunResult | None:
        return await self._decoded(run_id, run.PayloadKind.RESULT, decode_result)

    async def result_at_end(self, run_id: str, note: NoteState) -> RunResult | None:
        """Wait until the run has ended, and read its result; None when it ended without one.

        Raises:
            RunNotFoundError: the run does not exist, or was deleted meanwhile.
        """
        known = await self.snapshot(run_id)
        note(known.target, known.state)
        if not known.state.is_terminal:
            await self._follow_to_end(known, note)
        return await self.get_result(run_id)

    async def _follow_to_end(self, known: run.Run, note: NoteState) -> None:
        follow = self.journal(known.run_id, after=known.cursor, follow=True)
        async with aclosing(follow) as entries:
            async for entry in entries:
                if entry.type == EntryType.DELETED:
                    raise RunNotFoundError(known.run_id)
                if entry.type == EntryType.STATE:
                    state = RunState(entry.fields["state"])
                    note(known.target, state)
                    if state.is_terminal:
                        return

    async def get_input(self, run_id: str) -> JsonValue:
        return await self._decoded(run_id, run.PayloadKind.INPUT, decode_json)

    async def last_checkpoint(self, run_id: str) -> JsonValue:
        """Read the last checkpoint of the run; None without one."""
        return await self._decoded(run_id, run.PayloadKind.CHECKPOINT, decode_json)

    async def list_runs(self, **options: Unpack[run.ListOptions]) -> run.RunPage:
        return await self._list(*run.check_listing(**options))

    async def update_progress(
        self, run_id: str, progress: RunProgress, *, claim: str | None = None
    ) -> None:
        await self._execute(
            run_id, commands.UpdateProgress(bounds.check_progress(progress), check_claim(claim))
        )

    async def set_state(self, run_id: str, state: RunState) -> None:
        await self._execute(run_id, commands.SetState(bounds.check_state(state)))

    async def set_result(self, run_id: str, result: RunResult) -> None:
        payload = self._limits.result(encode_result(result))
        await self._execute(run_id, commands.SetResult(payload), result)

    async def push_event(self, run_id: str, event: RunEvent) -> None:
        fields = event_fields(event, run_id, self._limits.max_event_bytes)
        await self._execute(run_id, commands.PushEvent(fields))

    async def append(
        self,
        run_id: str,
        *events: RunEvent,
        expected_version: int | None = None,
        claim: str | None = None,
    ) -> int:
        bounds.check_event_count(len(events))
        bounds.check_expected_version(expected_version)
        limit = self._limits.max_event_bytes
        fields = tuple([event_fields(event, run_id, limit) for event in events])
        answer = await self._execute(
            run_id, commands.Append(fields, expected_version, check_claim(claim))
        )
        return int(answer[1])

    async def append_encoded(self, run_id: str, fields: Fields, claim: str) -> None:
        """Append one event that ``event_fields`` has encoded. The errors are those of ``append``.

        Args:
            run_id: the run.
            fields: the event.
            claim: the fencing token of the worker that holds the run.
        """
        await self._execute(run_id, commands.Append((fields,), None, _held(claim)))

    async def finish(
        self,
        run_id: str,
        state: RunState,
        *,
        result: RunResult | None = None,
        event: RunEvent | None = None,
        error: str | None = None,
        claim: str | None = None,
        dead: str | None = None,
        stopped: str | None = None,
    ) -> bool:
        if dead is not None and state != RunState.FAILED:
            raise InvalidInputError(f"only failed runs go to the dead letters, not {state} ones")
        command = commands.Finish(
            bounds.check_end(state),
            None if result is None else self._limits.result(encode_result(result)),
            None if event is None else event_fields(event, run_id, self._limits.max_event_bytes),
            bounds.error_text(error),
            check_claim(claim),
            bounds.error_text(dead),
            bounds.error_text(stopped),
        )
        return (await self._execute(run_id, command, result))[0] == "OK"

    async def request_cancel(self, run_id: str, *, reason: str | None = None) -> RunState:
        command = commands.RequestCancel(bounds.error_text(reason), socket.gethostname() or None)
        return RunState((await self._execute(run_id, command))[1])

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        try:
            await self._execute(run_id, commands.Delete(force))
        except RunNotFoundError:
            return False
        return True

    async def release(
        self,
        run_id: str,
        claim: str,
        reason: str,
        *,
        delay_seconds: float = 0.0,
        error: str | None = None,
    ) -> RunState:
        """Hand a claimed run back: it waits in its queue again, without a delay where it was.

        Args:
            run_id: the run.
            claim: the fencing token of the worker that holds it.
            reason: ``failed`` counts a failure; ``worker_stopped`` and ``retry_later`` do not
                count against the most attempts.
            delay_seconds: how long from now on it must not start, by the server's clock.
            error: the error of the execution; the run keeps the first ones.

        Returns:
            The run's state afterwards: pending, or cancelled when that was requested; another one
            when it was not running.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        delay_ms = requests.milliseconds("the delay", delay_seconds)
        command = commands.Release(reason, _held(claim), delay_ms, bounds.error_text(error))
        return RunState((await self._execute(run_id, command))[1])

    async def deliver_cancel(self, run_id: str, claim: str) -> None:
        """Record that the execution knows of the requested cancel; once is enough.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        await self._execute(run_id, commands.DeliverCancel(_held(claim)))

    async def checkpoint(self, run_id: str, value: JsonValue, claim: str) -> None:
        """Store a value for the run's next execution, which replaces the one before.

        Args:
            run_id: the run.
            value: any JSON, up to ``max_result_bytes``.
            claim: the fencing token of the worker that holds it.

        Raises:
            PayloadTooLargeError: the value is too large; nothing was written.
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        payload = self._limits.checkpoint(encode_json(value, "the checkpoint"))
        await self.checkpoint_encoded(run_id, payload, claim)

    async def checkpoint_encoded(self, run_id: str, payload: commands.Payload, claim: str) -> None:
        """Store a checkpoint that is encoded and checked already; otherwise as ``checkpoint``."""
        await self._execute(run_id, commands.Checkpoint(payload, _held(claim)))

    async def _decoded(
        self, run_id: str, kind: run.PayloadKind, decode: Callable[[str], T]
    ) -> T | None:
        stored = await self._payload(check_run_id(run_id), kind)
        return None if stored is None else run.read_payload(run_id, kind, decode, stored)


def check_claim(claim: str | None) -> str | None:
    """Refuse the empty text, which is not a fencing token."""
    if claim == "":
        raise InvalidInputError("claim is empty, but must be a fencing token or None")
    return claim


def _held(claim: str) -> str:
    if check_claim(claim) is None:
        raise InvalidInputError("claim is None, but must be a fencing token")
    return claim
