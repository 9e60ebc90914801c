"""A lasting trouble is logged at once, then now and then, and when it is over."""

from __future__ import annotations

import logging

import pytest

from murmur_streams.core.model.errors import StoreUnavailableError
from murmur_streams.fleet.logs import MOST_TEXTS, LogThrottle


class Watched:
    """A trouble, a clock that the test moves, and the lines."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now = 0.0
        self._caplog = caplog
        self.trouble = LogThrottle(logging.getLogger("trouble"), "no heartbeat", lambda: self.now)

    def lines(self) -> list[str]:
        """The lines since the last look."""
        found = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return found


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(caplog)


def test_an_error_is_logged_once_a_minute_and_its_end_once(watched: Watched) -> None:
    """Two minutes of failures are three lines, and the recovery is one."""
    for second in range(121):
        watched.now = second
        watched.trouble.failed(ValueError("full"))
    assert watched.lines() == ["no heartbeat: full"] * 3
    watched.trouble.recovered()
    watched.trouble.recovered()
    assert watched.lines() == ["no heartbeat: over after 120.0 s"]
    watched.trouble.failed(ValueError("full"))
    assert watched.lines() == ["no heartbeat: full"]


def test_a_server_that_was_away_answers_again(watched: Watched) -> None:
    """If the server was out of reach, the last line says that it answers again."""
    for error in (StoreUnavailableError("away"), ValueError("full")):
        watched.trouble.failed(error)
    watched.now = 1.0
    watched.trouble.recovered()
    assert watched.lines()[2:] == ["no heartbeat: the server answers again after 1.0 s"]
    watched.trouble.failed(ValueError("full"))
    watched.trouble.recovered()
    assert watched.lines()[1:] == ["no heartbeat: over after 0.0 s"]


def test_control_characters_of_an_error_are_shown(watched: Watched) -> None:
    """Escaped, so that they cannot change a terminal."""
    watched.trouble.failed(ValueError("\x1b[31m\0"))
    assert watched.lines() == ["no heartbeat: \\x1b[31m\\x00"]


def test_another_error_is_logged_at_once(watched: Watched) -> None:
    """Each text has a minute of its own."""
    for text in ("full", "gone", "full", "gone"):
        watched.trouble.failed(ValueError(text))
    assert watched.lines() == ["no heartbeat: full", "no heartbeat: gone"]


def test_a_recovery_without_a_failure_is_not_logged(watched: Watched) -> None:
    """Success from the beginning writes no line."""
    watched.trouble.recovered()
    assert watched.lines() == []


def test_errors_that_are_never_the_same_fill_no_memory(watched: Watched) -> None:
    """The number of remembered texts is bounded."""
    for number in range(10 * MOST_TEXTS):
        watched.trouble.failed(ValueError(str(number)))
    assert len(watched.trouble.logged) <= MOST_TEXTS


def test_loops_that_share_their_texts_log_an_error_once(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """A trouble of all loops of a worker is one line a minute, and its end is one line."""
    other = LogThrottle(
        logging.getLogger("trouble"), "no look", lambda: watched.now, logged=watched.trouble.logged
    )
    for second in range(61):
        watched.now = second
        watched.trouble.failed(ValueError("refused"))
        other.failed(ValueError("refused"))
    assert watched.lines() == ["no heartbeat: refused"] * 2
    other.recovered()
    assert watched.lines() == []
    watched.trouble.recovered()
    assert watched.lines() == ["no heartbeat: over after 60.0 s"]
