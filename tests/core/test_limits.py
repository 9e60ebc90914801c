"""Values that are refused before anything is written."""

from __future__ import annotations

import pytest

from murmur_streams import InvalidInputError, RunProgress, RunState
from murmur_streams.core.model.limits import (
    MAX_COUNT,
    check_end,
    check_expected_version,
    check_progress,
    check_state,
    duration_ms,
)


@pytest.mark.parametrize("version", [True, "1", 1.0, 2**80, b"1"])
def test_an_expected_version_is_a_plain_integer(version: object) -> None:
    """Other types and numbers out of range raise InvalidInputError."""
    with pytest.raises(InvalidInputError, match="expected_version is"):
        check_expected_version(version)


@pytest.mark.parametrize("version", [None, 0, 7, MAX_COUNT])
def test_a_version_passes(version: int | None) -> None:
    """None, 0 and every number up to the largest count are accepted."""
    assert check_expected_version(version) == version


@pytest.mark.parametrize("progress", [{"total": -1}, {"running": 2**53}])
def test_counters_are_neither_negative_nor_too_large(progress: dict[str, int]) -> None:
    """The error names the counter of the progress that is out of range."""
    with pytest.raises(InvalidInputError, match=f"{next(iter(progress))} must be from 0"):
        check_progress(RunProgress(**progress))


def test_an_unknown_state_is_refused() -> None:
    """The error lists the states."""
    with pytest.raises(InvalidInputError, match="pending, running, completed, failed, cancelled"):
        check_state("nonsense")


def test_only_an_end_ends_a_run() -> None:
    """A state that is not terminal is refused as the end of a run."""
    assert check_end("failed") is RunState.FAILED
    with pytest.raises(InvalidInputError, match="not running"):
        check_end(RunState.RUNNING)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300])
def test_a_duration_out_of_range_is_refused(seconds: float) -> None:
    """NaN, endless times, and those over a hundred years are refused."""
    with pytest.raises(InvalidInputError, match=r"ttl_seconds is .* 0 is for ever"):
        duration_ms("ttl_seconds", seconds)


@pytest.mark.parametrize(("seconds", "ms"), [(0, 0), (-1, 0), (0.0015, 2), (3600, 3_600_000)])
def test_a_duration_becomes_milliseconds(seconds: float, ms: int) -> None:
    """0 and less become 0, which means for ever."""
    assert duration_ms("ttl_seconds", seconds) == ms
