"""The goals of the engine's speed, each with the row that measures it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.harness.results import Results, Row, Spread, ratio
from benchmarks.harness.session import BULLMQ, DRAMATIQ, FLOOR, OURS, PEER, PEERS, TASKIQ

LEAST_STORE = "floor, least store"


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for one row, or for its ratio to another one.

    Args:
        title: what is compared with what.
        suite: of both rows.
        figure: of both rows.
        bound: the goal.
        is_least: whether the value must be at least the bound; else at most.
        against: the subject of the other row; None: the bound is for the value itself.
        column: which numbers of a row.
        ends: for a curve, compare its last position with its first.
    """

    title: str
    suite: str
    figure: str
    bound: float
    is_least: bool = True
    against: str | None = None
    column: str = "values"
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured for a goal."""

    goal: Goal
    found: Spread | None
    """None: a row that it needs was not measured."""
    cpu: float | None = None
    """The CPU time of client and server that the other one takes, over ours: as a rate's ratio."""

    @property
    def is_met(self) -> bool:
        """Whether the goal is met."""
        if self.found is None:
            return False
        least, found = self.goal.is_least, self.found.median
        return found >= self.goal.bound if least else found <= self.goal.bound

    @property
    def text(self) -> str:
        """Met, missed or not measured."""
        if self.found is None:
            return "not measured"
        return "met" if self.is_met else "missed"


def _most(title: str, suite: str, figure: str, bound: float, against: str | None = None) -> Goal:
    return Goal(title, suite, figure, bound, is_least=False, against=against)


def _local(store: str) -> list[Goal]:
    least = f"delivery p50 of {store} over the least store's"
    return [
        Goal(f"create, {store}, over {PEER}", store, "create", 0.8, against=PEER),
        Goal(f"replay, {store}, over {PEER}", store, "replay", 1.0, against=PEER),
        _most(least, store, "delivery_p50", 1.5, LEAST_STORE),
    ]


def _growth(work: str) -> Goal:
    return Goal(
        f"{work}: server time at the most live runs over that at the fewest",
        "growth",
        f"growth_{work}",
        1.25,
        is_least=False,
        column="script_us",
        ends=True,
    )


_ONE, _MANY = "append_one_run", "append_many_runs"
GOALS = (
    Goal(f"append, 100 tasks on one run, over {PEER}", "redis", _ONE, 9, against=PEER),
    Goal("append, 100 tasks on one run, over redis-py", "redis", _ONE, 1.0, against=FLOOR),
    Goal(f"append, 100 tasks on 100 runs, over {PEER}", "redis", _MANY, 5, against=PEER),
    Goal("append, in turn, over redis-py", "redis", "append", 0.8, against=FLOOR),
    Goal(f"whole lives of runs, over {PEER}", "redis", "lifecycle", 4, against=PEER),
    _most("delivery p50, same process, over XREAD", "delivery", "delivery_p50", 1.8, FLOOR),
    _most("delivery p99, same process, over XREAD", "delivery", "delivery_p99", 3, FLOOR),
    _most(
        "delivery p50, another process, over XREAD", "delivery", "delivery_other_p50", 1.8, FLOOR
    ),
    _most("delivery p99, another process, over XREAD", "delivery", "delivery_other_p99", 3, FLOOR),
    Goal("replay over XRANGE with decoding", "redis", "replay", 0.45, against=FLOOR),
    Goal(f"no-op runs over {TASKIQ}'s jobs", "jobs", "noops", 2.5, against=TASKIQ),
    Goal(f"no-op runs over {DRAMATIQ}'s jobs", "jobs", "noops", 1.0, against=DRAMATIQ),
    Goal(f"no-op runs over {BULLMQ}'s jobs", "jobs", "noops", 1.0, against=BULLMQ),
    Goal("commands inside the scripts, a no-op run", "jobs", "noops", 45, False, None, "commands"),
    *(_most(f"submit to start p50 over {each}'s", "jobs", "start_p50", 1, each) for each in PEERS),
    *(
        _most(f"submit to result p50 over {each}'s", "jobs", "result_p50", 1, each)
        for each in PEERS
    ),
    _most("idle subscriptions: commands a second", "idle", "idle_commands", 10),
    _most("idle subscriptions: % of a core", "idle", "idle_cpu", 3),
    _most("idle subscriptions: KiB each", "idle", "idle_kib", 10),
    _most("live runs with a subscriber each: events lost", "live", "live_lost", 0),
    _most("live runs with a subscriber each: p99, ms", "live", "live_p99", 20),
    _most("memory of a finished run, B", "footprint", "memory_finished", 1536),
    _most("memory of a live run, B", "footprint", "memory_live", 2560),
    *(_growth(work) for work in ("create", "submit", "claim")),
    *_local("sqlite"),
    *_local("rocksdb"),
)


def judge(results: Results, goals: tuple[Goal, ...] = GOALS) -> list[Verdict]:
    """What was measured for each goal."""
    return [Verdict(goal, _found(results, goal), _cpu(results, goal)) for goal in goals]


def _cpu(results: Results, goal: Goal) -> float | None:
    """Steadier than a ratio of rates on a busy machine. A worker's CPU time is not in its row."""
    if goal.against is None or not goal.is_least or goal.suite == "jobs":
        return None
    rows = [results.find(goal.suite, goal.figure, each) for each in (OURS, goal.against)]
    ours, theirs = (_cpu_us(row) if row is not None else 0.0 for row in rows)
    return theirs / ours if ours and theirs else None


def _cpu_us(row: Row) -> float:
    parts = (row.client_us, row.server_us)
    return sum(statistics.median(part) for part in parts if part)


def _found(results: Results, goal: Goal) -> Spread | None:
    numbers: Callable[[Row], list[float]] = lambda row: getattr(row, goal.column)  # noqa: E731
    if goal.ends:
        rows = results.curve(goal.suite, goal.figure, OURS)
        rows = [row for row in rows if numbers(row)]
        return ratio(numbers(rows[-1]), numbers(rows[0])) if len(rows) > 1 else None
    row = results.find(goal.suite, goal.figure, OURS)
    if row is None or not numbers(row):
        return None
    if goal.against is None:
        return Spread.of(numbers(row))
    other = results.find(goal.suite, goal.figure, goal.against)
    return ratio(numbers(row), numbers(other)) if other is not None else None
