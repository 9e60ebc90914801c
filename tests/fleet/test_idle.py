"""What a worker costs that has nothing to do."""

from __future__ import annotations

import asyncio
import time

from redis import Redis

from tests.fleet.stage import Stage
from tests.servers import Space

WATCHED_SECONDS = 5.0
COMMANDS_A_SECOND = 2.0


def commands_of_others(admin: Redis) -> int:
    """How many commands the clients that are connected have sent, without the one that asks."""
    me = str(admin.client_id())
    rows = admin.client_list()
    return sum(int(row["tot-cmds"]) for row in rows if row["id"] != me)


async def test_an_idle_worker_sends_less_than_two_commands_a_second(
    stage: Stage, space: Space
) -> None:
    await stage.ready(stage.start(idle_seconds=5))
    handle = await stage.fleet.submit("counts", {})
    await handle.output(timeout=30)
    await stage.fleet.close()
    began, before = time.monotonic(), commands_of_others(space.admin)
    assert before > 0
    await asyncio.sleep(WATCHED_SECONDS)
    sent, seconds = commands_of_others(space.admin) - before, time.monotonic() - began
    assert sent / seconds < COMMANDS_A_SECOND
