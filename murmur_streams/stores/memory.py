"""InMemoryRunStore: the pure core in one process, for tests and programs of one process."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue

from murmur_streams.core.answers import check_answer
from murmur_streams.core.audit import AuditReport, audit_run
from murmur_streams.core.commands import (
    Append,
    Command,
    Create,
    Delete,
    Finish,
    PushEvent,
    Seal,
    SetResult,
    SetState,
    UpdateProgress,
)
from murmur_streams.core.cursors import Cursor
from murmur_streams.core.decide import Answer, Now, decide
from murmur_streams.core.entries import JournalEntry, event_fields
from murmur_streams.core.errors import (
    CursorResetError,
    RunNotFoundError,
    StoreClosedError,
)
from murmur_streams.core.events import RunEvent
from murmur_streams.core.evolve import evolve
from murmur_streams.core.identifiers import check_run_id, new_run_id
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
from murmur_streams.core.result_codec import encode_result
from murmur_streams.core.results import AgentResult, GroupResult, RunResult
from murmur_streams.core.run import Run, run_to_fields
from murmur_streams.core.states import RunProgress, RunState, RunStatus


@dataclass(slots=True)
class _Record:
    """One run: its fold, its journal, its payloads, and who waits for more."""

    run: Run
    entries: list[JournalEntry] = field(default_factory=list[JournalEntry])
    input_json: str | None = None
    result_json: str | None = None
    result: RunResult | None = None
    expire_at_ms: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class InMemoryRunStore:
    """Runs in this process's memory; every store's behaviour, nobody else's runs.

    Args:
        ttl_seconds: how long an ended run is kept; 0 or less means for ever.
        late_event_seconds: how long after the end a closing event may still come.
        limits: sizes of events, inputs and results.
        clock: milliseconds of Unix time.
    """

    def __init__(
        self,
        *,
        ttl_seconds: float = 3600,
        late_event_seconds: float = 2.0,
        limits: Limits | None = None,
        clock: Callable[[], int] = _wall_clock_ms,
    ) -> None:
        self._ttl_ms = max(0, round(ttl_seconds * 1000))
        self._late_event_ms = max(0, round(late_event_seconds * 1000))
        self._limits = limits or Limits()
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._closed = False

    @staticmethod
    def new_run_id() -> str:
        """Draw a run id."""
        return new_run_id()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Wake every subscriber with StoreClosedError; a second call does nothing."""
        self._closed = True
        for record in self._records.values():
            record.wake()

    async def create(
        self,
        run_id: str,
        target: str,
        *,
        input: JsonValue = None,  # noqa: A002  # the interface's name
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Begin a run that waits; RunExistsError when the id is taken."""
        command = create_command(run_id, target, input, metadata, self._limits)
        await self.sweep()
        self._execute(run_id, command)

    async def get_status(self, run_id: str) -> RunStatus:
        """State and progress."""
        return self._record(run_id).run.status

    async def get_result(self, run_id: str) -> RunResult | None:
        """The result, as deep a copy as was stored; None until there is one."""
        result = self._record(run_id).result
        return None if result is None else _copied(result)

    async def get_input(self, run_id: str) -> JsonValue:
        """The input; None when there is none."""
        given = self._record(run_id).input_json
        return None if given is None else decode_json(given)

    async def update_progress(
        self, run_id: str, progress: RunProgress, *, claim: str | None = None
    ) -> None:
        """Replace the counters; nothing happens after the end."""
        self._execute(run_id, UpdateProgress(check_progress(progress), claim))

    async def set_state(self, run_id: str, state: RunState) -> None:
        """Change the state as the table allows; elsewhere nothing happens."""
        self._execute(run_id, SetState(check_state(state)))

    async def set_result(self, run_id: str, result: RunResult) -> None:
        """Store the result; after the end only once, and never for a cancelled run."""
        payload = self._limits.result(encode_result(result))
        self._execute(run_id, SetResult(payload), _copied(result))

    async def push_event(self, run_id: str, event: RunEvent) -> None:
        """Add an event, also after the end: after the seal it is kept as a late entry."""
        fields = event_fields(event, run_id, self._limits.max_event_bytes)
        self._execute(run_id, PushEvent(fields))

    async def append(
        self,
        run_id: str,
        *events: RunEvent,
        expected_version: int | None = None,
        claim: str | None = None,
    ) -> int:
        """Add events to a run that has not ended, all or none; the new version."""
        check_event_count(len(events))
        check_expected_version(expected_version)
        limit = self._limits.max_event_bytes
        fields = tuple(event_fields(event, run_id, limit) for event in events)
        answer = self._execute(run_id, Append(fields, expected_version, claim))
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
        """End a run in one step; False when it had ended before."""
        command = Finish(
            check_end(state),
            None if result is None else self._limits.result(encode_result(result)),
            None if event is None else event_fields(event, run_id, self._limits.max_event_bytes),
            error_text(error),
            claim,
        )
        kept = None if result is None else _copied(result)
        return self._execute(run_id, command, kept)[0] == "OK"

    async def snapshot(self, run_id: str) -> Run:
        """Everything that is known of the run."""
        return self._record(run_id).run

    async def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[RunEvent]:
        """Replay the run's events, follow live, end when the run is sealed."""
        async for entry in self._entries(run_id, after, follow=True, late=False):
            event = entry.event()
            if event is not None:
                yield event

    async def journal(
        self, run_id: str, *, after: str | None = None, follow: bool = False
    ) -> AsyncGenerator[JournalEntry]:
        """Yield all entries of the journal, late ones included."""
        async for entry in self._entries(run_id, after, follow=follow, late=True):
            yield entry

    async def audit(self, run_id: str) -> AuditReport:
        """Compare the state with the fold of the journal."""
        record = self._record(run_id)
        result_json = record.result_json
        fields = run_to_fields(record.run)
        return audit_run(run_id, fields, record.entries, record.input_json, result_json)

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        """Remove an ended run, or with ``force`` any; its subscribers' streams end."""
        try:
            self._execute(run_id, Delete(force))
        except RunNotFoundError:
            return False
        return True

    async def sweep(self) -> int:
        """Remove the ended runs whose time is over; how many that were."""
        now = self._clock()
        due = [
            run_id
            for run_id, record in self._records.items()
            if record.expire_at_ms is not None and record.expire_at_ms <= now
        ]
        for run_id in due:
            self._records.pop(run_id).wake()
        return len(due)

    def _record(self, run_id: str) -> _Record:
        if self._closed:
            raise StoreClosedError("the store is closed; open a new one")
        record = self._records.get(check_run_id(run_id))
        if record is None or (
            record.expire_at_ms is not None and record.expire_at_ms <= self._clock()
        ):
            raise RunNotFoundError(run_id)
        return record

    def _execute(self, run_id: str, command: Command, result: RunResult | None = None) -> Answer:
        # No await between decide and store: tasks of one loop cannot interleave here.
        try:
            record = self._record(run_id)
        except RunNotFoundError:
            record = None
        now = Now(self._clock(), self._clock(), self._late_event_ms)
        run = None if record is None else record.run
        decision = decide(run, run_id, command, now)
        expected = command.expected_version if isinstance(command, Append) else None
        check_answer(decision.answer, run_id, expected)
        if decision.progress is not None and record is not None:
            record.run = replace(record.run, progress=decision.progress, progress_dirty=True)
        if decision.entries:
            record = self._apply(run_id, record, command, decision.entries)
            self._keep_payload(record, command, result)
            record.wake()
        return decision.answer

    def _apply(
        self,
        run_id: str,
        record: _Record | None,
        command: Command,
        entries: tuple[JournalEntry, ...],
    ) -> _Record:
        run = None if record is None else record.run
        for entry in entries:
            run = evolve(run, entry)
        assert run is not None  # noqa: S101  # entries is not empty
        if record is None:
            record = self._records[run_id] = _Record(run)
        ended_now = run.state.is_terminal and not record.run.state.is_terminal
        record.run = run
        record.entries.extend(entries)
        if ended_now and self._ttl_ms:
            record.expire_at_ms = self._clock() + self._ttl_ms
        if isinstance(command, Delete):
            self._records.pop(run_id, None)
        return record

    def _keep_payload(self, record: _Record, command: Command, result: RunResult | None) -> None:
        if isinstance(command, Create) and command.input is not None:
            record.input_json = command.input.text
        if isinstance(command, (SetResult, Finish)) and command.result is not None:
            record.result_json = command.result.text
            record.result = result

    async def _entries(
        self, run_id: str, after: str | None, *, follow: bool, late: bool
    ) -> AsyncGenerator[JournalEntry]:
        cursor = None if after is None else Cursor.parse(after)
        record = self._record(run_id)
        at = self._position(record, cursor)
        while True:
            while at < len(record.entries):
                entry = record.entries[at]
                if not late and record.run.seal is not None and entry.seq > record.run.seal:
                    return
                at += 1
                yield entry
            if not follow or record.run.seal is not None or self._is_deleted(record):
                return
            await self._wait(run_id, record)

    @staticmethod
    def _position(record: _Record, cursor: Cursor | None) -> int:
        if cursor is None:
            return 0
        entries = record.entries
        found = cursor.seq <= len(entries) and (
            cursor.ms == entries[cursor.seq - 1].ms if cursor.seq else cursor.ms <= entries[0].ms
        )
        cursor.check(epoch=record.run.epoch, version=record.run.version, found=found, oldest=None)
        return cursor.seq

    @staticmethod
    def _is_deleted(record: _Record) -> bool:
        return record.entries[-1].type == "run.deleted"

    async def _wait(self, run_id: str, record: _Record) -> None:
        changed = record.changed
        seconds: float | None = None
        if record.run.state.is_terminal:
            answer = self._execute(run_id, Seal())
            if answer[0] != "WAIT":
                return
            seconds = int(answer[1]) / 1000
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return
        if self._closed:
            raise StoreClosedError("the store was closed while a stream was open")
        if self._records.get(run_id) is not record and not self._is_deleted(record):
            raise CursorResetError(f"run {run_id!r} has expired", None)


def _copied(result: RunResult) -> RunResult:
    # Its errors are shared: not every exception can be copied.
    if isinstance(result, GroupResult):
        outputs = {name: _copied_outcome(outcome) for name, outcome in result.outputs.items()}
        return result.model_copy(update={"outputs": outputs})
    return _copied_outcome(result)


def _copied_outcome(outcome: AgentResult[Any]) -> AgentResult[Any]:
    return outcome.model_copy(update={"output": copy.deepcopy(outcome.output)})
