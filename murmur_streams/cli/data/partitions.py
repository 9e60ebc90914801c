"""``murmur-streams partitions show | raise N | forget``: over how many hash tags runs lie."""

from __future__ import annotations

from typing import Annotated

import typer

from murmur_streams.cli.data.raw_server import raw_server
from murmur_streams.cli.shell.command import command, group
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.stores.redis.counts import MOST_PARTITIONS, PartitionCounts
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.partitions import forget_numbers, raise_partitions

Number = Annotated[
    int, typer.Argument(metavar="N", min=1, max=MOST_PARTITIONS, help="How many from now on.")
]


@command("show")
async def show(session: Session) -> None:
    """Print over how many partitions new runs are spread, and earlier ones.

    Examples:
        murmur-streams partitions show
    """
    _print(session, await _recorded(session))


@command("raise")
async def raise_number(session: Session, number: Number) -> None:
    """Spread new runs over more partitions, while all programs go on.

    Earlier runs stay in their partitions. All programs learn of it within seconds. Where
    MURMUR_PARTITIONS is set, set it to the new number before you call `forget`.

    Examples:
        murmur-streams partitions raise 4
    """
    async with session.redis_store(partitions=(await _recorded(session)).newest) as store:
        _print(session, await raise_partitions(store, number))


@command("forget")
async def forget(session: Session) -> None:
    """Forget the numbers of partitions that no run has any more.

    Until then, each program looks for runs in one partition more for each older number. It is
    refused while there are runs or dead letters of an older number.

    Examples:
        murmur-streams partitions forget
    """
    async with session.redis_store(partitions=(await _recorded(session)).newest) as store:
        _print(session, await forget_numbers(store))


def _print(session: Session, counts: PartitionCounts) -> None:
    older = counts.numbers[:-1]
    text = str(counts.newest)
    if older:
        text += f" (earlier runs: {', '.join(map(str, older))})"
    known = {"prefix": session.prefix, "partitions": counts.newest, "older": [*older]}
    session.print(known, text)


async def _recorded(session: Session) -> PartitionCounts:
    # Without a store: opening one with another number of partitions is refused.
    async with raw_server(session) as server:
        found = await server.ask(["HGET", Keys(session.prefix).meta, "partitions"])
    try:
        return PartitionCounts.parse(found.decode() if isinstance(found, bytes) else "")
    except ValueError:
        raise StoreConfigurationError(f"no runs exist under {session.prefix!r} yet") from None


partitions = group(
    "partitions",
    "Over how many partitions the runs are spread (docs/partitions.md).",
    *(show, raise_number, forget),
)
