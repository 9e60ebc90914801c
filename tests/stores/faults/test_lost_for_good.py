"""When retries run out, the error says what is known; and nothing happens behind its back."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from murmur_streams.core.model.errors import (
    EmbeddedServerError,
    MurmurError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.testing.faults import (
    Fault,
    FaultProxy,
    always,
    calls,
    commands,
    in_turn,
    nothing,
    once,
)
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_journal, note
from tests.stores.faults.waiting import wait_until

SHORT = 0.2
"""Seconds of retries in these tests."""


@pytest.fixture
async def hasty(proxy: FaultProxy, make_store: StoreMaker) -> RedisRunStore:
    """A store that gives up soon, with a run."""
    store = make_store(proxy.url, retry_seconds=SHORT)
    await store.create("run", "work")
    return store


@pytest.mark.parametrize(
    ("fault", "written"),
    [(Fault.DROP_REPLY, ["a"]), (Fault.DROP_REQUEST, []), (Fault.STALL, ["a"])],
)
@pytest.mark.fault("F4")
async def test_a_write_without_an_answer_is_unknown(
    fault: Fault,
    written: list[str],
    proxy: FaultProxy,
    hasty: RedisRunStore,
    straight: RedisRunStore,
) -> None:
    """It was applied at most once."""
    proxy.plan = always(fault, calls("append"))
    with pytest.raises(OutcomeUnknownError, match=r"append of run 'run' .* once or not at all"):
        await hasty.append("run", note("run", "a"))
    proxy.plan = always(Fault.NONE, calls())
    assert await hasty.append("run", note("run", "b")) == 2 + len(written)
    assert await names_in_journal(straight, "run") == [*written, "b"]


async def test_a_server_that_was_never_reached_has_not_written(
    proxy: FaultProxy, hasty: RedisRunStore, straight: RedisRunStore
) -> None:
    """The error is StoreUnavailableError, so the caller may safely write again."""
    await shut_and_noticed(proxy, hasty)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await hasty.append("run", note("run", "a"))
    assert await names_in_journal(straight, "run") == []


async def test_a_sent_write_is_unknown_if_the_server_stays_away(
    proxy: FaultProxy, hasty: RedisRunStore
) -> None:
    """A write that was sent before the cut raises OutcomeUnknownError."""
    proxy.plan = once(Fault.STALL_LATE, calls("append"))
    call = asyncio.create_task(hasty.append("run", note("run", "a")))
    await wait_until(lambda: bool(proxy.seen), "the call is stalled")
    proxy.shut()
    with pytest.raises(OutcomeUnknownError):
        await call


@pytest.mark.fault("F4")
async def test_a_request_that_arrives_after_its_retry_is_dropped(
    proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """Late copies of a call get its first answer, and the event is there once."""
    await store.create("run", "work")
    proxy.plan = in_turn([Fault.STALL_LATE] * 3, calls("append"))
    assert await store.append("run", note("run", "a")) == 2
    assert await proxy.execute_stalled() == [b"*2\r\n$2\r\nOK\r\n$4\r\nOK 2\r\n"] * 3
    assert await names_in_journal(straight, "run") == ["a"]


@pytest.mark.fault("F4")
async def test_a_request_that_arrives_after_a_later_one_is_dropped(
    proxy: FaultProxy, hasty: RedisRunStore, straight: RedisRunStore
) -> None:
    """A late call of the same store can no longer be applied after a newer write."""
    proxy.plan = always(Fault.STALL_LATE, calls("append"))
    with pytest.raises(OutcomeUnknownError):
        await hasty.append("run", note("run", "early"))
    proxy.plan = always(Fault.NONE, calls())
    assert await hasty.append("run", note("run", "late")) == 2
    replies = await proxy.execute_stalled()
    assert set(replies) == {b"*1\r\n$7\r\nDROPPED\r\n"}
    assert await names_in_journal(straight, "run") == ["late"]
    assert (await straight.audit("run")).problems == ()


async def test_the_write_of_a_cancelled_caller_is_still_retried(
    proxy: FaultProxy, store: RedisRunStore, straight: RedisRunStore
) -> None:
    """Until its answer is known."""
    await store.create("run", "work")
    proxy.plan = always(Fault.DROP_REQUEST, calls("append"))
    call = asyncio.create_task(store.append("run", note("run", "a")))
    await wait_until(lambda: bool(proxy.seen), "the call was sent")
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert call.cancelled()
    proxy.plan = nothing
    assert await store.append("run", note("run", "b")) == 3
    assert await names_in_journal(straight, "run") == ["a", "b"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault.DROP_REPLY, OutcomeUnknownError), (Fault.NONE, EmbeddedServerError)],
)
async def test_a_failed_revival_is_the_error_unless_a_write_was_sent(
    fault: Fault, kind: type[MurmurError], proxy: FaultProxy, make_store: StoreMaker
) -> None:
    """If the embedded server cannot be started again, the caller gets that error."""
    is_gone = False

    async def revive() -> None:
        if is_gone:
            raise EmbeddedServerError("no server to start")

    store = make_store(proxy.url, retry_seconds=SHORT, revive=revive)
    await store.create("run", "work")
    is_gone = True
    if fault is Fault.NONE:
        await shut_and_noticed(proxy, store)
    proxy.plan = always(fault, calls("append"))
    with pytest.raises(kind):
        await store.append("run", note("run", "a"))
    proxy.shut()
    with pytest.raises(EmbeddedServerError, match="no server to start"):
        await store.get_status("run")


async def shut_and_noticed(proxy: FaultProxy, store: RedisRunStore) -> None:
    """Shut the proxy, and return when the store's idle connections know of their end."""
    proxy.shut()
    for connection in store._server.nodes.all[0].commands._idle:
        await wait_until(connection.can_read, "the end of the connection has arrived")


