"""Turns the answers of ``decide`` into exceptions for the callers of a store."""

from __future__ import annotations

from murmur_streams.core.model import errors
from murmur_streams.core.rules.decide import Answer


def check_answer(answer: Answer, run_id: str, expected_version: int | None = None) -> Answer:
    """Return an answer that is a success, or raise the error that its tag stands for.

    Raises:
        RunNotFoundError, RunExistsError, RunTerminatedError, RunNotTerminalError,
        WrongExpectedVersionError, LeaseLostError: by the answer's tag.
        OutcomeUnknownError: a later call of the same producer was applied first.
    """
    match answer:
        case ("OK" | "NO" | "WAIT", *_):
            return answer
        case ("NOT_FOUND",):
            raise errors.RunNotFoundError(run_id)
        case ("EXISTS",):
            raise errors.RunExistsError(run_id)
        case ("TERMINAL", state):
            raise errors.RunTerminatedError(run_id, state)
        case ("NOT_TERMINAL", state):
            raise errors.RunNotTerminalError(run_id, state)
        case ("WRONG_VERSION", actual):
            raise errors.WrongExpectedVersionError(run_id, expected_version or 0, int(actual))
        case ("FENCED", *_):
            raise errors.LeaseLostError(run_id)
        case _:
            raise errors.OutcomeUnknownError(f"run {run_id!r}: unexpected answer {answer!r}")
