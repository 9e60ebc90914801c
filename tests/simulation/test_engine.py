"""The engine in simulations: seeds pass, repeat themselves, and find what is broken on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenario import findings_of

ROOT = Path(__file__).resolve().parents[2]
FEW = 30
"""``make check`` runs 10,000."""
MOST_NEEDED = 300
"""Each mutation is found by one of so many seeds."""


def trace_of(seed: int) -> tuple[int, int]:
    """A digest of the steps, and one of all that happened."""
    notes: list[str] = []
    _, simulation = findings_of(seed, notes.append)
    return 0 if simulation is None else simulation.loop.digest, crc32("\n".join(notes).encode())


@pytest.mark.parametrize("seed", range(FEW))
def test_a_seed_passes(seed: int) -> None:
    """No promise is broken, nothing is stuck, and nothing is left running."""
    assert findings_of(seed)[0] == []


def test_the_same_seed_takes_the_same_steps() -> None:
    """In this process, and in one whose sets of texts have another order."""
    seeds = (1, 2, 3)
    program = "from tests.simulation.test_engine import trace_of\n"
    program += f"print([trace_of(seed) for seed in {seeds}])"
    here = [trace_of(seed) for seed in seeds]
    assert len({*here}) == len(seeds)
    assert [trace_of(seed) for seed in seeds] == here
    done = subprocess.run(
        (sys.executable, "-c", program),
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(here), done.stderr


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_broken_engine_is_found(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way to break it is found by one of the first seeds."""
    mutate(monkeypatch)
    assert any(findings_of(seed)[0] for seed in range(MOST_NEEDED))
