"""``murmur-streams dead list | show | requeue | purge``: the runs that failed for good."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from murmur_streams.cli.shell import printing
from murmur_streams.cli.shell.command import command, group
from murmur_streams.cli.shell.options import Every, Limit, RunId, option
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import DeadLetterNotFoundError
from murmur_streams.core.rules.requests import DeadLetter
from murmur_streams.stores.dead_letters import DeadLetterBox

Runs = Annotated[
    list[str] | None, typer.Argument(metavar="RUN", help="Ids of runs that are dead letters.")
]
OfTarget = Annotated[
    str | None, typer.Option("--target", metavar="TARGET", help="Only, or all, of this agent.")
]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The options that choose many letters."""

    target: str | None = option(metavar="TARGET", help="Only, or all, of this agent.")
    every: bool = option("--all", default=False, help="All of them, however many.")
    yes: bool = option("--yes", "-y", default=False, help="Do it without asking.")

    def confirm(self, runs: list[str] | None, question: str) -> None:
        """Check that runs, a target or all letters are named; ask before many are changed."""
        if sum((bool(runs), self.target is not None, self.every)) != 1:
            raise typer.BadParameter("name runs, or --target TARGET, or --all")
        if runs or self.yes:
            return
        if not sys.stdin.isatty():
            raise typer.BadParameter(
                "stdin is not a terminal, so this cannot be confirmed: give --yes"
            )
        of_target = "of all agents" if self.target is None else f"of {self.target}"
        if not typer.confirm(printing.printable(question.format(of_target)), err=True):
            raise typer.Exit(1)


@command("list")
async def list_(
    session: Session, target: OfTarget = None, limit: Limit = 20, every: Every = False
) -> None:
    """List dead letters, of each agent the newest first. With --json: one a line.

    Examples:
        murmur-streams dead list --target researcher
    """
    count = 0
    async with session.store() as store, aclosing(_each(store.dead_letters(), target)) as found:
        async for letter in found:
            if count == limit and not every:
                return
            count += 1
            _print_line(session, letter)


@command("show")
async def show(session: Session, run: RunId) -> None:
    """Print a dead letter: its reason, its attempts, its errors, its input.

    Examples:
        murmur-streams dead show my-run
        murmur-streams dead show my-run --json
    """
    async with session.store() as store:
        letter = await store.dead_letters().get(run)
    if session.as_json:
        printing.print_json(_as_json(letter))
    else:
        _print_letter(letter)


@command("requeue")
async def requeue(session: Session, runs: Runs = None, *, chosen: Chosen) -> None:
    """Submit dead letters again, as new runs with the same input, and remove the letters.

    Prints the id of each new run. Its metadata names the old one as requeued_from.

    Examples:
        murmur-streams dead requeue my-run
        murmur-streams dead requeue --target researcher --yes
    """
    chosen.confirm(runs, "Submit all dead letters {} again?")
    async with session.store() as store:
        letters = store.dead_letters()
        async with aclosing(_chosen_ids(letters, runs, chosen.target)) as run_ids:
            async for run_id in run_ids:
                new_id = await letters.requeue(run_id)
                session.print({"run_id": new_id, "requeued_from": run_id}, new_id)


@command("purge")
async def purge(session: Session, runs: Runs = None, *, chosen: Chosen) -> None:
    """Remove dead letters for good; the runs themselves expire like all others.

    Examples:
        murmur-streams dead purge my-run
        murmur-streams dead purge --all
    """
    chosen.confirm(runs, "Remove all dead letters {}?")
    async with session.store() as store:
        letters = store.dead_letters()
        purged = {run_id: await letters.purge(run_id=run_id) for run_id in runs or ()}
        count = sum(purged.values())
        if not runs:
            count = await letters.purge(target=chosen.target, all=chosen.every)
    missing = [run_id for run_id, number in purged.items() if not number]
    session.print({"purged": count}, f"{count} purged")
    if missing:
        raise DeadLetterNotFoundError(missing[0])


dead = group(
    "dead",
    "The dead letters: runs that failed for good, stored until requeued or purged.",
    *(list_, show, requeue, purge),
)


async def _each(letters: DeadLetterBox, target: str | None) -> AsyncGenerator[DeadLetter]:
    cursor: str | None = None
    while True:
        page = await letters.list(target, cursor=cursor)
        for letter in page.letters:
            yield letter
        cursor = page.cursor
        if cursor is None:
            return


async def _chosen_ids(
    letters: DeadLetterBox, runs: list[str] | None, target: str | None
) -> AsyncGenerator[str]:
    for run_id in runs or ():
        yield run_id
    if not runs:
        async for letter in _each(letters, target):
            yield letter.run_id


def _print_line(session: Session, letter: DeadLetter) -> None:
    if session.as_json:
        printing.print_json(_as_json(letter))
        return
    error = "" if letter.error is None else f"  {printing.compact(letter.error)}"
    printing.console().print(
        Text.assemble(
            (f"{printing.moment_text(letter.at_ms)}  ", "dim"),
            f"{letter.target}  {letter.run_id}  ",
            (printing.printable(letter.reason), "red"),
            (error, "dim"),
        )
    )


def _print_letter(letter: DeadLetter) -> None:
    printing.print_rows(
        ("run", letter.run_id),
        ("target", letter.target),
        ("reason", letter.reason),
        ("attempts", f"{letter.attempts}, of which {letter.failures} failed"),
        ("died", printing.moment_text(letter.at_ms)),
        ("error", letter.error or "-"),
        *(("", each) for each in letter.errors),
        ("metadata", None if letter.metadata is None else printing.compact(letter.metadata)),
    )
    if letter.input_json is not None:
        printing.console().print(Text("input", style="dim"))
        printing.print_pretty(letter.input)


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    names = ("run_id", "target", "reason", "attempts", "failures", "error", "errors")
    known = {name: getattr(letter, name) for name in (*names, "input", "metadata")}
    return known | {"at": printing.moment_json(letter.at_ms)}
