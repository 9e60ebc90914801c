"""Which node serves a slot, by what the nodes of a cluster answer. No server is asked."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.stores.redis.connection.slots import (
    SlotRange,
    epochs_of,
    newest,
    read_view,
)

ASKED = ("asked.example", 7000)
A, B, C = ("a", 1), ("b", 2), ("c", 3)
NODES = (
    b"aaa 10.0.0.1:7000@17000,host-a master - 0 1700 12 connected 0-8191\n"
    b"bbb 10.0.0.2:7001@17001 myself,master - 0 1700 7 connected 8192-16383 [5->-aaa]\n"
    b"ccc 10.0.0.3:7002@17002 slave aaa 0 1700 12 connected\n"
    b"ddd :0@0 master,noaddr - 1700 1700 0 disconnected\n"
    b"vars currentEpoch 12\n"
)


def slots(*ranges: tuple[int, int, Any, int, bytes]) -> list[Any]:
    """A reply to CLUSTER SLOTS without replicas."""
    return [[first, last, [host, port, node, []]] for first, last, host, port, node in ranges]


def owner(first: int, last: int, address: tuple[str, int], epoch: int) -> SlotRange:
    return SlotRange(first, last, address, epoch)


def test_the_epoch_of_each_node_is_read() -> None:
    """Also that of the node itself, of one with a host name, and of one that is gone."""
    assert epochs_of(NODES) == {"aaa": 12, "bbb": 7, "ccc": 12, "ddd": 0}


def test_a_view_has_the_owners_and_their_replicas() -> None:
    """The first node of a range is the primary."""
    reply = [
        [0, 8191, [b"10.0.0.1", 7000, b"aaa", []], [b"10.0.0.3", 7002, b"ccc", []]],
        [8192, 16383, [b"10.0.0.2", 7001, b"bbb", []]],
    ]
    assert read_view(reply, NODES, ASKED) == [
        SlotRange(0, 8191, ("10.0.0.1", 7000), 12, (("10.0.0.3", 7002),)),
        SlotRange(8192, 16383, ("10.0.0.2", 7001), 7),
    ]


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        (b"10.0.0.1", "10.0.0.1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"node-1.example", "node-1.example"),
        (b"", ASKED[0]),
        (None, ASKED[0]),
        (b"?", ASKED[0]),
    ],
)
def test_an_endpoint_is_an_address_or_the_node_that_was_asked(endpoint: Any, host: str) -> None:
    """A node that does not know its own address leaves it out, or has "?" there."""
    [view] = read_view(slots((0, 5, endpoint, 7005, b"aaa")), NODES, ASKED)
    assert view.address == (host, 7005)


def test_without_epochs_every_owner_has_the_lowest() -> None:
    """The user has no right to CLUSTER NODES, or the node is not listed there."""
    reply = slots((0, 5, b"10.0.0.9", 7000, b"eee"))
    for nodes in (b"", NODES):
        assert [each.epoch for each in read_view(reply, nodes, ASKED)] == [0]


def test_the_owner_with_the_higher_epoch_counts() -> None:
    """Whichever view comes first."""
    old, new = [owner(0, 9, A, 1)], [owner(0, 9, B, 2)]
    assert newest([old, new]) == newest([new, old]) == new


def test_of_two_owners_with_one_epoch_the_later_counts() -> None:
    """So a user without epochs follows the last answer."""
    assert newest([[owner(0, 9, A, 1)], [owner(0, 9, B, 1)]]) == [owner(0, 9, B, 1)]


def test_a_part_of_a_range_can_get_another_owner() -> None:
    """The rest of the range stays where it was."""
    found = newest([[owner(0, 9, A, 1), owner(10, 19, B, 5)], [owner(5, 14, C, 3)]])
    assert found == [
        *(owner(0, 4, A, 1), owner(5, 9, C, 3)),
        *(owner(10, 14, B, 5), owner(15, 19, B, 5)),
    ]


def test_a_slot_that_no_view_has_stays_without_an_owner() -> None:
    """A hole at the beginning, between two ranges, and after the last one."""
    assert newest([[owner(2, 3, A, 1)], [owner(6, 7, B, 1)]]) == [
        owner(2, 3, A, 1),
        owner(6, 7, B, 1),
    ]
    assert newest([]) == newest([[], []]) == []


VIEWS = st.lists(
    st.lists(
        st.builds(
            lambda first, length, address, epoch: owner(first, first + length, address, epoch),
            *(st.integers(0, 30), st.integers(0, 30), st.sampled_from([A, B, C])),
            st.integers(0, 4),
        ),
        max_size=4,
    ),
    max_size=4,
)


@given(VIEWS)
def test_each_slot_has_the_newest_owner(views: list[list[SlotRange]]) -> None:
    """The ranges are in order without an overlap; each slot's owner is that of a plain search."""
    found = newest(views)
    assert all(a.last < b.first for a, b in pairwise(found))
    served = {slot: each for each in found for slot in range(each.first, each.last + 1)}
    everything = [each for view in views for each in view]
    for slot in range(62):
        claims = [each for each in everything if each.first <= slot <= each.last]
        best = max(enumerate(claims), key=lambda pair: (pair[1].epoch, pair[0]), default=(0, None))[
            1
        ]
        at = served.get(slot)
        assert (at and (at.address, at.epoch)) == (best and (best.address, best.epoch))
