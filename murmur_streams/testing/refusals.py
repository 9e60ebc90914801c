"""The contract of bad input: a ValueError that says the rule, and nothing written."""

# ruff: noqa: S101  # asserts are how a contract speaks

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from murmur_streams.core.model.errors import InvalidInputError, PayloadTooLargeError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.lifecycle import CALLS_ON_A_RUN
from murmur_streams.testing.results import agent_result
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import (
    TARGET,
    Workbench,
    closing,
    events_of,
    journal_of,
    note,
)

HOSTILE_IDS: list[object] = [
    "",
    " ",
    "a b",
    "a/b",
    "a\n",
    "a\x00",
    "é",
    "-a",
    ".a",
    ":a",
    "a" * 129,
    "{a}",
    "a*",
    "a\udc80",
    None,
    5,
    b"a",
]
HOSTILE_TARGETS: list[object] = [*HOSTILE_IDS, "a:b"]
HOSTILE_TENANTS: list[object] = [*(each for each in HOSTILE_TARGETS if each is not None), "a" * 65]


def nested(depth: int) -> list[Any]:
    """A list in a list, and so on."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


NO_JSON: dict[str, object] = {
    "nan": math.nan,
    "infinity": [math.inf],
    "bytes": b"bytes",
    "a set": {1, 2},
    "an object": object(),
    "a key that is no text": {1: 2},
    "101 levels": nested(101),
    "100000 levels": nested(100_000),
    "a lone surrogate": ["\udc80"],
    "a lone surrogate as a key": {"\udc80": 1},
    "a huge integer": 2**1024,
}
EARLIEST = datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))
LATEST = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))
BAD_EVENTS: dict[str, dict[str, object]] = {
    "another run's id": {"run_id": "another"},
    "a naive timestamp": {"timestamp": datetime(2026, 1, 1)},  # noqa: DTZ001  # the point
    "a moment before the year 1 in UTC": {"timestamp": EARLIEST},
    "a moment after the year 9999 in UTC": {"timestamp": LATEST},
    "a lone surrogate as agent": {"agent": "\udc80"},
    "a lone surrogate as error": {"error": "\udc80"},
    "a lone surrogate as name": {"name": "\udc80"},
    "a lone surrogate as task": {"task_id": "\udc80"},
    **{f"data: {name}": {"data": data} for name, data in NO_JSON.items()},
}
EVENT_CALLS: dict[str, Callable[[RunStore, str, RunEvent], Awaitable[object]]] = {
    "append": lambda store, run_id, event: store.append(run_id, note(run_id), event),
    "push_event": lambda store, run_id, event: store.push_event(run_id, event),
    "finish": lambda store, run_id, event: store.finish(run_id, RunState.COMPLETED, event=event),
}
SMALL = Limits(
    max_event_bytes=1000, max_result_bytes=1000, max_input_bytes=1000, max_metadata_bytes=1000
)


def event_with(run_id: str, **changes: object) -> RunEvent:
    """An event with fields that its class would refuse, or that it does not check."""
    fields: dict[str, Any] = {
        "type": RunEventType.CUSTOM,
        "run_id": run_id,
        "agent": None,
        "task_id": None,
        "error": None,
        "timestamp": datetime.now(tz=UTC),
        **changes,
    }
    return RunEvent.model_construct(**fields)


class RefusalContract(ContractRoom):
    """Input that breaks a rule."""

    async def _refused(
        self,
        store: RunStore,
        call: Callable[[str], Awaitable[object]],
        run_id: str,
        error: type[ValueError] = InvalidInputError,
    ) -> None:
        before = await self._stored(store, run_id)
        with pytest.raises(error):
            await call(run_id)
        assert await self._stored(store, run_id) == before

    async def _stored(self, store: RunStore, run_id: str) -> object:
        return (
            await journal_of(store, run_id),
            await store.snapshot(run_id),
            await store.get_result(run_id),
            await store.get_input(run_id),
            await self.everything_stored(),
        )

    @pytest.mark.parametrize("hostile", HOSTILE_IDS, ids=lambda value: ascii(value)[:20])
    async def test_an_id_outside_the_grammar_is_refused_by_create(
        self, bench: Workbench, store: RunStore, hostile: Any
    ) -> None:
        await self._refused(
            store, lambda _: store.create(hostile, TARGET, input=1), await bench.run(store)
        )

    @pytest.mark.parametrize("name", [*CALLS_ON_A_RUN, "delete"])
    async def test_an_id_outside_the_grammar_is_refused_by_every_call(
        self, store: RunStore, name: str
    ) -> None:
        async def delete(store: RunStore, run_id: str) -> bool:
            return await store.delete(run_id)

        call = {**CALLS_ON_A_RUN, "delete": delete}[name]
        for hostile in ("", "a b", "{a}", "a\n", "a" * 129):
            with pytest.raises(InvalidInputError):
                await call(store, hostile)

    @pytest.mark.parametrize("hostile", HOSTILE_TARGETS, ids=lambda value: ascii(value)[:20])
    async def test_a_target_outside_the_grammar_is_refused(
        self, bench: Workbench, store: RunStore, hostile: Any
    ) -> None:
        await self._refused(
            store, lambda _: store.create(bench.new_id(), hostile), await bench.run(store)
        )

    @pytest.mark.parametrize("hostile", HOSTILE_TENANTS, ids=lambda value: ascii(value)[:20])
    async def test_a_tenant_outside_the_grammar_is_refused(
        self, bench: Workbench, store: RunStore, hostile: Any
    ) -> None:
        run_id = await bench.run(store)
        await self._refused(
            store, lambda _: store.create(bench.new_id(), TARGET, tenant=hostile), run_id
        )
        await self._refused(store, lambda _: store.list_runs(tenant=hostile), run_id)

    @pytest.mark.parametrize("tenant", ["a", "0", "A.b_c-9", "a" * 64])
    async def test_a_tenant_inside_the_grammar_is_taken(
        self, bench: Workbench, store: RunStore, tenant: str
    ) -> None:
        run_id = await bench.run(store, tenant=tenant)
        assert (await store.snapshot(run_id)).tenant == tenant

    @pytest.mark.parametrize("what", BAD_EVENTS)
    @pytest.mark.parametrize("name", EVENT_CALLS)
    async def test_a_bad_event_is_refused(
        self, bench: Workbench, store: RunStore, name: str, what: str
    ) -> None:
        async def call(run_id: str) -> object:
            event = event_with(**{"run_id": run_id, **BAD_EVENTS[what]})  # pyright: ignore[reportArgumentType]
            return await EVENT_CALLS[name](store, run_id, event)

        await self._refused(store, call, await bench.run(store))

    @pytest.mark.parametrize("name", EVENT_CALLS)
    async def test_an_event_over_its_limit_is_refused(self, bench: Workbench, name: str) -> None:
        store = bench.open(limits=SMALL)

        async def call(run_id: str) -> object:
            return await EVENT_CALLS[name](store, run_id, event_with(run_id, data="é" * 500))

        await self._refused(store, call, await bench.run(store), PayloadTooLargeError)

    async def test_an_event_of_256_kib_is_over_the_default_limit(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.append(run_id, event_with(run_id, data="x" * (255 * 1024)))
        await self._refused(
            store,
            lambda run_id: store.append(run_id, event_with(run_id, data="x" * (256 * 1024))),
            run_id,
            PayloadTooLargeError,
        )

    @pytest.mark.parametrize("count", [0, 501])
    async def test_append_of_too_few_or_too_many_events_is_refused(
        self, bench: Workbench, store: RunStore, count: int
    ) -> None:
        await self._refused(
            store,
            lambda run_id: store.append(run_id, *[note(run_id)] * count),
            await bench.run(store),
        )

    @pytest.mark.parametrize("what", NO_JSON)
    async def test_an_input_that_is_no_json_is_refused(
        self, bench: Workbench, store: RunStore, what: str
    ) -> None:
        given: Any = NO_JSON[what]
        await self._refused(
            store,
            lambda _: store.create(bench.new_id(), TARGET, input=given),
            await bench.run(store),
        )

    @pytest.mark.parametrize("what", NO_JSON)
    async def test_metadata_that_is_no_json_is_refused(
        self, bench: Workbench, store: RunStore, what: str
    ) -> None:
        given: Any = {"a": NO_JSON[what]}
        await self._refused(
            store,
            lambda _: store.create(bench.new_id(), TARGET, metadata=given),
            await bench.run(store),
        )

    @pytest.mark.parametrize("given", [{"input": "é" * 500}, {"metadata": {"a": "é" * 500}}])
    async def test_what_a_run_is_created_with_is_refused_over_its_limit(
        self, bench: Workbench, given: dict[str, Any]
    ) -> None:
        store = bench.open(limits=SMALL)
        await self._refused(
            store,
            lambda _: store.create(bench.new_id(), TARGET, **given),
            await bench.run(store),
            PayloadTooLargeError,
        )

    @pytest.mark.parametrize("what", NO_JSON)
    async def test_a_result_that_is_no_json_is_refused(
        self, bench: Workbench, store: RunStore, what: str
    ) -> None:
        result, run_id = agent_result(NO_JSON[what]), await bench.run(store)
        await self._refused(store, lambda run_id: store.set_result(run_id, result), run_id)
        await self._refused(
            store, lambda run_id: store.finish(run_id, RunState.COMPLETED, result=result), run_id
        )

    @pytest.mark.parametrize("given", [{"output": 1}, "done", 1, []], ids=repr)
    async def test_what_is_no_result_is_refused(
        self, bench: Workbench, store: RunStore, given: Any
    ) -> None:
        run_id = await bench.run(store)
        await self._refused(store, lambda run_id: store.set_result(run_id, given), run_id)
        await self._refused(
            store, lambda run_id: store.finish(run_id, RunState.COMPLETED, result=given), run_id
        )
        with pytest.raises(ValueError, match="is an AgentResult or a GroupResult, not "):
            await store.set_result(run_id, given)

    async def test_a_result_over_its_limit_is_refused(self, bench: Workbench) -> None:
        store = bench.open(limits=SMALL)
        result, run_id = agent_result("é" * 500), await bench.run(store)
        await self._refused(
            store, lambda run_id: store.set_result(run_id, result), run_id, PayloadTooLargeError
        )
        await self._refused(
            store,
            lambda run_id: store.finish(run_id, RunState.COMPLETED, result=result),
            run_id,
            PayloadTooLargeError,
        )

    async def test_a_state_that_is_none_is_refused(self, bench: Workbench, store: RunStore) -> None:
        state: Any = "done"
        run_id = await bench.run(store)
        await self._refused(
            store, lambda run_id: store.set_state(run_id, state), run_id, ValueError
        )
        await self._refused(store, lambda run_id: store.finish(run_id, state), run_id, ValueError)

    @pytest.mark.parametrize("state", [RunState.PENDING, RunState.RUNNING], ids=str)
    async def test_finish_with_a_live_state_is_refused(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        await self._refused(
            store, lambda run_id: store.finish(run_id, state), await bench.run(store)
        )

    async def test_a_refusal_leaves_the_run_usable(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        with pytest.raises(InvalidInputError):
            await store.append(run_id, event_with(run_id, data=math.nan))
        await store.finish(run_id, RunState.COMPLETED, event=closing(run_id))
        assert len(await events_of(store, run_id)) == 1
