"""Calls a store for the programs of a test, and writes the history that ``checker`` judges."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from murmur_streams.core.model import commands, errors
from murmur_streams.core.model.entries import event_fields
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.executions import Answer
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.history import Call, History, Outcome, ReaderSession, ReportedLoss

_T = TypeVar("_T")


class Recorder:
    """A store whose calls and answers are recorded.

    Every event that is written needs values of its own, such as a number in its data: the checker
    finds it in the journal by them.

    Args:
        store: the store that is called.
        history: where the calls are recorded; several recorders may share one.
        clock: one clock for all programs of the history, in seconds.
    """

    def __init__(
        self, store: RunStore, history: History, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self.history = history
        self._clock = clock
        history.programs += 1
        self._program = history.programs
        self._limit = Limits().max_event_bytes

    async def create(self, run_id: str, target: str) -> None:
        """Create a run."""
        command = commands.Create(target, epoch="")
        await self._record(
            run_id, command, self.store.create(run_id, target), lambda _: ("OK", "1")
        )

    async def append(
        self,
        run_id: str,
        *events: RunEvent,
        expected_version: int | None = None,
        claim: str | None = None,
    ) -> int:
        """Append events; returns the run's new version."""
        fields = tuple(event_fields(event, run_id, self._limit) for event in events)
        command = commands.Append(fields, expected_version, claim)
        call = self.store.append(run_id, *events, expected_version=expected_version, claim=claim)
        return await self._record(run_id, command, call, lambda version: ("OK", str(version)))

    async def push_event(self, run_id: str, event: RunEvent) -> None:
        """Add an event, also after the end."""
        command = commands.PushEvent(event_fields(event, run_id, self._limit))
        await self._record(run_id, command, self.store.push_event(run_id, event), lambda _: None)

    async def set_state(self, run_id: str, state: RunState) -> None:
        """Change the run's state."""
        command = commands.SetState(state)
        await self._record(run_id, command, self.store.set_state(run_id, state), lambda _: None)

    async def finish(self, run_id: str, state: RunState, event: RunEvent | None = None) -> bool:
        """End the run; True when this call ended it."""
        fields = None if event is None else event_fields(event, run_id, self._limit)
        command = commands.Finish(state, event=fields)
        call = self.store.finish(run_id, state, event=event)
        return await self._record(run_id, command, call, lambda _: None)

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        """Delete the run; True when there was one."""
        command = commands.Delete(force)
        call = self.store.delete(run_id, force=force)
        return await self._record(run_id, command, call, lambda _: None)

    async def read(self, run_id: str, after: str | None = None) -> list[RunEvent]:
        """Read the run's stream to its end; what was received before an error is recorded, too."""
        reader = ReaderSession(run_id, after)
        self.history.readers.append(reader)
        async for event in self.store.stream(run_id, after=after):
            reader.events.append(event)
        reader.is_complete = True
        return reader.events

    async def _record(
        self,
        run_id: str,
        command: commands.Command,
        call: Awaitable[_T],
        answer_of: Callable[[_T], Answer | None],
    ) -> _T:
        record = Call(run_id, command, self._clock(), program=self._program)
        self.history.calls.append(record)
        try:
            done = await call
        except errors.OutcomeUnknownError:
            raise
        except errors.MurmurError as error:
            record.ended, record.outcome = self._clock(), Outcome.REFUSED
            record.answer = answer_of_error(error)
            if isinstance(error, errors.StoreRewoundError):
                loss = ReportedLoss(run_id, self._program, record.ended)
                self.history.losses.append(loss)
            raise
        record.ended = self._clock()
        record.outcome = Outcome.REFUSED if cast("object", done) is False else Outcome.ACKNOWLEDGED
        record.answer = answer_of(done)
        return done


def answer_of_error(error: errors.MurmurError) -> Answer | None:
    """The store's answer that an error stands for; None for one that is about no run."""
    match error:
        case errors.WrongExpectedVersionError():
            return ("WRONG_VERSION", str(error.actual))
        case errors.RunTerminatedError():
            return ("TERMINAL", error.state)
        case errors.LeaseLostError():
            return ("FENCED",)
        case errors.RunNotFoundError():
            return ("NOT_FOUND",)
        case errors.RunExistsError():
            return ("EXISTS",)
        case _:
            return None
