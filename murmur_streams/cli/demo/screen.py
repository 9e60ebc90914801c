"""How the demo looks: a live board on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from murmur_streams.cli.demo.watching import Watched
from murmur_streams.cli.shell.printing import STATE_STYLES, printable
from murmur_streams.core.model.states import RunState

WIDTH = 100
CELL = 33
BAR = 8
MOST_CELLS = 60
_ORDER = {RunState.RUNNING: 0, RunState.FAILED: 1, RunState.CANCELLED: 2, RunState.PENDING: 3}


def counted(count: int, word: str) -> str:
    """``1 run``, ``2 runs``, ``1,000 runs``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


class Screen:
    """Says what happens, and on a terminal shows all runs while they go on."""

    def __init__(self, file: TextIO) -> None:
        self.console = Console(
            file=file,
            highlight=False,
            markup=False,
            emoji=False,
            width=None if file.isatty() else WIDTH,
            soft_wrap=not file.isatty(),
        )
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._began = time.monotonic()
        self._watched: Sequence[Watched] = ()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end_board()

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    def begin_board(self, watched: Sequence[Watched]) -> None:
        """From now on show these runs, where there is a terminal."""
        self._watched = watched
        if self.is_live:
            self._live = Live(
                console=self.console, get_renderable=self._board, refresh_per_second=8
            )
            self._live.start()

    def end_board(self) -> None:
        """Leave the last picture and write below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, words: str, style: str = "") -> None:
        """A line with the time at which it happened."""
        line = Text(f"{self.seconds:5.1f} s  ", style="dim")
        self.console.print(line.append(printable(words), style=style))

    def title(self, words: str) -> None:
        """A heading."""
        self.console.print()
        self.console.print(Text(words, style="bold"))

    def line(self, *words: str | Text) -> None:
        """An indented line, without the time."""
        line = Text("  ")
        for word in words:
            line.append(printable(word) if isinstance(word, str) else word)
        self.console.print(line)

    def ended(self, run: Watched) -> None:
        """A run has ended: a line, where there is no board that shows it."""
        if self._live is not None:
            return
        again = f", attempt {run.attempt}" if run.attempt > 1 else ""
        style = STATE_STYLES[run.state]
        self.say(
            f"{run.state}  {run.name}: {counted(len(run.batch.files), 'file')}, "
            f"{counted(run.findings, 'finding')}{again}",
            style if run.state is not RunState.COMPLETED else "",
        )

    def _board(self) -> RenderableType:
        runs = self._watched
        columns = max(1, min(3, self.console.width // CELL))
        room = columns * max(4, self.console.height - 6)
        shown = runs if len(runs) <= room else sorted(runs, key=lambda r: _ORDER.get(r.state, 9))
        cells = [_cell(run) for run in shown[: min(room, MOST_CELLS)]]
        grid = Table.grid(padding=(0, 1), expand=False)
        height = -(-len(cells) // columns)
        for row in range(height):
            grid.add_row(*cells[row::height])
        return Group(Text(), grid, _totals(runs, len(cells)))


def _cell(run: Watched) -> Text:
    total = len(run.batch.files)
    filled = BAR * run.done_files // total
    style = STATE_STYLES[run.state]
    name = run.name if len(run.name) <= 13 else run.name[:12] + "…"  # noqa: PLR2004  # the column
    cell = Text(f"{name:<13} ", style="bold" if run.is_running else "dim" if not filled else "")
    cell.append("━" * filled, style=style).append("─" * (BAR - filled), style="dim")
    cell.append(f" {run.done_files:>3}/{total:<3}", style="dim")
    return cell.append("↻" if run.attempt > 1 else " ", style="yellow")


def _totals(runs: Sequence[Watched], shown: int) -> Text:
    files = sum(len(run.batch.files) for run in runs)
    done = sum(run.done_files for run in runs)
    ended = sum(run.state.is_terminal for run in runs)
    running = sum(run.is_running for run in runs)
    events = sum(len(run.seen) for run in runs)
    words = f"{ended} of {len(runs)} runs ended, {running} running · {done} of {files} files"
    words += f" · {events} events seen"
    if shown < len(runs):
        words += f" · {len(runs) - shown} runs not shown"
    return Text(words, style="bold")
