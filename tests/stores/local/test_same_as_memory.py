"""The same commands at the same moments leave the same runs in memory, SQLite and RocksDB."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from murmur_streams import (
    AgentResult,
    InMemoryRunStore,
    MurmurError,
    RunEvent,
    RunEventType,
    RunProgress,
    RunState,
    RunStore,
)
from tests.stores.local.stores import STORES, Clock

RUN_IDS = ("one", "two")
TARGET = "researcher"
TERMINAL = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)

Step = tuple[str, str, Any]
STEPS = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(RUN_IDS), st.sampled_from([None, {"q": "é\x00"}])),
    st.tuples(st.just("append"), st.sampled_from(RUN_IDS), st.integers(1, 3)),
    st.tuples(st.just("expect"), st.sampled_from(RUN_IDS), st.integers(0, 6)),
    st.tuples(st.just("push"), st.sampled_from(RUN_IDS), st.sampled_from([*RunEventType])),
    st.tuples(st.just("progress"), st.sampled_from(RUN_IDS), st.integers(0, 5)),
    st.tuples(st.just("state"), st.sampled_from(RUN_IDS), st.sampled_from([*RunState])),
    st.tuples(st.just("result"), st.sampled_from(RUN_IDS), st.integers()),
    st.tuples(st.just("finish"), st.sampled_from(RUN_IDS), st.sampled_from(TERMINAL)),
    st.tuples(st.just("cancel"), st.sampled_from(RUN_IDS), st.sampled_from([None, "enough"])),
    st.tuples(st.just("delete"), st.sampled_from(RUN_IDS), st.booleans()),
    st.tuples(st.just("rebuild"), st.sampled_from(RUN_IDS), st.none()),
    st.tuples(st.just("move"), st.sampled_from(RUN_IDS), st.none()),
    st.tuples(st.just("wait"), st.sampled_from(RUN_IDS), st.sampled_from([1, 900, 5_000, 70_000])),
)


async def _create(store: RunStore, run_id: str, given: Any) -> object:
    return await store.create(run_id, TARGET, input=given, metadata={"tag": "x"})


async def _append(store: RunStore, run_id: str, given: int) -> object:
    return await store.append(run_id, *(_note(run_id, each) for each in range(given)))


async def _expect(store: RunStore, run_id: str, given: int) -> object:
    return await store.append(run_id, _note(run_id, given), expected_version=given)


async def _push(store: RunStore, run_id: str, given: RunEventType) -> object:
    return await store.push_event(run_id, _event(run_id, given))


async def _progress(store: RunStore, run_id: str, given: int) -> object:
    return await store.update_progress(run_id, RunProgress(total=5, completed=given))


async def _result(store: RunStore, run_id: str, given: int) -> object:
    result = AgentResult[Any](output=given, agent_name=TARGET, task_id="t")
    return await store.set_result(run_id, result)


async def _finish(store: RunStore, run_id: str, given: RunState) -> object:
    event = _event(run_id, RunEventType.AGENT_COMPLETED)
    return await store.finish(run_id, given, event=event, error="why")


async def _cancel(store: RunStore, run_id: str, given: str | None) -> object:
    return await store.request_cancel(run_id, reason=given)


async def _delete(store: RunStore, run_id: str, given: Any) -> object:
    return await store.delete(run_id, force=given)


async def _move(store: RunStore, run_id: str, given: None) -> object:
    archive = await store.archive(run_id)
    await store.delete(run_id, force=True)
    return await store.restore(archive)


ACTIONS: dict[str, Callable[[RunStore, str, Any], Awaitable[object]]] = {
    "create": _create,
    "append": _append,
    "expect": _expect,
    "push": _push,
    "progress": _progress,
    "state": lambda store, run_id, given: store.set_state(run_id, given),
    "result": _result,
    "finish": _finish,
    "cancel": _cancel,
    "delete": _delete,
    "rebuild": lambda store, run_id, given: store.rebuild(run_id),
    "move": _move,
}


@given(st.lists(STEPS, max_size=25))
@settings(max_examples=400)
def test_the_same_commands_leave_the_same_runs(steps: list[Step]) -> None:
    """Random commands give the same runs, journals and feed in all three stores."""
    asyncio.run(_compare(steps))


async def _compare(steps: list[Step]) -> None:
    clock = Clock()
    options: dict[str, Any] = {"clock": clock, "ttl_seconds": 60, "live_ttl_seconds": 100}
    with tempfile.TemporaryDirectory() as folder:
        stores: list[Any] = [InMemoryRunStore(**options)]
        stores += [kind(Path(folder) / name, **options) for name, kind in STORES.items()]
        try:
            for step in steps:
                clock.ms += step[2] if step[0] == "wait" else 10
                answers = [await _take(store, step) for store in stores]
                assert answers[1:] == answers[:1] * 2, step
            for store in stores:
                await store.sweep()
            reported = [await _all(store) for store in stores]
            assert reported[1] == reported[0]
            assert reported[2] == reported[0]
        finally:
            for store in stores:
                await store.close()


async def _take(store: RunStore, step: Step) -> object:
    what, run_id, given = step
    if what == "wait":
        return await store.sweep()
    try:
        return await ACTIONS[what](store, run_id, given)
    except MurmurError as error:
        return type(error), str(error)


async def _all(store: RunStore) -> object:
    """Everything that can be read, without the epochs, which are drawn."""
    page = await store.list_runs()
    runs = [replace(run, epoch="") for run in page.runs]
    journals = {
        run.run_id: [
            (each.id, _without_epoch(each.fields)) async for each in store.journal(run.run_id)
        ]
        for run in page.runs
    }
    results = {run.run_id: (await store.get_result(run.run_id)) for run in page.runs}
    inputs = {run.run_id: (await store.get_input(run.run_id)) for run in page.runs}
    audits = [(await store.audit(run.run_id)).problems for run in page.runs]
    assert not any(audits), audits
    return runs, journals, results, inputs


def _without_epoch(fields: Any) -> dict[str, str]:
    return {name: text for name, text in fields.items() if name != "epoch"}


def _note(run_id: str, number: int) -> RunEvent:
    return RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name="n", data=number, timestamp=_AT)


def _event(run_id: str, kind: RunEventType) -> RunEvent:
    return RunEvent(type=kind, run_id=run_id, agent=TARGET, timestamp=_AT)


_AT = RunEvent(type=RunEventType.LOG, run_id="x").timestamp
