"""``murmur-streams pause TARGET`` and ``resume TARGET``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.load_fleet import open_fleet
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.fleet import Fleet

Target = Annotated[str, typer.Argument(metavar="TARGET", help="The agent's name.")]
OptionalTarget = Annotated[
    str | None,
    typer.Argument(
        metavar="TARGET", help="The agent's name; without one, the paused agents are listed."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @command(
        app,
        "pause",
        examples=("murmur-streams pause researcher", "murmur-streams pause"),
    )
    def pause(session: Session, target: OptionalTarget = None) -> None:
        """Let no worker begin runs of an agent, until `resume`; runs under way go on.

        Runs submitted meanwhile wait. Without TARGET the paused agents are listed.
        """
        paused, _ = asyncio.run(_do(session, target, pause=True))
        if target is not None:
            _print(session, target, paused)
        elif session.as_json:
            print_json({"paused": sorted(paused)})
        else:
            print("\n".join(sorted(paused)) or "nothing is paused")

    @command(app, "resume", examples=("murmur-streams resume researcher",))
    def resume(session: Session, target: Target) -> None:
        """Let workers begin runs of a paused agent again."""
        paused, before = asyncio.run(_do(session, target, pause=False))
        _print(session, target, paused, was_paused=target in before)


async def _do(session: Session, target: str | None, *, pause: bool) -> tuple[set[str], set[str]]:
    """The agents that are paused now, and those that were before."""
    async with open_fleet(session) as fleet:
        before = await fleet.paused()
        if target is None:
            return before, before
        await _set(fleet, target, pause=pause)
        return await fleet.paused(), before


async def _set(fleet: Fleet, target: str, *, pause: bool) -> None:
    await (fleet.pause(target) if pause else fleet.resume(target))


def _print(session: Session, target: str, paused: set[str], *, was_paused: bool = True) -> None:
    is_paused = target in paused
    if session.as_json:
        print_json({"target": target, "paused": is_paused})
    else:
        runs = f"{target} runs" if was_paused else f"{target} was not paused: it runs"
        print(f"{target} is paused" if is_paused else runs)
