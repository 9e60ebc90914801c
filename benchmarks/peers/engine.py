"""What every engine can do, and the job that counts."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.meter import command

CONCURRENCY = 100
DONE = "bench:done"
URL = "BENCH_URL"
"""The variable of the environment that names the server."""
TOGETHER = 100
"""A worker reports every so many no-op jobs."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine, for a caller.

    Args:
        submit: submits one no-op job.
        ask: submits one job that returns the time at which it began, in Unix seconds, and returns
            that time when the caller has it.
        cancel: how long a cancel takes to arrive in a job, in milliseconds; None: not measured.
    """

    submit: Callable[[], Awaitable[object]]
    ask: Callable[[], Awaitable[float]]
    cancel: Callable[[], Awaitable[float]] | None = None


_numbers = itertools.count(1)


def count_job() -> None:
    """Called by each no-op job: every hundredth one sets a bit for the caller.

    So the clock stops at the same moment for every engine, whatever its results are.
    """
    hundreds, rest = divmod(next(_numbers), TOGETHER)
    if not rest:
        command(os.environ[URL], "SETBIT", DONE, str(hundreds), "1")


def server_url() -> str:
    """The server, in a worker or in a caller."""
    return os.environ[URL]


def imported(name: str) -> Any:
    """A module of a peer, which the environment of the type checker does not have."""
    from importlib import import_module

    return import_module(name)
