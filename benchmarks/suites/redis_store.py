"""The Redis store beside murmur-runtime's and the floors."""

from __future__ import annotations

from benchmarks.harness.program import Order, Program, program
from benchmarks.harness.session import FLOOR, Session, Step, ordered
from benchmarks.programs.bench import TASKS

FLOORS = "benchmarks.programs.floors"
RAW = "floor, raw socket"
RUN_ID = "the-long-run"
TOGETHER = 100


async def redis_store(session: Session) -> None:
    """Create, append, whole lives of runs, replay."""
    sizes, suite = session.sizes, "redis"
    async with session.stores() as stores, program(FLOOR, FLOORS) as floors:
        here = list(stores.items())
        floor = (FLOOR, floors) if session.has_others else None
        minimal = Figures(session, floors)
        for figure, count, tasks, runs in (
            ("append", sizes.in_turn, 1, 1),
            ("append_one_run", sizes.appends, TASKS, 1),
            ("append_many_runs", sizes.appends, TASKS, TASKS),
        ):
            arguments = {"figure": figure, "count": count, "tasks": tasks, "runs": runs}
            steps = [_step(session, *each, "append", **arguments) for each in here]
            await session.interleave(suite, steps + minimal.steps(figure, count, tasks))
        create = [_step(session, *each, "create", count=sizes.in_turn) for each in here]
        await session.interleave(suite, create)
        lives = [_step(session, *each, "lifecycle", count=sizes.lifecycles) for each in here]
        await session.interleave(suite, lives)
        replays = [_replay(session, name, each) for name, each in here]
        if floor is not None:
            replays.append(_step(session, *floor, "replay", count=sizes.replayed))
        await session.interleave(suite, replays)


class Figures:
    """The floors of the appends."""

    def __init__(self, session: Session, floors: Program) -> None:
        self._session = session
        self._floors = floors

    def steps(self, figure: str, count: int, tasks: int) -> list[Step]:
        """The minimal script, in turn or by a hundred, through redis-py and over a socket."""
        if not self._session.has_others:
            return []
        arguments = {"figure": figure, "count": count, "together": TOGETHER if tasks > 1 else 1}
        return [
            _step(self._session, FLOOR, self._floors, "append", **arguments),
            _step(self._session, RAW, self._floors, "append_raw", **arguments),
        ]


def _step(session: Session, subject: str, program: Program, work: str, **arguments: object) -> Step:
    return ordered(subject, program, Order(work, address=session.url, arguments=arguments))


def _replay(session: Session, subject: str, program: Program) -> Step:
    arguments = {"run_id": RUN_ID, "count": session.sizes.replayed}
    fill, read = (Order(work, "redis", session.url, arguments) for work in ("fill", "replay"))

    async def work(_is_warm_up: bool):
        await program.do(fill)
        return await program.do(read)

    return Step(subject, work)
