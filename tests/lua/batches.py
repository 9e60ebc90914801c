"""Commits of many runs, and what comes before them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from murmur_streams.core.model.commands import (
    Append,
    Checkpoint,
    Create,
    Delete,
    DeliverCancel,
    Finish,
    PushEvent,
    Release,
    RequestCancel,
    Seal,
    SetResult,
    SetState,
    UpdateProgress,
)
from murmur_streams.core.model.states import RunState
from tests.lua.sandbox import caught_call
from tests.lua.scenarios import CLOSING, EVENT, PAYLOAD, Script, Stage, progress
from tests.stores.redis.hand import calls_by_hand


async def batch_of_all(stage: Stage) -> Script:
    """Every command but restore, on runs in the states that they need, two of some runs."""
    keys = stage.keys
    claims = {run_id: await stage.held(run_id) for run_id in ("b", "h", "i", "k", "l")}
    await stage.send(RequestCancel(), "k")
    dead = Finish(RunState.FAILED, error="no", claim=claims["l"].token, dead="failed")
    await stage.send(dead, "l")
    letter = stage.admin.hget(keys.run("l"), "letter").decode()
    for run_id in "aefgj":
        await stage.submit(run_id)
    await stage.store.create("d", "work", input=1, tenant="acme")
    for run_id in "fj":
        await stage.send(SetState(RunState.COMPLETED), run_id)
    await stage.send(Finish(RunState.FAILED), "g")
    new = Create("work", "e", PAYLOAD, "{}", "acme", queued=True, deadline_ms=3_600_000)
    calls = calls_by_hand(stage.hand(), stage.short)
    return await caught_call(
        stage,
        asyncio.gather(
            calls.execute("a", Append((EVENT, CLOSING))),
            calls.execute("a", Append((EVENT,))),
            calls.execute("b", Finish(RunState.COMPLETED, result=PAYLOAD, claim=claims["b"].token)),
            calls.execute("c", new),
            calls.execute("n", Create("work", "e", PAYLOAD)),
            calls.execute("d", Append((EVENT, EVENT))),
            calls.execute("a", PushEvent(CLOSING)),
            calls.execute("e", RequestCancel("why", "host")),
            calls.execute("f", PushEvent(CLOSING)),
            calls.execute("g", SetResult(PAYLOAD)),
            calls.execute("g", Delete()),
            calls.execute("h", Checkpoint(PAYLOAD, claims["h"].token)),
            calls.execute("i", UpdateProgress(progress(3, 1), claim=claims["i"].token)),
            calls.execute("j", Seal()),
            calls.execute("k", DeliverCancel(claims["k"].token)),
            calls.execute("k", Release("worker_stopped", claims["k"].token)),
            calls.execute("h", Release("failed", claims["h"].token, 1_000, "no")),
            calls.execute("d", SetState(RunState.RUNNING)),
            calls.requeue("m", new, letter),
        ),
    )


async def batch_that_frees(stage: Stage) -> Script:
    """Commands that are executed while the server has no free memory."""
    claims = {run_id: await stage.held(run_id) for run_id in ("b", "h")}
    for run_id in "aeg":
        await stage.submit(run_id)
    calls = calls_by_hand(stage.hand(), stage.short)
    name, keys, args = await caught_call(
        stage,
        asyncio.gather(
            calls.execute("b", Finish(RunState.COMPLETED, result=PAYLOAD, claim=claims["b"].token)),
            calls.execute("a", SetState(RunState.FAILED)),
            calls.execute("e", RequestCancel("why", "host")),
            calls.execute("g", Delete(force=True)),
            calls.execute("h", Release("failed", claims["h"].token, 1_000, "no")),
        ),
    )
    args[4] = "freeing"
    return name, keys, args


BATCHES: dict[str, Callable[[Stage], Awaitable[Script]]] = {
    "all": batch_of_all,
    "freeing": batch_that_frees,
}
