"""``murmur-streams partitions show | raise N``: over how many hash tags the runs are spread."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from murmur_streams.cli.data.redis import ask, raw_connection
from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.redis.keys import MOST_PARTITIONS, Keys
from murmur_streams.stores.redis.partitions import raise_partitions

Number = Annotated[
    int, typer.Argument(metavar="N", min=1, max=MOST_PARTITIONS, help="How many from now on.")
]
DeleteEnded = Annotated[bool, typer.Option("--delete-ended", help="Delete the ended runs first.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Over how many partitions the runs are spread (docs/partitions.md).",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    app.add_typer(group, name="partitions")

    @command(group, "show", examples=("murmur-streams partitions show",))
    def show(session: Session) -> None:
        """Print how many partitions the runs under the prefix have."""
        found = asyncio.run(_show(session))
        if session.as_json:
            print_json({"prefix": session.prefix, "partitions": found})
        else:
            print(found)

    @command(
        group,
        "raise",
        examples=(
            "murmur-streams partitions raise 4",
            "MURMUR_PARTITIONS=4 murmur-streams worker app:fleet",
        ),
    )
    def raise_number(session: Session, number: Number, delete_ended: DeleteEnded = False) -> None:
        """Spread the runs over more partitions; refused while there are runs.

        Stop all programs that submit or execute runs first, and let the existing runs end and
        expire, or delete them. Then start them again with MURMUR_PARTITIONS set to the new number.
        """
        asyncio.run(_raise(session, number, delete_ended=delete_ended))
        if session.as_json:
            print_json({"prefix": session.prefix, "partitions": number})
        else:
            print(f"{number} partitions; start your programs with MURMUR_PARTITIONS={number}")


async def _show(session: Session) -> int:
    # Without a store: opening one with another number of partitions is refused.
    async with raw_connection(session) as connection:
        found = await ask(connection, ["HGET", Keys(session.prefix).meta, "partitions"])
    if isinstance(found, bytes) and found.isdigit():
        return int(found)
    raise StoreConfigurationError(f"no runs exist under {session.prefix!r} yet")


async def _raise(session: Session, number: int, *, delete_ended: bool) -> None:
    async with session.redis_store(partitions=await _show(session)) as store:
        await raise_partitions(store, number, delete_ended=delete_ended)
