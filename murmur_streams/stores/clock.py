"""The clock of the stores, where no other is given."""

from __future__ import annotations

import time


def wall_clock_ms() -> int:
    """Milliseconds of Unix time."""
    return time.time_ns() // 1_000_000
