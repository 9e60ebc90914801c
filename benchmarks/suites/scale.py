"""What many cost: idle subscriptions, live runs and their subscribers, long journals."""

from __future__ import annotations

import uuid

from benchmarks.harness.program import Order, Program
from benchmarks.harness.results import Reading
from benchmarks.harness.session import Session, Step, Subject, ordered

LIVE_PER_SECOND = 2_000
FAN_OUT_PER_SECOND = 1_000
MEASURED_RUNS = 50


async def idle(session: Session) -> None:
    """Subscriptions in one process while nothing happens."""
    sizes = session.sizes

    async def work(subject: Subject) -> list[Reading]:
        run_ids = {"run_ids": [str(uuid.uuid4()) for _ in range(sizes.idle)]}
        async with subject.program() as writer, subject.program() as reader:
            await writer.do(Order("idle_runs", "redis", session.url, run_ids))
            watched = run_ids | {"seconds": sizes.idle_seconds}
            return await reader.do(Order("idle", "redis", session.url, watched))

    def step(subject: Subject) -> Step:
        return Step(subject.name, lambda _is_warm_up: work(subject))

    await session.interleave("idle", [step(each) for each in session.ours])


async def live(session: Session) -> None:
    """Live runs with a subscriber each; and the cost of an event by the number of subscribers."""
    sizes = session.sizes
    events = round(LIVE_PER_SECOND * sizes.live_seconds)
    async with (
        session.stores(has_peer=False) as writers,
        session.stores(has_peer=False) as readers,
    ):
        pairs = [(name, writer, readers[name]) for name, writer in writers.items()]
        steps = [
            _fed(session, *pair, "live", sizes.live, events, LIVE_PER_SECOND) for pair in pairs
        ]
        await session.interleave("live", steps)
        fanned = FAN_OUT_PER_SECOND * 2 if sizes.live_seconds > 1 else sizes.live
        for count in sizes.fan_out:
            steps = [
                _fed(session, *pair, "fan_out", count, fanned, FAN_OUT_PER_SECOND) for pair in pairs
            ]
            await session.interleave("live", steps)


async def growth(session: Session) -> None:
    """The server's time to create, append, submit and claim beside so many live runs."""
    sizes = session.sizes
    arguments = {"live": list(sizes.runs), "count": sizes.growth, "rounds": sizes.rounds}
    order = Order("growth", "redis", session.url, arguments)
    await _ours(session, "growth", order, is_once=True)


async def journals(session: Session) -> None:
    """The cost of an append by the length of the run's journal."""
    arguments = {"counts": list(session.sizes.lengths), "appends": session.sizes.growth}
    await _ours(session, "journals", Order("lengths", "redis", session.url, arguments))


async def footprint(session: Session) -> None:
    """The server's memory for a run."""
    order = Order("memory", "redis", session.url, {"count": MEASURED_RUNS})
    async with session.stores() as stores:
        steps = [ordered(name, each, order) for name, each in stores.items()]
        await session.interleave("footprint", steps)


async def _ours(session: Session, suite: str, order: Order, *, is_once: bool = False) -> None:
    async with session.stores(has_peer=False) as stores:
        steps = [ordered(name, each, order) for name, each in stores.items()]
        await session.interleave(suite, steps, is_once=is_once)


def _fed(
    session: Session,
    subject: str,
    writer: Program,
    reader: Program,
    figure: str,
    runs: int,
    events: int,
    per_second: int,
) -> Step:
    async def work(_is_warm_up: bool) -> list[Reading]:
        run_ids = [str(uuid.uuid4()) for _ in range(runs)]
        at = runs if figure == "fan_out" else None
        read = {"figure": figure, "run_ids": run_ids, "expected": events, "at": at}
        write = {"run_ids": run_ids, "events": events, "per_second": per_second}
        await reader.begin(Order("follow_many", "redis", session.url, read))
        await writer.do(Order("feed_many", "redis", session.url, write))
        return await reader.answer()

    return Step(subject, work)
