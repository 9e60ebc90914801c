"""Waiting for what other processes do; patience decides nothing but when a test gives up."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import psutil

PATIENCE_SECONDS = 60.0


def wait_until(condition: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it never came about: {why}"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; a zombie, which awaits its parent's wait(), has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def next_object(process: subprocess.Popen[str], key: str) -> dict[str, Any]:
    """Read on to the next line that has this key."""
    assert process.stdout is not None
    for line in process.stdout:
        found = json.loads(line)
        if key in found:
            return found
    raise AssertionError(f"no {key!r} came; stderr: {process.communicate()[1]}")
