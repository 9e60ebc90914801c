"""Each refusal of a server and its outcome: the table of docs/server-faults.md, call by call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from murmur_streams.core.model.errors import (
    StoreConfigurationError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Beat, TargetRule
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import Answer, FaultProxy, Parts, calls, commands
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_stream, note
from tests.stores.faults.waiting import wait_until

RETRIED: dict[str, type[StoreError]] = {
    "LOADING": StoreUnavailableError,
    "MASTERDOWN": StoreUnavailableError,
    "READONLY": StoreReadOnlyError,
    "BUSY": StoreUnavailableError,
    "TRYAGAIN": StoreUnavailableError,
    "CLUSTERDOWN": StoreUnavailableError,
    "NOREPLICAS": StoreUnavailableError,
}
"""Asked again for ``retry_seconds``; then this error."""
AT_ONCE: dict[str, type[StoreError]] = {
    "MISCONF": StoreReadOnlyError,
    "OOM": StoreFullError,
    "NOAUTH": StoreConfigurationError,
    "WRONGPASS": StoreConfigurationError,
    "NOPERM": StoreConfigurationError,
}
"""Raised at once."""
DOCS = Path(__file__).parents[3] / "docs" / "server-faults.md"
Call = Callable[[RedisRunStore], Awaitable[object]]


def refusing(code: str, which: Callable[[Parts], bool], times: int | None = None) -> Answer:
    """Answers of a proxy: so many refusals of these requests, None for all of them."""
    left: Iterator[int] = iter(range(times)) if times is not None else iter(int, 1)
    refusal = f"-{code} said by the test\r\n".encode()
    return lambda parts: refusal if which(parts) and next(left, None) is not None else None


async def calls_on(store: RedisRunStore) -> dict[str, tuple[Call, Callable[[Parts], bool]]]:
    """Calls of each kind, and the requests that they send."""
    await store.submit("run", "work")
    claim = (await store.queue(15).claim("worker", [TargetRule("work")], 1)).claims[0]
    return {
        "append": (lambda s: s.append("run", note("run", "a")), calls("append")),
        "heartbeat": (lambda s: s.queue(15).heartbeat([Beat(claim)]), calls("heartbeat")),
        "tend": (lambda s: s.queue(15).tend("worker", ["work"], 0.001), calls("tend")),
        "sweep": (lambda s: s.sweep(), calls("sweep")),
        "status": (lambda s: s.get_status("run"), commands("HMGET")),
        "release": (lambda s: s.release("run", claim.token, "worker_stopped"), calls("release")),
        "create": (lambda s: s.create("other", "work"), calls("create")),
        "finish": (lambda s: s.finish("run", RunState.COMPLETED), calls("finish")),
    }


@pytest.mark.parametrize("code", RETRIED)
@pytest.mark.fault("F17", "F23")
async def test_a_refusal_that_passes_is_not_noticed(
    code: str, proxy: FaultProxy, store: RedisRunStore
) -> None:
    """Two refusals of any kind of call, and the third try is answered."""
    for call, which in (await calls_on(store)).values():
        proxy.answer = refusing(code, which, 2)
        await call(store)
    proxy.answer = None
    assert (await store.audit("run")).problems == ()


@pytest.mark.parametrize("code", RETRIED | AT_ONCE)
@pytest.mark.fault("F23")
async def test_a_refusal_that_stays_ends_in_its_error(
    code: str, proxy: FaultProxy, make_store: StoreMaker
) -> None:
    """Every kind of call ends with the class of the table, and nothing was written."""
    store = make_store(proxy.url, retry_seconds=0.1)
    for name, (call, which) in (await calls_on(store)).items():
        proxy.answer = refusing(code, which)
        with pytest.raises((RETRIED | AT_ONCE)[code]) as caught:
            await call(store)
        assert type(caught.value) is (RETRIED | AT_ONCE)[code], name
    proxy.answer = None
    assert (await store.snapshot("run")).state is RunState.RUNNING


@pytest.mark.parametrize("code", AT_ONCE)
async def test_a_lasting_refusal_is_raised_at_once(
    code: str, proxy: FaultProxy, store: RedisRunStore
) -> None:
    """With retries for 60 seconds, the first answer is the last."""
    for call, which in (await calls_on(store)).values():
        proxy.answer = refusing(code, which)
        with pytest.raises(AT_ONCE[code]):
            await asyncio.wait_for(call(store), 20)
    proxy.answer = None


@pytest.mark.parametrize("code", RETRIED)
async def test_a_claim_is_tried_once(code: str, proxy: FaultProxy, store: RedisRunStore) -> None:
    """A claim is the worker's to repeat: the store raises at once, and the next one succeeds."""
    await store.submit("run", "work")
    proxy.answer = refusing(code, calls("claim"), 1)
    queue = store.queue(15)
    with pytest.raises(RETRIED[code]):
        await queue.claim("worker", [TargetRule("work")], 1)
    assert len((await queue.claim("worker", [TargetRule("work")], 1)).claims) == 1


@pytest.mark.parametrize("code", [*RETRIED, "UNBLOCKED"])
async def test_a_blocked_read_goes_on(code: str, proxy: FaultProxy, store: RedisRunStore) -> None:
    """A follower whose blocked read is refused misses nothing and sees nothing twice."""
    await store.create("run", "work")
    refused: list[Parts] = []
    refusal = f"-{code} said by the test\r\n".encode()

    def answer(parts: Parts) -> bytes | None:
        if parts[0] == b"XREAD" and b"BLOCK" in parts and len(refused) < 2:
            refused.append(parts)
            return refusal
        return None

    proxy.answer = answer
    following = asyncio.create_task(names_in_stream(store, "run"))
    await wait_until(lambda: len(refused) == 2, "two blocked reads were refused")
    await store.append("run", note("run", "a"))
    await store.finish("run", RunState.COMPLETED)
    assert [name for name in await following if name] == ["a"]


def test_the_documentation_has_every_code() -> None:
    """Each code stands in the table with the error that it ends in."""
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    for code, kind in {**RETRIED, **AT_ONCE}.items():
        assert any(f"`{code}`" in row and f"`{kind.__name__}`" in row for row in rows), code
    assert any("`UNBLOCKED`" in row for row in rows)
