"""Turns the answers of ``decide`` into exceptions for the callers of a store."""

from __future__ import annotations

from murmur_streams.core.model.errors import (
    LeaseLostError,
    OutcomeUnknownError,
    RunExistsError,
    RunNotFoundError,
    RunNotTerminalError,
    RunTerminatedError,
    WrongExpectedVersionError,
)
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
            raise RunNotFoundError(run_id)
        case ("EXISTS",):
            raise RunExistsError(run_id)
        case ("TERMINAL", state):
            raise RunTerminatedError(run_id, state)
        case ("NOT_TERMINAL", state):
            raise RunNotTerminalError(run_id, state)
        case ("WRONG_VERSION", actual):
            raise WrongExpectedVersionError(run_id, expected_version or 0, int(actual))
        case ("FENCED", *_):
            raise LeaseLostError(run_id)
        case _:
            raise OutcomeUnknownError(f"run {run_id!r}: unexpected answer {answer!r}")
