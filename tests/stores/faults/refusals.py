"""How a store refuses to work: in one clear sentence, at once, without the driver's traceback."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import (
    MurmurError,
)
from murmur_streams.stores.redis.store import RedisRunStore
from tests.stores.faults.waiting import wait_until

PATIENCE_SECONDS = 30.0
"""Half of the time for which a broken connection would be retried."""
TRIED_AGAIN = "trying again"
SECRET = "hunter2"
"""A password that nothing may show."""


async def refusal(call: Awaitable[object], kind: type[MurmurError]) -> str:
    """The text of the error, which is one sentence of ours and nothing else."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(kind) as caught:
            await call
    error = caught.value
    shown = "".join(traceback.format_exception(error))
    assert "redis.exceptions" not in shown
    assert shown.count("Traceback") == 1
    assert "\n" not in str(error)
    return str(error)


async def opening(store: RedisRunStore) -> None:
    async with store:
        pass


async def rotate(admin: Redis, password: str) -> None:
    """Give the user ``app`` another password, and return when its connections are closed."""
    await admin.execute_command(
        "ACL", "SETUSER", "app", "on", "resetpass", f">{password}", "~*", "&*", "+@all"
    )
    killed = {each["id"] for each in await admin.client_list() if each["user"] == "app"}
    await admin.execute_command("CLIENT", "KILL", "USER", "app")

    async def are_closed() -> bool:
        return not killed & {each["id"] for each in await admin.client_list()}

    await wait_until(are_closed, "nothing can be sent on the old connections")


async def limited(admin: Redis, *rules: str) -> None:
    """Make the user ``limited`` with these rules."""
    await admin.execute_command(
        "ACL", "SETUSER", "limited", "reset", "on", f">{SECRET}", "~faults:*", *rules
    )
