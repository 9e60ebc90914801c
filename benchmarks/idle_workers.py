"""What idle workers cost: ``python -m benchmarks.idle_workers --workers 100 --partitions 16``.

It starts a server of its own, or with ``--cluster`` a cluster of three nodes, lets so many workers
wait for work in some processes, and prints what each worker costs the servers. docs/sizing.md has
results.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis import Redis

from benchmarks.harness.servers import server
from murmur_streams import Fleet
from murmur_streams.embedded.cluster_group import cluster_group
from murmur_streams.embedded.launch import find_binary
from murmur_streams.fleet.worker import Worker

SETTLING_SECONDS = 25.0
"""A worker enters its name again after 20 s, and reads for up to 20 s."""
MONITORED_SECONDS = 60.0
"""As long as a store's look at its server is apart from the next one."""
READY = "ready"


@dataclass(frozen=True, slots=True)
class Counts:
    """What the servers have counted since their start."""

    seconds: float
    cpu_seconds: float
    connections: int
    memory: int

    @staticmethod
    def of(nodes: list[Redis]) -> Counts:
        """The sums of all nodes."""
        found: list[dict[str, Any]] = [cast("Any", node).info("everything") for node in nodes]
        cpu = sum(each["used_cpu_sys"] + each["used_cpu_user"] for each in found)
        return Counts(
            time.monotonic(),
            cpu,
            sum(each["connected_clients"] for each in found) - len(nodes),
            sum(each["used_memory"] for each in found),
        )


def sent_to(node: Redis) -> int:
    """How many commands clients send to a server in some seconds; what scripts call is not sent."""
    end, count = f"ECHO {secrets.token_hex(8)}", 0
    plain = cast("Any", node)
    with plain.monitor() as watching:
        timer = threading.Timer(MONITORED_SECONDS, plain.execute_command, end.split())
        timer.start()
        while (seen := watching.next_command())["command"] != end:
            count += seen["client_type"] != "lua"
        timer.join()
    return count


@contextlib.asynccontextmanager
async def servers(*, is_cluster: bool) -> AsyncGenerator[tuple[str, list[Redis]]]:
    """A URL, and a client of each server."""
    if not is_cluster:
        async with server() as url:
            with cast("Any", Redis).from_url(url) as admin:
                yield url, [admin]
        return
    with (
        tempfile.TemporaryDirectory(prefix="murmur-bench-") as folder,
        cluster_group(find_binary(), Path(folder), replicas=0) as group,
    ):
        yield group.url, [Redis("127.0.0.1", node.port) for node in group.nodes]


@contextlib.contextmanager
def processes(url: str, partitions: int, count: int, workers: int) -> Generator[None]:
    """So many processes with so many workers each, all of which are ready."""
    command = [sys.executable, "-m", "benchmarks.idle_workers", "--of", url]
    command += ["--partitions", str(partitions), "--workers", str(workers)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for each in started:
            assert each.stdout is not None
            assert each.stdout.readline().strip() == READY
        yield
    finally:
        for each in started:
            each.kill()
            each.communicate()


async def work(url: str, partitions: int, count: int) -> None:
    """Let workers wait, each with connections of its own, until stdin closes."""
    workers: list[asyncio.Task[None]] = []
    for _ in range(count):
        fleet = Fleet(url, partitions=partitions)

        @fleet.agent
        async def noop() -> None:
            return None

        workers.append(asyncio.create_task(Worker(fleet).run()))
        await fleet.store()
    print(READY, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    del workers


async def measure(options: argparse.Namespace) -> None:
    """Print the cost of one worker."""
    async with servers(is_cluster=options.cluster) as (url, nodes):
        share = options.workers // options.processes
        # The first worker loads the scripts, which the others share.
        with processes(url, options.partitions, 1, 1):
            await asyncio.sleep(SETTLING_SECONDS)
            first = Counts.of(nodes)
        with processes(url, options.partitions, options.processes, share):
            await asyncio.sleep(SETTLING_SECONDS)
            before = Counts.of(nodes)
            await asyncio.sleep(options.seconds)
            after = Counts.of(nodes)
            # Afterwards: MONITOR costs the servers time.
            counts = await asyncio.gather(*(asyncio.to_thread(sent_to, node) for node in nodes))
    each = options.workers * (after.seconds - before.seconds)
    cpu = 1e6 * (after.cpu_seconds - before.cpu_seconds) / each
    connections = after.connections / options.workers
    memory = (after.memory - first.memory) / (options.workers - 1) / 1024
    print(f"{options.workers} idle workers, {options.partitions} partitions, {len(nodes)} servers")
    commands = sum(counts) / options.workers / MONITORED_SECONDS
    print(f"commands a second, each: {commands:.2f} (those that scripts call not included)")
    print(f"server CPU, each: {cpu:.0f} µs a second")
    print(f"connections, each: {connections:.1f}")
    print(f"server memory, each: {memory:.1f} KiB")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser("python -m benchmarks.idle_workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--of", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.of:
        asyncio.run(work(options.of, options.partitions, options.workers))
    else:
        asyncio.run(measure(options))


if __name__ == "__main__":
    main()
