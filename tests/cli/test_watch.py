"""`runs --watch` on a terminal: one table that is updated where it stands."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from murmur_streams.core.model.states import RunProgress, RunState
from tests.cli.conftest import HERE

PATIENCE_SECONDS = 60.0
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A command on a terminal of its own, and what it has written there."""

    def __init__(self, *argv: str) -> None:
        self._screen, its_end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "murmur_streams", *argv],
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            cwd=HERE,
            env={**os.environ, "TERM": "xterm-256color", "LINES": "30"},
        )
        os.close(its_end)
        self.written = ""

    def read_until(self, *texts: str) -> str:
        """Read until all these texts came since the call; returns what came, without colours."""
        begin, deadline = len(self.written), time.monotonic() + PATIENCE_SECONDS
        while True:
            found = _STYLE.sub("", self.written[begin:])
            if all(text in found for text in texts):
                return found
            assert time.monotonic() < deadline, f"{texts} never came: {self.written[-2000:]!r}"
            if select.select([self._screen], [], [], 1.0)[0]:
                self.written += os.read(self._screen, 65536).decode(errors="replace")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._screen)


@pytest.fixture
def terminal(in_store: Any) -> Iterator[Terminal]:
    """A terminal that watches the runs: there is one."""
    in_store(lambda store: store.create("r-1", "first-target"))
    terminal = Terminal("runs", "--watch")
    yield terminal
    terminal.end()


def test_the_table_is_redrawn_when_a_run_changes(terminal: Terminal, in_store: Any) -> None:
    """Rows are written over."""
    table = terminal.read_until("created", "pending", "first-target", "r-1")
    assert "running" not in table

    async def go_on(store: Any) -> None:
        await store.set_state("r-1", RunState.RUNNING)
        await store.update_progress("r-1", RunProgress(total=7, completed=3))

    in_store(go_on)
    table = terminal.read_until("running", "3 of 7")
    # The rows are written over, not one more below the other.
    assert "\x1b[1A" in table
    assert terminal.written.count("\n\n") == 0
    in_store(lambda store: store.create("r-2", "second-target"))
    table = terminal.read_until("second-target", "first-target")
    # The newest is on top.
    assert table.index("second-target") < table.rindex("first-target")
    assert "\x1b[36m" in terminal.written, "a running state has its colour"


def test_ctrl_c_ends_it_and_gives_the_cursor_back(terminal: Terminal) -> None:
    """The exit code is 130, and the terminal works as before."""
    terminal.read_until("r-1")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until("\x1b[?25h")
    assert terminal.process.wait(timeout=30) == 130
    assert "Traceback" not in terminal.written


def test_a_run_of_which_the_table_knows_nothing_more_leaves_it(
    terminal: Terminal, in_store: Any
) -> None:
    """A deleted run disappears from the table."""
    terminal.read_until("r-1")
    in_store(lambda store: store.create("r-2", "second-target"))
    terminal.read_until("r-2")
    in_store(lambda store: store.delete("r-1", force=True))
    # Looks come one after the other: one that has only the other run comes in the end.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "first-target" in terminal.read_until("second-target", "\x1b[1A"):
        assert time.monotonic() < deadline
