"""``StoreContract``: everything that a program may rely on, whatever store it was given."""

from __future__ import annotations

from murmur_streams.testing.archives import ArchiveContract
from murmur_streams.testing.events import EventContract
from murmur_streams.testing.feeds import FeedContract
from murmur_streams.testing.lifecycle import LifecycleContract
from murmur_streams.testing.listing import ListingContract
from murmur_streams.testing.refusals import RefusalContract
from murmur_streams.testing.removal import RemovalContract
from murmur_streams.testing.results import ResultContract
from murmur_streams.testing.seals import SealContract
from murmur_streams.testing.streams import CursorContract, StreamContract


class StoreContract(
    LifecycleContract,
    EventContract,
    StreamContract,
    SealContract,
    CursorContract,
    FeedContract,
    ResultContract,
    RefusalContract,
    RemovalContract,
    ListingContract,
    ArchiveContract,
):
    """Subclass it in a test module, as ``Test…``, and override the fixture ``factory``.

    Set ``shares_runs`` to False when two stores of one factory do not see each other's runs.
    """
