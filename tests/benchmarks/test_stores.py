"""The benchmark of the stores runs. No test judges its results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.store_table import FLOORS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
NUMBER = r"\s+[\d,.]+"
OF_A_STORE = (
    "create, in turn",
    "append, in turn",
    "append, 100 tasks on one run",
    "append, 100 tasks on 100 runs",
    "append to subscriber, p50",
    "append to subscriber, p99",
    "replay",
    "get_status, in turn",
)


def test_a_quick_benchmark_of_the_stores_prints_every_figure() -> None:
    """A row has the figures of both libraries; each floor has a row and a ratio."""
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--stores", "--quick"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    for title, times in (
        *((title, 4) for title in OF_A_STORE),
        ("... events received", 8),
        ("on disk, an event", 2),
        ("building an event, no store", 1),
    ):
        rows = re.findall(rf"^  {re.escape(title)}{NUMBER * 6}", done.stdout, re.MULTILINE)
        assert len(rows) == times, title
    for title, _ in FLOORS.values():
        assert re.search(rf"^  {re.escape(title)}{NUMBER * 3}", done.stdout, re.MULTILINE), title
        assert f" of {title}\n" in done.stdout
