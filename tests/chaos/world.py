"""What the worlds of a chaos run have in common."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from murmur_streams.testing.faults import Act
from tests.server_choice import own_settings

ADMIN = "chaos"
"""The user of the faults: what happens to the programs' user does not concern it."""
ADMIN_SETTINGS = (f"user {ADMIN} on >{ADMIN} ~* &* +@all",)
WHOLE_TRIES = 4
"""Of half a minute each."""


@dataclass(frozen=True, slots=True)
class World:
    """Servers for programs."""

    url: str
    lanes: dict[str, dict[str, Act]]
    """The kinds of faults by lane and name: the faults of different lanes overlap."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of the programs' stores."""
    may_rewind: bool = False
    """Whether a failover may take away what readers have seen."""
    primaries: Callable[[], Collection[int]] = lambda: ()
    """The ports of the servers that hold the runs now; it waits for them."""


def choice_of(seed: int, lane: str) -> random.Random:
    """The choices of a lane besides its kinds."""
    return random.Random(f"{seed}:{lane}:details")


def admin_of(port: int) -> Redis:
    """A client of the faults' user."""
    return Redis(
        host="127.0.0.1",
        port=port,
        username=ADMIN,
        password=ADMIN,
        protocol=2,
        socket_timeout=5,
        socket_connect_timeout=2,
    )


def settings_of_server() -> list[str]:
    """The settings that the chosen server needs."""
    return [f"{name} {value}" for name, value in own_settings().items()]
