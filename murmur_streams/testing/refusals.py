"""The contract of bad input: a ValueError that says the rule, and nothing written."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial, reduce
from typing import Any

import pytest

from murmur_streams.core.model.errors import InvalidInputError, PayloadTooLargeError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing import workbench
from murmur_streams.testing.fixtures import ContractFixtures, opened_with
from murmur_streams.testing.lifecycle import CALLS_ON_A_RUN, Call
from murmur_streams.testing.results import agent_result
from murmur_streams.testing.workbench import TARGET, Workbench, note

HOSTILE_IDS: list[Any] = [
    *["", " ", "a b", "a/b", "a\n", "a\x00", "é", "a\udc80", "{a}", "a*"],
    *["-a", ".a", ":a", "a" * 129],
    *[5, b"a"],
]


def named(values: Iterable[Any]) -> dict[str, Any]:
    """The values, each under a name that shows it."""
    return {f"{number}: {reprlib.repr(value)}": value for number, value in enumerate(values)}


def nested(depth: int) -> list[Any]:
    """A list in a list, and so on."""
    return reduce(lambda inner, _: [inner], range(depth - 1), list[Any]())


NOT_JSON: dict[str, object] = {
    "nan": math.nan,
    "infinity": [math.inf],
    "bytes": b"bytes",
    "a set": {1, 2},
    "an object": object(),
    "a number as a key": {1: 2},
    "101 levels": nested(101),
    "100000 levels": nested(100_000),
    "a lone surrogate": ["\udc80"],
    "a lone surrogate as a key": {"\udc80": 1},
    "a huge integer": 2**1024,
}
BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "run_id": named([*HOSTILE_IDS, None]),
    "target": named([*HOSTILE_IDS, None, "a:b"]),
    "tenant": named([*HOSTILE_IDS, "a:b", "a" * 65]),
    "input": NOT_JSON,
    "metadata": {name: {"a": value} for name, value in NOT_JSON.items()},
}
"""Values that ``create`` refuses, for each of its parameters."""
EARLIEST = datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))
LATEST = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))
BAD_EVENTS: dict[str, dict[str, Any]] = {
    "another run's id": {"run_id": "another"},
    "a naive timestamp": {"timestamp": datetime(2026, 1, 1)},  # noqa: DTZ001  # the point
    "a moment before the year 1 in UTC": {"timestamp": EARLIEST},
    "a moment after the year 9999 in UTC": {"timestamp": LATEST},
    "a lone surrogate as agent": {"agent": "\udc80"},
    "a lone surrogate as error": {"error": "\udc80"},
    "a lone surrogate as name": {"name": "\udc80"},
    "a lone surrogate as task": {"task_id": "\udc80"},
    **{f"data: {name}": {"data": data} for name, data in NOT_JSON.items()},
}
CALLS: dict[str, Call] = {**CALLS_ON_A_RUN, "delete": lambda store, run_id: store.delete(run_id)}
EVENT_CALLS: dict[str, Callable[[RunStore, str, RunEvent], Awaitable[object]]] = {
    "append": lambda store, run_id, event: store.append(run_id, note(run_id), event),
    "push_event": lambda store, run_id, event: store.push_event(run_id, event),
    "finish": lambda store, run_id, event: store.finish(run_id, RunState.COMPLETED, event=event),
}
SMALL = Limits(
    max_event_bytes=1000, max_result_bytes=1000, max_input_bytes=1000, max_metadata_bytes=1000
)


class RefusalContract(ContractFixtures):
    """Input that breaks a rule."""

    async def _assert_refused(
        self,
        store: RunStore,
        run_id: str,
        calls: Mapping[str, Callable[[], Awaitable[object]]],
        error: type[ValueError] = InvalidInputError,
    ) -> None:
        """Each of the calls raises the error, and none of them writes anything."""
        before = await self._stored(store, run_id)
        for name, call in calls.items():
            try:
                await call()
            except error:
                continue
            raise AssertionError(f"not refused: {name}")
        assert await self._stored(store, run_id) == before

    async def _stored(self, store: RunStore, run_id: str) -> object:
        return (
            await workbench.journal_of(store, run_id),
            await store.snapshot(run_id),
            await store.get_result(run_id),
            await store.get_input(run_id),
            await self.everything_stored(),
        )

    @pytest.mark.parametrize("name", BAD_OPTIONS)
    async def test_a_bad_create_is_refused(
        self, bench: Workbench, store: RunStore, run_id: str, name: str
    ) -> None:
        """An id, target or tenant outside its grammar is refused, and a value that is not JSON."""
        good: dict[str, Any] = {"run_id": bench.new_id(), "target": TARGET, "input": 1}
        calls = {
            shown: partial(store.create, **{**good, name: bad})
            for shown, bad in BAD_OPTIONS[name].items()
        }
        await self._assert_refused(store, run_id, calls)

    async def test_a_bad_id_is_refused_by_every_call(self, store: RunStore) -> None:
        for call in CALLS.values():
            for hostile in ("", "a b", "{a}", "a\n", "a" * 129):
                with pytest.raises(InvalidInputError):
                    await call(store, hostile)

    async def test_a_bad_tenant_is_refused_by_lists(self, store: RunStore, run_id: str) -> None:
        calls = {
            shown: partial(store.list_runs, tenant=bad)
            for shown, bad in BAD_OPTIONS["tenant"].items()
        }
        await self._assert_refused(store, run_id, calls)

    async def test_a_good_tenant_is_taken(self, bench: Workbench, store: RunStore) -> None:
        for tenant in ("a", "0", "A.b_c-9", "a" * 64):
            run_id = await bench.run(store, tenant=tenant)
            assert (await store.snapshot(run_id)).tenant == tenant

    @pytest.mark.parametrize("name", EVENT_CALLS)
    async def test_a_bad_event_is_refused(self, store: RunStore, run_id: str, name: str) -> None:
        """A bad event is refused, with all events of its call."""
        calls = {
            fault: partial(EVENT_CALLS[name], store, run_id, note(run_id).model_copy(update=bad))
            for fault, bad in BAD_EVENTS.items()
        }
        await self._assert_refused(store, run_id, calls)

    @opened_with(limits=SMALL)
    async def test_a_payload_over_its_limit_is_refused(
        self, bench: Workbench, store: RunStore, run_id: str
    ) -> None:
        large = "é" * 500
        event, result = note(run_id, data=large), agent_result(large)
        create = partial(store.create, bench.new_id(), TARGET)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            **{name: partial(call, store, run_id, event) for name, call in EVENT_CALLS.items()},
            "an input": lambda: create(input=large),
            "metadata": lambda: create(metadata={"a": large}),
            "a result": lambda: store.set_result(run_id, result),
            "a last result": lambda: store.finish(run_id, RunState.COMPLETED, result=result),
        }
        await self._assert_refused(store, run_id, calls, PayloadTooLargeError)

    async def test_an_event_has_less_than_256_kib(self, store: RunStore, run_id: str) -> None:
        """The default limit of an event is 256 KiB with all its fields."""
        await store.append(run_id, note(run_id, data="x" * (255 * 1024)))
        event = note(run_id, data="x" * (256 * 1024))
        calls = {"256 KiB": lambda: store.append(run_id, event)}
        await self._assert_refused(store, run_id, calls, PayloadTooLargeError)

    async def test_append_takes_1_to_500_events(self, store: RunStore, run_id: str) -> None:
        calls = {
            f"{count} events": partial(store.append, run_id, *workbench.notes(run_id, count))
            for count in (0, 501)
        }
        await self._assert_refused(store, run_id, calls)

    async def test_a_bad_result_is_refused(self, store: RunStore, run_id: str) -> None:
        """A result that is not an AgentResult or a GroupResult of JSON is refused."""
        results = {name: agent_result(value) for name, value in NOT_JSON.items()}
        others: list[Any] = [{"output": 1}, "done", 1, []]
        calls: dict[str, Callable[[], Awaitable[object]]] = {}
        for name, result in [*results.items(), *((repr(each), each) for each in others)]:
            calls[f"set_result: {name}"] = partial(store.set_result, run_id, result)
            calls[f"finish: {name}"] = partial(
                store.finish, run_id, RunState.COMPLETED, result=result
            )
        await self._assert_refused(store, run_id, calls)
        for other in others:
            with pytest.raises(ValueError, match="is an AgentResult or a GroupResult, not "):
                await store.set_result(run_id, other)

    async def test_a_bad_state_is_refused(self, store: RunStore, run_id: str) -> None:
        """A text that names no state is refused, and a live state as a run's end."""
        state: Any = "done"
        calls = {
            "set_state": lambda: store.set_state(run_id, state),
            "finish": lambda: store.finish(run_id, state),
        }
        await self._assert_refused(store, run_id, calls, ValueError)
        live = {
            f"finish as {state}": partial(store.finish, run_id, state) for state in workbench.LIVE
        }
        await self._assert_refused(store, run_id, live)

    async def test_a_refusal_leaves_the_run_usable(self, store: RunStore, run_id: str) -> None:
        with pytest.raises(InvalidInputError):
            await store.append(run_id, note(run_id, data=math.nan))
        await store.finish(run_id, RunState.COMPLETED, event=workbench.closing(run_id))
        assert len(await workbench.events_of(store, run_id)) == 1
