"""The demo from its first line to its last."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import asdict
from typing import Any

from rich.text import Text

from murmur_streams.cli.demo.agents import KEY_PREFIX, fleet
from murmur_streams.cli.demo.corpus import Corpus
from murmur_streams.cli.demo.play import Story, play
from murmur_streams.cli.demo.proof import Tally, look_by_hand, prove
from murmur_streams.cli.demo.ranking import print_ranking
from murmur_streams.cli.demo.reports import Report, merge
from murmur_streams.cli.demo.screen import Screen, counted
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Globals, Session
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.fleet.stores import kind_on_disk
from murmur_streams.stores.redis.store import redis_only, server_of


def own_session(session: Session) -> Session:
    """The demo's: not on somebody's production server, unless that is named on purpose.

    Raises:
        StoreConfigurationError: what is named is no Redis.
    """
    given = session.given
    url = given.url or "embedded:"
    if kind := kind_on_disk(url):
        raise StoreConfigurationError(
            f"the demo shows Redis itself, its keys too, and {redacted(url)} names {kind}: leave "
            "--url out for the embedded server, or name a Redis"
        )
    return Session(Globals(url, KEY_PREFIX, given.as_json, given.debug), session.settings)


async def perform(corpus: Corpus, session: Session) -> bool:
    """Perform all of it in the session that ``own_session`` made; True when the proof holds."""
    _end_well_on_signals()
    environ = session.to_environment()
    os.environ.update(environ)  # the demo's fleet, here and in the workers, has no URL of its own
    async with fleet:
        with Screen(sys.stderr if session.as_json else sys.stdout) as screen:
            screen.line(Text("murmur-streams demo", "bold"), f": reading {corpus.title}")
            story = await play(corpus, screen, environ)
            screen.say(f"ended     {counted(len(story.runs), 'run')}, all completed")
            merged = merge(story.reports.values())
            print_ranking(screen, merged)
            store = redis_only(await fleet.store())
            tally = await prove(story, screen, store, session)
            await look_by_hand(story, screen, server_of(store).keys, session)
            _print_verdict(screen, tally)
            if session.as_json:
                print_json(_summary(story, tally, merged))
            return tally.holds


def _print_verdict(screen: Screen, tally: Tally) -> None:
    verdict = ("The proof holds.", "bold green")
    if not tally.holds:
        verdict = ("The proof does NOT hold; please report this.", "bold red")
    screen.console.print()
    screen.line(Text(*verdict), f" {screen.seconds:.1f} s in all.")


def _summary(story: Story, tally: Tally, merged: Report) -> dict[str, Any]:
    """All of it for a program."""
    return {
        "holds": tally.holds,
        "seconds": round(story.seconds, 3),
        "runs": [run.run_id for run in story.runs],
        "taken_over": [run.run_id for run in story.orphans if run.attempt > 1],
        "killed": None if story.killed is None else story.killed.name,
        "cut": None if story.cut is None else story.cut.run_id,
        "proof": asdict(tally),
        "report": merged.model_dump(mode="json"),
    }


def _end_well_on_signals() -> None:
    """SIGTERM and a closed terminal stop the workers, too."""
    task = asyncio.current_task()
    if task is None:
        return
    for name in ("SIGTERM", "SIGHUP"):
        # Windows has neither of them for an event loop.
        with contextlib.suppress(AttributeError, NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(getattr(signal, name), task.cancel)
