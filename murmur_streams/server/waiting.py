"""Requests that wait for a run: the ``Prefer: wait`` header, and waits that a drain also ends."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from fastapi import Request

from murmur_streams.core.model.errors import CursorGapError
from murmur_streams.core.model.run import Run
from murmur_streams.server.auth.access import pod_of
from murmur_streams.server.auth.principal import Principal
from murmur_streams.server.problems import ProblemError
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.work_store import WorkStore

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rf'(?:{_NAME}|"(?:[^"\\]|\\.)*")'
_PREFERENCE = re.compile(
    rf"\s*({_NAME})\s*(?:=\s*({_TEXT})\s*)?(?:;\s*(?:{_NAME}\s*(?:=\s*{_TEXT}\s*)?)?)*(?:,|$)"
)
_LONGEST_NUMBER = 9


def preferred_wait(request: Request, most_seconds: float) -> int | None:
    """The whole seconds of ``Prefer: wait=N`` (RFC 7240), capped at what the server grants.

    None without one. A header that cannot be parsed is ignored, as the RFC asks.
    """
    text, at = ",".join(request.headers.getlist("Prefer")), 0
    while at < len(text):
        found = _PREFERENCE.match(text, at)
        if found is None:
            return None
        if found[1].lower() == "wait":
            # The RFC: of two, the first counts.
            seconds = (found[2] or "").strip('"')
            if not (seconds.isascii() and seconds.isdigit()):
                return None
            most = math.floor(most_seconds)
            return most if len(seconds.lstrip("0")) > _LONGEST_NUMBER else min(int(seconds), most)
        at = found.end()
    return None


async def until(request: Request, work: Coroutine[Any, Any, object], seconds: float) -> bool:
    """Wait for work to finish; return whether it did. Its exceptions are raised.

    The wait ends early when its time is over, the pod drains, or the client leaves.
    """
    working = start_task(work, "wait for a run")
    drain = start_task(pod_of(request).drain.wait(), "wait for the drain")
    gone = start_task(_gone(request), "wait for the client's end")
    try:
        await asyncio.wait(
            {working, drain, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if not working.done():
            return False
        await working
        return True
    finally:
        await end_tasks({working, drain, gone})


async def until_ended(request: Request, who: Principal, run: Run, seconds: float) -> bool:
    """Wait for a run's end, if the pod accepts another open stream; return whether it ended."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(pod_of(request).streaming(who))
        except ProblemError:
            # The request itself has succeeded: only the wait is refused.
            return False
        return await until(request, ended(await pod_of(request).store(), run), seconds)


async def ended(store: WorkStore, run: Run) -> None:
    """Return when the run's stream has ended."""
    while not run.state.is_terminal:
        # Entries that were trimmed meanwhile do not matter here: only the end does.
        with contextlib.suppress(CursorGapError):
            async with aclosing(store.stream(run.run_id, after=run.cursor)) as events:
                async for _ in events:
                    pass
        run = await store.snapshot(run.run_id)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
