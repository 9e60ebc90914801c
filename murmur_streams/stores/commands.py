"""The writes that every store has: checked, turned into commands of the core, and executed."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod

from murmur_streams.core.model.commands import (
    Append,
    Command,
    Delete,
    Finish,
    PushEvent,
    RequestCancel,
    SetResult,
    SetState,
    UpdateProgress,
)
from murmur_streams.core.model.entries import event_fields
from murmur_streams.core.model.errors import InvalidInputError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.limits import (
    Limits,
    check_end,
    check_event_count,
    check_expected_version,
    check_progress,
    check_state,
    error_text,
)
from murmur_streams.core.model.result_codec import encode_result
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.rules.decide import Answer


class RunWrites(ABC):
    """Turns the interface's writes into commands; a store only executes them."""

    _limits: Limits

    @abstractmethod
    async def _execute(
        self, run_id: str, command: Command, result: RunResult | None = None
    ) -> Answer:
        """Execute a command exactly once and return its answer, or raise what it means.

        ``result`` is the value behind the command's result, for stores that can keep it.
        """

    async def update_progress(
        self, run_id: str, progress: RunProgress, *, claim: str | None = None
    ) -> None:
        """Replace the counters; nothing happens after the end.

        The journal gets them at most once a second and before the end; a poll sees them at once.
        """
        await self._execute(run_id, UpdateProgress(check_progress(progress), check_claim(claim)))

    async def set_state(self, run_id: str, state: RunState) -> None:
        """Change the state as the table allows; elsewhere nothing happens.

        An end without a closing event leaves the stream open for one, for late_event_seconds.
        """
        await self._execute(run_id, SetState(check_state(state)))

    async def set_result(self, run_id: str, result: RunResult) -> None:
        """Store the result; after the end only once, and never for a cancelled run."""
        payload = self._limits.result(encode_result(result))
        await self._execute(run_id, SetResult(payload), result)

    async def push_event(self, run_id: str, event: RunEvent) -> None:
        """Add an event, also after the end: after the seal it is kept as a late entry."""
        fields = event_fields(event, run_id, self._limits.max_event_bytes)
        await self._execute(run_id, PushEvent(fields))

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
            The run's new version: the seq of its last entry.

        Raises:
            WrongExpectedVersionError, RunTerminatedError, LeaseLostError, RunNotFoundError:
                nothing was written.
        """
        check_event_count(len(events))
        check_expected_version(expected_version)
        limit = self._limits.max_event_bytes
        fields = tuple(event_fields(event, run_id, limit) for event in events)
        answer = await self._execute(run_id, Append(fields, expected_version, check_claim(claim)))
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
        dead: str | None = None,
        stopped: str | None = None,
    ) -> bool:
        """End a run in one step: result, last event, state, seal.

        A claim's holder ends a run whose cancel was requested as cancelled, whatever it asks for.

        Args:
            run_id: the run.
            state: completed, failed or cancelled.
            result: its result.
            event: its last event.
            error: why it failed.
            claim: the fencing token of the worker that holds the run.
            dead: why the run, which must end failed, goes to the dead letters; None: it does not.
            stopped: what made a cancelled run's execution stop: ``handler`` or ``grace``.

        Returns:
            True when this call ended it, False when it had ended before.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        if dead is not None and state != RunState.FAILED:
            raise InvalidInputError(f"only failed runs go to the dead letters, not {state} ones")
        command = Finish(
            check_end(state),
            None if result is None else self._limits.result(encode_result(result)),
            None if event is None else event_fields(event, run_id, self._limits.max_event_bytes),
            error_text(error),
            check_claim(claim),
            error_text(dead),
            error_text(stopped),
        )
        return (await self._execute(run_id, command, result))[0] == "OK"

    async def request_cancel(self, run_id: str, *, reason: str | None = None) -> RunState:
        """Ask that a run end cancelled.

        One that waits, in a queue or for its delay or next try, ends at once and never starts.
        One that runs goes on until its worker, which is woken, has stopped it; from then on it
        can only end cancelled by that worker's hand. Asking again changes nothing.

        Returns:
            The run's state after the call: cancelled, running, or the one in which it had ended.
        """
        answer = await self._execute(run_id, RequestCancel(error_text(reason), _host()))
        return RunState(answer[1])

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


def _host() -> str | None:
    return socket.gethostname() or None


def check_claim(claim: str | None) -> str | None:
    """Refuse the empty text, which is no fencing token."""
    if claim == "":
        raise InvalidInputError("claim is empty, but must be a fencing token or None")
    return claim
