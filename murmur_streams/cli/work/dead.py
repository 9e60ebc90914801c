"""``murmur-streams dead list | show | requeue | purge``: the runs that failed for good."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import typer
from rich.text import Text

from murmur_streams.cli.shell.command import RunId, command
from murmur_streams.cli.shell.outcome import print_pretty
from murmur_streams.cli.shell.printing import (
    compact,
    console,
    moment_json,
    moment_text,
    print_json,
    printable,
)
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.dead_letters import MOST_LETTERS, DeadLetter
from murmur_streams.stores.dead_letters import DeadLetterBox
from murmur_streams.wire.run_json import moment_of

Runs = Annotated[
    list[str] | None, typer.Argument(metavar="RUN", help="Ids of runs that are dead letters.")
]
OfTarget = Annotated[
    str | None, typer.Option("--target", metavar="TARGET", help="Only, or all, of this agent.")
]
Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=MOST_LETTERS, help="How many, at most.")
]
Every = Annotated[bool, typer.Option("--all", help="All of them, however many.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="The dead letters: runs that failed for good, stored until requeued or purged.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    app.add_typer(group, name="dead")
    examples = {
        "list": ("murmur-streams dead list --target researcher",),
        "show": ("murmur-streams dead show my-run", "murmur-streams dead show my-run --json"),
        "requeue": (
            "murmur-streams dead requeue my-run",
            "murmur-streams dead requeue --target researcher --yes",
        ),
        "purge": ("murmur-streams dead purge my-run", "murmur-streams dead purge --all"),
    }
    for name, function in (("list", list_), ("show", show), ("requeue", requeue), ("purge", purge)):
        command(group, name, examples=examples[name])(function)


def list_(
    session: Session, target: OfTarget = None, limit: Limit = 20, every: Every = False
) -> None:
    """List dead letters, of each agent the newest first. With --json: one a line."""

    async def body(letters: DeadLetterBox) -> None:
        count = 0
        async with aclosing(_each(letters, target)) as found:
            async for letter in found:
                if count == limit and not every:
                    return
                count += 1
                _print_line(session, letter)

    _in_letters(session, body)


def show(session: Session, run: RunId) -> None:
    """Print a dead letter: its reason, its attempts, its errors, its input."""

    async def body(letters: DeadLetterBox) -> None:
        letter = await letters.get(run)
        if session.as_json:
            print_json(_as_json(letter))
        else:
            _print_letter(letter)

    _in_letters(session, body)


def requeue(
    session: Session,
    runs: Runs = None,
    target: OfTarget = None,
    every: Every = False,
    yes: Yes = False,
) -> None:
    """Submit dead letters again, as new runs with the same input, and remove the letters.

    Prints the id of each new run. Its metadata names the old one as requeued_from.
    """
    _check_choice(runs, target, every=every)

    async def again(letters: DeadLetterBox, run_id: str) -> None:
        new_id = await letters.requeue(run_id)
        if session.as_json:
            print_json({"run_id": new_id, "requeued_from": run_id})
        else:
            print(new_id, flush=True)

    async def body(letters: DeadLetterBox) -> None:
        if runs:
            for run_id in runs:
                await again(letters, run_id)
            return
        _confirm(f"Submit all dead letters {_of_target(target)} again?", yes=yes)
        async with aclosing(_each(letters, target)) as found:
            async for letter in found:
                await again(letters, letter.run_id)

    _in_letters(session, body)


def purge(
    session: Session,
    runs: Runs = None,
    target: OfTarget = None,
    every: Every = False,
    yes: Yes = False,
) -> None:
    """Remove dead letters for good; the runs themselves expire like all others."""
    _check_choice(runs, target, every=every)

    async def body(letters: DeadLetterBox) -> None:
        if runs:
            count = sum([await letters.purge(run_id=run_id) for run_id in runs])
        else:
            _confirm(f"Remove all dead letters {_of_target(target)}?", yes=yes)
            count = await letters.purge(target=target, all=every)
        if session.as_json:
            print_json({"purged": count})
        else:
            print(f"{count} purged")

    _in_letters(session, body)


def _in_letters(session: Session, body: Any) -> None:
    async def opened() -> None:
        async with session.store() as store:
            await body(store.dead_letters())

    asyncio.run(opened())


async def _each(letters: DeadLetterBox, target: str | None) -> AsyncGenerator[DeadLetter]:
    cursor: str | None = None
    while True:
        page = await letters.list(target, cursor=cursor)
        for letter in page.letters:
            yield letter
        cursor = page.cursor
        if cursor is None:
            return


def _check_choice(runs: list[str] | None, target: str | None, *, every: bool) -> None:
    if sum((bool(runs), target is not None, every)) != 1:
        raise typer.BadParameter("name runs, or --target TARGET, or --all")


def _of_target(target: str | None) -> str:
    return "of all agents" if target is None else f"of {target}"


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("stdin is not a terminal, so this cannot be confirmed: give --yes")
    if not typer.confirm(printable(question), err=True):
        raise typer.Exit(1)


def _print_line(session: Session, letter: DeadLetter) -> None:
    if session.as_json:
        print_json(_as_json(letter))
        return
    line = Text(f"{moment_text(moment_of(letter.at_ms))}  ", "dim")
    line.append(f"{letter.target}  {letter.run_id}  ").append(printable(letter.reason), "red")
    error = "" if letter.error is None else f"  {compact(letter.error)}"
    console().print(line.append(error, "dim"))


def _print_letter(letter: DeadLetter) -> None:
    rows = [
        ("run", letter.run_id),
        ("target", letter.target),
        ("reason", letter.reason),
        ("attempts", f"{letter.attempts}, of which {letter.failures} failed"),
        ("died", moment_text(moment_of(letter.at_ms))),
        ("error", letter.error or "-"),
        *(("", each) for each in letter.errors),
    ]
    if letter.metadata is not None:
        rows.append(("metadata", compact(letter.metadata)))
    screen = console()
    for name, value in rows:
        screen.print(Text(f"{name:<9} ", style="dim").append(printable(value), style="none"))
    if letter.input_json is not None:
        screen.print(Text("input", style="dim"))
        print_pretty(letter.input)


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "run_id": letter.run_id,
        "target": letter.target,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "failures": letter.failures,
        "error": letter.error,
        "errors": list(letter.errors),
        "input": letter.input,
        "metadata": letter.metadata,
        "at": moment_json(letter.at_ms),
    }
