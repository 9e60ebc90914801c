"""The figures of the stores as tables."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks.store_floors import TOGETHER
from benchmarks.store_program import TASKS
from benchmarks.stores import PEER, STORES, Stores


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a store."""

    key: str
    title: str
    unit: str
    floors: tuple[str, ...] = ()
    """The floors of the disk stores; ``{}`` is the store."""


ROWS = (
    Row("build", "building an event, no store", "/s"),
    Row("create", "create, in turn", "/s", ("{} write", "hop")),
    Row("append", "append, in turn", "/s", ("{} write", "hop")),
    Row(
        "append_one_run",
        f"append, {TASKS} tasks on one run",
        "/s",
        (f"{{}} write by {TOGETHER}", "{} least"),
    ),
    Row(
        "append_many_runs",
        f"append, {TASKS} tasks on {TASKS} runs",
        "/s",
        (f"{{}} write by {TOGETHER}", "{} least"),
    ),
    Row("p50", "append to subscriber, p50", "ms", ("hop p50", "{} least p50")),
    Row("p99", "append to subscriber, p99", "ms", ("hop p99",)),
    Row("delivered", "... events received", ""),
    Row("replay", "replay", "/s", ("{} read all",)),
    Row("replayed", "... events received", ""),
    Row("get_status", "get_status, in turn", "/s", ("{} get", "hop")),
    Row("bytes", "on disk, an event", "B"),
)
FLOORS = {
    "sqlite write": ("sqlite3, one thread: INSERT, each committed", "/s"),
    f"sqlite write by {TOGETHER}": (f"sqlite3, one thread: INSERT, {TOGETHER} a commit", "/s"),
    "sqlite get": ("sqlite3, one thread: SELECT of one row", "/s"),
    "sqlite read all": ("sqlite3, one thread: SELECT of all rows", "/s"),
    "rocksdb write": ("rocksdict, one thread: put", "/s"),
    f"rocksdb write by {TOGETHER}": (f"rocksdict, one thread: WriteBatch of {TOGETHER}", "/s"),
    "rocksdb get": ("rocksdict, one thread: get", "/s"),
    "rocksdb read all": ("rocksdict, one thread: items()", "/s"),
    "sqlite least": (f"least store over sqlite3: {TASKS} tasks", "/s"),
    "rocksdb least": (f"least store over rocksdict: {TASKS} tasks", "/s"),
    "hop": ("asyncio to a thread and back, in turn", "/s"),
    "hop p50": ("asyncio to a thread and back at 100/s, p50", "ms"),
    "sqlite least p50": ("least store over sqlite3: to a subscriber, p50", "ms"),
    "rocksdb least p50": ("least store over rocksdict: to a subscriber, p50", "ms"),
    "hop p99": ("asyncio to a thread and back at 100/s, p99", "ms"),
}
"""Title and unit of each floor, in the order of the table."""


def show(found: Stores) -> None:
    """Print both libraries, and ours with the ratios to its floors."""
    sizes = found.sizes
    warm_up = " after a warm-up" if sizes.warm_ups else ""
    print(
        f"every store beside that of {PEER}: {sizes.rounds} interleaved rounds of "
        f"{sizes.appends:,} appends{warm_up}, {sizes.deliveries + 1:,} live events, a "
        f"replay of {sizes.replayed:,}; default settings\n\n"
        f"{'':40}{'ours':^33} {PEER:^33}\n{'':40}{_HEAD} {_HEAD}{'':5}{'ours/theirs':>12}"
    )
    for store in STORES:
        print(store)
        for row in ROWS:
            if (store, row.key) in found.ours.found:
                _show_row(found, store, row)
    print(f"\n{'floor':48}{_HEAD}")
    for key, (title, unit) in FLOORS.items():
        print(f"  {title:46}{_spread(found.floors[key])} {unit}")
    print(f"\n{'ours':48}{'of its floor':>12}")
    for store in ("sqlite", "rocksdb"):
        for row in ROWS:
            for name in row.floors:
                _show_ratio(found, store, row, name.format(store))


_HEAD = f"{'median':>11}{'least':>11}{'most':>11}"


def _show_row(found: Stores, store: str, row: Row) -> None:
    ours, theirs = found.ours.found[store, row.key], found.theirs.found[store, row.key]
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"  {row.title:38}{_spread(ours)} {_spread(theirs)} {row.unit:4}{ratio:12.3g}")


def _show_ratio(found: Stores, store: str, row: Row, floor: str) -> None:
    ours = statistics.median(found.ours.found[store, row.key])
    ratio = ours / statistics.median(found.floors[floor])
    print(f"  {f'{store}: {row.title}':46}{ratio:12.3g} of {FLOORS[floor][0]}")


def _spread(values: list[float]) -> str:
    shown = (statistics.median(values), min(values), max(values))
    return "".join(
        f"{value:11,.{0 if value == round(value) else _digits(value)}f}" for value in shown
    )


def _digits(value: float) -> int:
    return 2 if value < 100 else 0
