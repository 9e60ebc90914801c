"""The buffer of a followed run: no hole, no lost wake-up, and nothing left of who went away."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.stores.redis.live.sources import TAIL_ENTRIES, Followed

PUTS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([1, 1, 1, 1, 2, 0, -2]), st.booleans()),
    max_size=20,
)
"""The step of the id's time, the step of its seq, and whether the entry itself came."""


def entry(ms: int, seq: int) -> list[object]:
    return [f"{ms}-{seq}".encode(), []]


@given(PUTS, st.integers(0, 20))
def test_the_buffer_has_the_entries_to_the_last_or_none(
    puts: list[tuple[int, int, bool]], after: int
) -> None:
    """After holes, rewinds and entries that were too large, it never skips an entry."""
    run, ms, seq, since_break = Followed("run", "1-5"), 1, 5, 0
    for later, step, has_entry in puts:
        before = (run.rereads, run.verifies)
        ms, seq = ms + later, max(1, seq + step)
        run.put(b"%d-%d" % (ms, seq), entry(ms, seq) if has_entry else None)
        is_whole = (run.rereads, run.verifies) == before
        assert is_whole or not (step == 1 and has_entry)
        since_break = since_break * is_whole + has_entry * (step > 0)
    found = run.since(after)
    if found:
        assert [raw[0].split(b"-")[1] for raw in found] == [
            b"%d" % number for number in range(after + 1, seq + 1)
        ]
    elif found is None:
        assert seq - after > since_break
    else:
        assert seq <= after or not since_break


def test_a_reader_behind_the_buffer_reads_the_journal() -> None:
    """The buffer has the last 256 entries."""
    run = Followed("run", "1-0")
    for seq in range(1, TAIL_ENTRIES + 2):
        run.put(b"2-%d" % seq, entry(2, seq))
    assert run.since(0) is None
    assert len(run.since(1) or ()) == TAIL_ENTRIES


async def test_a_change_after_the_look_ends_the_wait_at_once() -> None:
    """The entry came between the subscriber's look and its wait."""
    run = Followed("run", "1-0")
    seen = run.changes
    run.put(b"2-1", entry(2, 1))
    async with asyncio.timeout(5):
        await run.changed(seen, None)


async def change(run: Followed, seconds: float | None = None) -> None:
    """What a subscriber does that has seen all."""
    await run.changed(run.changes, seconds)


async def test_every_waiting_subscriber_wakes() -> None:
    """One change wakes all, also those that are impatient; some went away before it."""
    run = Followed("run", "1-0")
    waiting = [asyncio.create_task(change(run)) for _ in range(4)]
    patient = asyncio.create_task(change(run, 60))
    await change(run, 0.001)
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    run.wake()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting[1:], patient)
    assert run._waiting == []


async def test_subscribers_that_left_are_forgotten() -> None:
    """A run that is silent for days does not remember each that came and went."""
    run = Followed("run", "1-0")
    for _ in range(1_000):
        left = asyncio.create_task(change(run))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left])
    assert len(run._waiting) < 20


def test_the_only_subscriber_lets_its_entries_go() -> None:
    """With another one beside it the buffer stays, because that one may be behind."""
    run = Followed("run", "1-0")
    for followers, left in ((2, 1), (1, 0)):
        run.followers = followers
        run._tail = None
        run._last_seq = 0
        run.put(b"2-1", entry(2, 1))
        run._last_ms = 1
        run.release()
        assert len(run._tail or ()) == left
