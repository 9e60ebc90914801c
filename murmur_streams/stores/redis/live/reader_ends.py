"""How a stream finds the end of a run that ended without a closing event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from murmur_streams.core.model.commands import Seal
from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.states import TERMINAL_STATES
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.replies import clock_ms, text
from murmur_streams.stores.redis.server import Server


def seal_of(
    server: Server, durations: Durations, execute: Callable[[str, Seal], Awaitable[Answer]]
) -> Callable[[str], Awaitable[Answer]]:
    """The function that seals a run; in a store that only reads, it looks where the run ends."""

    async def seal(run_id: str) -> Answer:
        if server.use.read_only:
            return await _look(server, run_id, durations.late_event_ms)
        return await execute(run_id, Seal())

    return seal


async def _look(server: Server, run_id: str, late_event_ms: int) -> Answer:
    """Answer as the script that seals a run, without the write.

    Once the time for a closing event is over, the script of any later event seals the run before
    it. So what the run has now is what every stream of it yields, whichever program writes the
    seal.

    Returns:
        ``OK version``, ``WAIT milliseconds`` or ``NO state``.

    Raises:
        RunNotFoundError: the run does not exist.
    """
    await server.locator.locate(run_id)
    # The time first: an event that comes between the two reads after that time has its seal.
    clock, fields = await server.read_all(
        ("TIME",), ("HMGET", server.keys.run(run_id), "state", "seal", "ended_ms", "version")
    )
    state, seal, ended_ms, version = (text(each) if each else "" for each in fields)
    if not state:
        raise RunNotFoundError(run_id)
    if state not in TERMINAL_STATES:
        return "NO", state
    remaining = int(ended_ms or 0) + late_event_ms - clock_ms(clock)
    if not seal and remaining > 0:
        return "WAIT", str(remaining)
    return "OK", seal or version
