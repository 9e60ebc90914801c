"""How soon a written event reaches a live subscriber, beside XADD to XREAD BLOCK."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack

from benchmarks.harness.program import Order, Program, program
from benchmarks.harness.results import Reading
from benchmarks.harness.session import FLOOR, PEER, Session, Step, ordered
from benchmarks.suites.redis_store import FLOORS

SUITE = "delivery"


async def delivery(session: Session) -> None:
    """In the same process and from another one, 100 events a second."""
    count = session.sizes.deliveries
    async with AsyncExitStack() as stack:
        writers = dict(await stack.enter_async_context(session.stores()))
        readers = dict(await stack.enter_async_context(session.stores(has_peer=False)))
        if session.has_others:
            for each in (writers, readers):
                each[FLOOR] = await stack.enter_async_context(program(FLOOR, FLOORS))
        order = Order("deliver", address=session.url, arguments={"count": count})
        same = [ordered(name, each, order) for name, each in writers.items()]
        await session.interleave(SUITE, same)
        other = [
            _other(session, name, writer, readers[name])
            for name, writer in writers.items()
            if name != PEER
        ]
        await session.interleave(SUITE, other)


def _other(session: Session, subject: str, writer: Program, reader: Program) -> Step:
    async def work(_is_warm_up: bool) -> list[Reading]:
        run_id = str(uuid.uuid4())
        await reader.begin(Order("follow", "redis", session.url, {"run_id": run_id}))
        feed = {"run_id": run_id, "count": session.sizes.deliveries}
        await writer.do(Order("feed", "redis", session.url, feed))
        return await reader.answer()

    return Step(subject, work)
