"""``python -m tests.simulation``: the engine's Python in simulations, each made from a seed.

make simulate                  # 10,000 seeds, from 0
make simulate SEEDS=100000 SEED=10000
make simulate SEED=7           # one of them, with all that happened in it
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.chunks import quiet, run_chunk
from tests.simulation.scenario import findings_of

SEEDS, CHUNK, CHUNKS_OF_A_PROCESS = 10_000, 25, 40
MOST_SHOWN = 20


def main(argv: list[str]) -> int:
    """Run the seeds and print what was found; 1 when something was."""
    parser = argparse.ArgumentParser("python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the first seed; alone, it is replayed")
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(argv)
    if given.seed is not None and given.seeds in {None, 1}:
        return replay(given.seed)
    began, first = time.perf_counter(), given.seed or 0
    seeds = range(first, first + (given.seeds or SEEDS))
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    found: dict[int, list[str]] = {}
    for at in range(0, len(chunks), CHUNKS_OF_A_PROCESS * given.processes):
        # What seeds leave behind makes later ones slower, so new processes begin now and then.
        with ProcessPoolExecutor(given.processes, initializer=quiet) as pool:
            block = chunks[at : at + CHUNKS_OF_A_PROCESS * given.processes]
            for part in pool.map(run_chunk, block):
                found |= part
    seconds = time.perf_counter() - began
    for seed, findings in [*found.items()][:MOST_SHOWN]:
        print(f"seed {seed}:", *findings[:3], sep="\n    ")
    rate = len(seeds) / seconds
    print(f"{len(seeds) - len(found)} seeds passed, {len(found)} failed", end="")
    print(f" in {seconds:.1f} s ({rate:.0f} seeds a second)")
    return 1 if found else 0


def replay(seed: int) -> int:
    """Run one seed, and print all that happened."""
    quiet()
    notes: list[str] = []
    findings, simulation = findings_of(seed, notes.append)
    print(*notes, sep="\n")
    for finding in findings:
        print(f"FOUND: {finding}")
    if simulation is not None:
        steps, digest = simulation.loop.steps, simulation.loop.digest & 0xFFFFFFFF
        print(f"seed {seed}: {len(findings)} findings, {steps} steps, digest {digest:08x}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
