"""The cost of a worker that has nothing to do."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, cast

import pytest

from tests.fleet.stage import Stage, wait_until
from tests.servers import OF_SENTINELS, Space

WATCHED_SECONDS = 5.0
COMMANDS_A_SECOND = 2.0
NOT_COUNTED = (*(name.upper() for name in OF_SENTINELS), "SCRIPT LOAD")
"""The embedded server's keeper asks for INFO, too; calls that happen to coincide get another
connection, once, and load it with all scripts."""


async def sent_in(seconds: float, space: Space) -> int:
    """How many commands clients send meanwhile; what a script calls is not sent."""
    with space.admin.monitor() as watching:
        await asyncio.sleep(seconds)
        end = f"ECHO {secrets.token_hex(4)}"
        space.admin.execute_command(*end.split())
        count = 0
        while True:
            seen = cast("dict[str, Any]", watching.next_command())
            if seen["command"] == end:
                return count
            count += seen["client_type"] != "lua" and not seen["command"].startswith(NOT_COUNTED)


@pytest.mark.slow
async def test_an_idle_worker_sends_less_than_two_commands_a_second(
    stage: Stage, space: Space
) -> None:
    """The server counts the commands over some seconds."""
    await stage.ready(stage.start(idle_seconds=5))
    handle = await stage.fleet.submit("counts", {})
    await handle.output(timeout=30)
    await stage.fleet.close()

    async def is_quiet() -> bool:
        return await sent_in(0.5, space) <= 1

    await wait_until(is_quiet, "the worker is done with the run")
    sent = await sent_in(WATCHED_SECONDS, space)
    assert 0 < sent < COMMANDS_A_SECOND * WATCHED_SECONDS
