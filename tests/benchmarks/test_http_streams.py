"""The benchmark of open streams runs. No test judges its results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def test_a_quick_benchmark_of_open_streams_prints_every_figure() -> None:
    """A benchmark with twenty streams prints its rows and no warning."""
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--streams", "20", "--quick"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    for figure in ("20 open streams", "KiB a stream", "idle for", "p99", "open files", "again"):
        assert figure in done.stdout