async def test_reads_are_tried_again_until_they_are_answered(
    proxy: FaultProxy, store: RedisRunStore
) -> None:
    """Five different faults in a row are invisible to the caller of a read."""
    await store.create("run", "work")
    faults = [Fault.DROP_REPLY, Fault.DROP_REQUEST, Fault.STALL, Fault.GARBAGE, Fault.CUT_REPLY]
    proxy.plan = in_turn(faults, commands("HMGET"))
    assert (await store.get_status("run")).run_id == "run"
    assert len(proxy.seen) == len(faults)


async def test_a_silent_handshake_is_given_up_in_time(
    proxy: FaultProxy, make_store: StoreMaker
) -> None:
    """A connection whose SELECT gets no answer is replaced."""
    store = make_store(f"{proxy.url}/1", key_prefix="silent")
    proxy.plan = in_turn([Fault.STALL_LATE] * 2, commands("SELECT"))
    await store.create("run", "work")
    assert proxy.seen == ["STALL_LATE"] * 2
    await store.delete("run", force=True)


@pytest.mark.parametrize(
    "not_now",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-BUSY Redis is busy running a script.\r\n",
        b"-NOREPLICAS Not enough good replicas to write.\r\n",
        b"-ERR max number of clients reached\r\n",
    ],
)
async def test_a_server_that_says_not_now_is_asked_again(
    not_now: bytes, proxy: FaultProxy, store: RedisRunStore
) -> None:
    """After LOADING, BUSY and the like the write is repeated."""
    await store.create("run", "work")
    left = iter([not_now] * 3)
    is_append = calls("append")
    proxy.answer = lambda parts: next(left, None) if is_append(parts) else None
    assert await store.append("run", note("run", "a")) == 2


async def test_a_write_refused_for_the_moment_was_not_applied(
    proxy: FaultProxy, hasty: RedisRunStore
) -> None:
    """A server that keeps answering "not now" was reached, and wrote nothing."""
    proxy.answer = lambda parts: b"-NOREPLICAS Not enough good replicas to write.\r\n"
    with pytest.raises(StoreUnavailableError, match=r"is not ready \(NOREPLICAS"):
        await hasty.append("run", note("run", "a"))


async def test_a_refusal_after_a_lost_reply_leaves_the_write_unknown(
    proxy: FaultProxy, hasty: RedisRunStore, straight: RedisRunStore
) -> None:
    """The first try may have been applied, so a later refusal is not the truth."""
    # The first try was applied and its reply lost: the refusals of later tries do not answer it.
    proxy.plan = once(Fault.DROP_REPLY, calls("append"))
    refusals = iter([None] + [b"-MISCONF Errors writing to the AOF file\r\n"] * 100)
    is_append = calls("append")
    proxy.answer = lambda parts: next(refusals) if is_append(parts) else None
    with pytest.raises(OutcomeUnknownError):
        await hasty.append("run", note("run", "a"))
    assert await names_in_journal(straight, "run") == ["a"]


@pytest.mark.fault("F6")
async def test_killed_clients_are_not_noticed_by_their_callers(
    store: RedisRunStore, admin: Redis
) -> None:
    """CLIENT KILL before each of ten writes raises nothing."""
    await store.create("run", "work")
    for number in range(10):
        await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await store.append("run", note("run", str(number))) == number + 2
