"""The proof: what the journals hold against what was seen, the audits, and a look by hand."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.text import Text

from murmur_streams.cli.data.redis import ask, raw_connection
from murmur_streams.cli.data.replies import for_terminal
from murmur_streams.cli.demo.play import Story
from murmur_streams.cli.demo.screen import WIDTH, Screen, counted
from murmur_streams.cli.demo.watching import Watched
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.states import RunState
from murmur_streams.core.redaction import redacted
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import RedisRunStore, server_of

SHOWN_LINES = 10


@dataclass
class Tally:
    """What the comparison found, over all runs."""

    entries: int = 0
    events: int = 0
    seen: int = 0
    missing: int = 0
    twice: int = 0
    unordered: int = 0
    foreign: int = 0
    """Seen, but in no journal."""
    miscounted: int = 0
    """Runs whose journal has not as many entries as the server counts."""
    problems: list[str] = field(default_factory=list[str])
    clean: int = 0

    @property
    def holds(self) -> bool:
        """Whether the claims are true."""
        wrong = self.missing + self.twice + self.unordered + self.foreign + self.miscounted
        return not wrong and not self.problems and self.events > 0


async def prove(story: Story, screen: Screen, store: RedisRunStore, session: Session) -> Tally:
    """Check every run and print what came out."""
    tally = Tally()
    async with raw_connection(session) as connection:
        for run in story.runs:
            await _compare(run, tally, store, connection)
            report = await store.audit(run.run_id)
            tally.clean += report.ok
            tally.problems += [f"{run.run_id}: {problem}" for problem in report.problems]
    unended = [run for run in story.runs if run.state is not RunState.COMPLETED]
    tally.problems += [f"{run.run_id} ended {run.state}" for run in unended]
    _print_tally(story, tally, screen)
    return tally


async def _compare(run: Watched, tally: Tally, store: RedisRunStore, connection: Any) -> None:
    entries = [entry async for entry in store.journal(run.run_id)]
    length = await ask(connection, ("XLEN", server_of(store).keys.journal(run.run_id)))
    tally.miscounted += length != len(entries)
    journalled = Counter(entry.cursor for entry in entries if entry.event() is not None)
    seen = Counter(cursor for _, cursor in run.seen)
    order = [seq for seq, _ in run.seen]
    tally.entries += len(entries)
    tally.events += journalled.total()
    tally.seen += seen.total()
    tally.missing += (journalled - seen).total()
    tally.twice += sum(count - 1 for count in seen.values())
    tally.foreign += sum(cursor not in journalled for cursor in seen)
    tally.unordered += sum(after < before for before, after in pairwise(order))


def _print_tally(story: Story, tally: Tally, screen: Screen) -> None:
    count = len(story.runs)
    screen.title("Proof")
    _claim(
        screen,
        not tally.miscounted,
        "journals",
        f"{tally.entries:,} entries in {counted(count, 'journal')}, {tally.events:,} are events",
    )
    _claim(
        screen,
        not (tally.missing or tally.twice or tally.unordered or tally.foreign),
        "seen",
        f"{tally.seen:,} events by {counted(count, 'subscriber')}: {tally.missing} missing, "
        f"{tally.twice} twice, {tally.unordered} out of order",
    )
    _claim(screen, tally.clean == count, "audit", f"{tally.clean} of {counted(count, 'run')} clean")
    if story.cut is not None and story.cut.cut is not None:
        cut = story.cut.cut
        words = f"{story.cut.name} after event #{cut.after_seq}; its next event was "
        _claim(screen, True, "cut", words + f"#{cut.resumed_seq}")
    else:
        screen.line("- cut        the work was over before a subscriber could be cut")
    if story.killed is not None:
        again = sum(run.attempt > 1 for run in story.orphans)
        ended = sum(run.state is RunState.COMPLETED for run in story.orphans)
        _claim(
            screen,
            ended == len(story.orphans),
            "killed",
            f"{story.killed.name} in the middle of {counted(len(story.orphans), 'run')}: "
            f"{again} taken over, {ended} completed",
        )
    else:
        screen.line("- killed     the work was over before a worker could be killed")
    for problem in tally.problems:
        screen.line(Text(f"  {problem}", style="red"))


def _claim(screen: Screen, holds: bool, name: str, words: str) -> None:
    mark = Text("✓ ", "green") if holds else Text("✗ ", "bold red")
    screen.line(mark, Text(f"{name:<10} ", "bold"), words)


async def look_by_hand(story: Story, screen: Screen, keys: Keys, session: Session) -> None:
    """Run redis-cli's lines for the reader, through the code of ``murmur-streams redis``."""
    run = next(iter(story.orphans or story.runs))
    journal = keys.journal(run.run_id)
    commands = (
        ("HGETALL", keys.run(run.run_id)),
        ("XLEN", journal),
        ("XRANGE", journal, "-", "+", "COUNT", "2"),
        ("PTTL", journal),
    )
    # Without it, a command goes where MURMUR_URL says, and the demo does not.
    elsewhere = session.url != (session.settings.url or "embedded:")
    where = ["--url", redacted(session.url)] if elsewhere else []
    screen.title("Look for yourself: these lines ran just now, and work for an hour")
    async with raw_connection(session) as connection:
        for words in commands:
            line = ["murmur-streams", "redis", *where, *words]
            screen.line(Text(f"$ {shlex.join(line)}", "bold"))
            _print_shortened(screen, for_terminal(await ask(connection, words), words))
    screen.line(Text("More of the same:", "dim"))
    for command in ("show", "keys", "tail"):
        line = ["murmur-streams", command, run.run_id, "--prefix", keys.prefix, *where]
        screen.line(f"$ {shlex.join(line)}")


def _print_shortened(screen: Screen, text: str) -> None:
    lines: Sequence[str] = text.split("\n")
    for line in lines[:SHOWN_LINES]:
        room = WIDTH - 6
        screen.line("  ", line if len(line) <= room else line[: room - 1] + "…")
    if len(lines) > SHOWN_LINES:
        screen.line(Text(f"  … and {len(lines) - SHOWN_LINES} more lines", "dim"))
