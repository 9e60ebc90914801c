"""Errors are values: they say what to do, and survive a copy and another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from murmur_streams.core.model.errors import (
    CursorGapError,
    InvalidInputError,
    MurmurError,
    PayloadTooLargeError,
    RegistryError,
    RemoteAgentError,
    RunCancelledError,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    RunTerminatedError,
    WrongExpectedVersionError,
)

ERRORS: list[MurmurError] = [
    RunNotFoundError("run"),
    RunExistsError("run"),
    PayloadTooLargeError("the event", 5, 4, "max_event_bytes"),
    WrongExpectedVersionError("run", 1, 2),
    RunTerminatedError("run", "failed"),
    CursorGapError("gap", "0badcafe-1-1"),
    RunFailedError("run", "why", "KeyError"),
    RunCancelledError("run", "asked"),
    RemoteAgentError("KeyError", "'k'"),
]
by_type = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


@by_type
def test_an_error_can_be_copied(error: MurmurError) -> None:
    """A deep copy has the same class, text and attributes."""
    again = copy.deepcopy(error)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@by_type
def test_an_error_passes_to_another_process(error: MurmurError) -> None:
    """The same after pickling, as multiprocessing does it."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # what multiprocessing does
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("kind", [RunNotFoundError, RunExistsError])
def test_an_id_that_does_not_fit_is_a_registry_error(kind: type[Exception]) -> None:
    """RunNotFoundError and RunExistsError can be caught as RegistryError."""
    assert issubclass(kind, RegistryError)


def test_bad_input_is_a_value_error() -> None:
    """InvalidInputError and its subclasses can be caught as ValueError."""
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(PayloadTooLargeError, InvalidInputError)
