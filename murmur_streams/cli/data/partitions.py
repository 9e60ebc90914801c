"""``murmur-streams partitions show | raise N``: over how many hash tags the runs are spread."""

from __future__ import annotations

from typing import Annotated

import typer

from murmur_streams.cli.data.raw_server import raw_server
from murmur_streams.cli.shell.command import command, group
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.redis.keys import MOST_PARTITIONS, Keys
from murmur_streams.stores.redis.partitions import raise_partitions

Number = Annotated[
    int, typer.Argument(metavar="N", min=1, max=MOST_PARTITIONS, help="How many from now on.")
]
DeleteEnded = Annotated[bool, typer.Option("--delete-ended", help="Delete the ended runs first.")]


@command("show")
async def show(session: Session) -> None:
    """Print how many partitions the runs under the prefix have.

    Examples:
        murmur-streams partitions show
    """
    found = await _number_of(session)
    session.print({"prefix": session.prefix, "partitions": found}, str(found))


@command("raise")
async def raise_number(session: Session, number: Number, delete_ended: DeleteEnded = False) -> None:
    """Spread the runs over more partitions; refused while there are runs.

    Stop all programs that submit or execute runs first, and let the existing runs end and
    expire, or delete them. Then start them again with MURMUR_PARTITIONS set to the new number.

    Examples:
        murmur-streams partitions raise 4
        MURMUR_PARTITIONS=4 murmur-streams worker app:fleet
    """
    async with session.redis_store(partitions=await _number_of(session)) as store:
        await raise_partitions(store, number, delete_ended=delete_ended)
    text = f"{number} partitions; start your programs with MURMUR_PARTITIONS={number}"
    session.print({"prefix": session.prefix, "partitions": number}, text)


async def _number_of(session: Session) -> int:
    # Without a store: opening one with another number of partitions is refused.
    async with raw_server(session) as server:
        found = await server.ask(["HGET", Keys(session.prefix).meta, "partitions"])
    if isinstance(found, bytes) and found.isdigit():
        return int(found)
    raise StoreConfigurationError(f"no runs exist under {session.prefix!r} yet")


partitions = group(
    "partitions",
    "Over how many partitions the runs are spread (docs/partitions.md).",
    *(show, raise_number),
)
