"""Tasks of the store's own: they outlive whoever happened to need them first."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start_task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start a task that inherits no context variable of its caller.

    The running loop's task factory sees none either: one that marks or guards the caller's tasks
    leaves this one alone.
    """
    return contextvars.Context().run(lambda: asyncio.create_task(work, name=name))
