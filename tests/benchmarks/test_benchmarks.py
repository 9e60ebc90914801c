"""The benchmarks run. No test judges their results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def test_a_quick_benchmark_prints_every_figure_beside_its_floors() -> None:
    """`--quick` measures everything once, and prints no warning."""
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    for figure in (
        "floor: minimal script, redis-py, in turn",
        "floor: our script, raw, by 100",
        "append, in turn",
        "append, 100 tasks on one run",
        "append, 100 tasks on 100 runs",
        "floor: XADD to XREAD BLOCK",
        "append to subscriber",
        "replay of",
        "idle subscriptions",
        "no-op runs, one worker process",
        "submit to start",
        "cancel() to CancelledError",
        "an idle worker",
        "20 open streams",
    ):
        assert figure in done.stdout
