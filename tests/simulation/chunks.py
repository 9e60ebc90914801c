"""What each process of ``python -m tests.simulation`` executes."""

from __future__ import annotations

import gc
import logging

from tests.simulation.scenario import findings_of


def quiet() -> None:
    """The workers of simulations log what is expected."""
    logging.disable(logging.CRITICAL)
    gc.freeze()


def run_chunk(seeds: range) -> dict[int, list[str]]:
    """Run some seeds in one process; the findings of those that have some."""
    found = {seed: findings for seed in seeds if (findings := findings_of(seed)[0])}
    # Simulations run without collections: what they leave would make the next ones slower.
    gc.collect()
    return found
