"""Which node serves which hash slot, as several nodes of a cluster see it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from murmur_streams.stores.redis.connection.maker import Address


@dataclass(frozen=True, slots=True)
class SlotRange:
    """A range of slots, and the node that serves them by the view of one node.

    Whenever slots get another owner, by a failover or a move, it has a higher epoch than every
    owner before.
    """

    first: int
    last: int
    address: Address
    epoch: int
    replicas: tuple[Address, ...] = ()
    """They may take the slots over."""


def read_view(slots: Sequence[Any], nodes: bytes, asked: Address) -> list[SlotRange]:
    """Read what a node replied to CLUSTER SLOTS and CLUSTER NODES.

    Args:
        slots: ranges with their nodes, the primary first: each an endpoint, a port and an id.
        nodes: a line for each node, with its configuration epoch; empty if that is not known.
        asked: where the node was asked. It stands for an endpoint that the node does not know, as
            the protocol demands.
    """

    def address_of(node: Sequence[Any]) -> Address:
        endpoint = node[0].decode() if node[0] else "?"
        return asked[0] if endpoint in {"", "?"} else endpoint, int(node[1])

    epochs = epochs_of(nodes)
    return [
        SlotRange(
            int(first),
            int(last),
            address_of(primary),
            epochs.get(primary[2].decode(), 0),
            tuple(address_of(each) for each in replicas),
        )
        for first, last, primary, *replicas in slots
    ]


def epochs_of(nodes: bytes) -> dict[str, int]:
    """The configuration epoch of each node, from CLUSTER NODES."""
    lines = (line.split() for line in nodes.decode().splitlines())
    # <id> <address> <flags> <primary> <ping> <pong> <epoch> <link> <slots>...
    return {fields[0]: int(fields[6]) for fields in lines if len(fields) >= 8}  # noqa: PLR2004


def newest(views: Iterable[Sequence[SlotRange]]) -> list[SlotRange]:
    """The owner of each slot that has the highest epoch among several views.

    A node that was frozen or cut off during a failover still takes itself for the owner. Of two
    owners with one epoch the one of the later view counts.

    Returns:
        Ranges without an overlap, in their order.
    """
    ranges = [each for view in views for each in view]
    edges = sorted({edge for each in ranges for edge in (each.first, each.last + 1)})
    found: list[SlotRange] = []
    for first, after in pairwise(edges):
        owners = [each for each in reversed(ranges) if each.first <= first <= each.last]
        if owners:
            best = max(owners, key=lambda each: each.epoch)
            found.append(replace(best, first=first, last=after - 1))
    return found
