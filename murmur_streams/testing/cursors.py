"""The contract of cursors: whatever does not prove itself is refused, never silence."""

# ruff: noqa: S101  # asserts are how a contract speaks

from __future__ import annotations

from dataclasses import replace

import pytest

from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.errors import CursorResetError, InvalidCursorError
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import TARGET, Workbench, events_of, journal_of, note

MALFORMED: list[object] = [
    "",
    "0",
    "$",
    "-",
    "+",
    "5-1",
    "abcdefgh-5-1",
    "ABCDEF01-5-1",
    "abcdef01-5",
    "abcdef01-5-1-1",
    "abcdef01--5-1",
    "abcdef01-5-1\n",
    " abcdef01-5-1",
    "abcdef01-\u0665-1",
    "abcdef01-" + "9" * 16 + "-1",
    "x" * 100_000,
    "\udc80",
    b"abcdef01-5-1",
    5,
    True,
]


async def cursor_of(store: RunStore, run_id: str) -> Cursor:
    """The cursor after the last entry."""
    return Cursor.parse((await journal_of(store, run_id))[-1].cursor)


class CursorContract(ContractRoom):
    """Cursors that do not fit."""

    @pytest.mark.parametrize("text", MALFORMED, ids=lambda text: ascii(text)[:20])
    async def test_a_text_that_is_no_cursor_is_refused(
        self, bench: Workbench, store: RunStore, text: str
    ) -> None:
        run_id = await bench.run(store)
        with pytest.raises(InvalidCursorError):
            await events_of(store, run_id, text)
        with pytest.raises(InvalidCursorError):
            await journal_of(store, run_id, text)

    async def test_a_cursor_of_another_run_is_reset(
        self, bench: Workbench, store: RunStore
    ) -> None:
        one, other = await bench.run(store), await bench.run(store)
        cursor = await cursor_of(store, one)
        with pytest.raises(CursorResetError) as caught:
            await events_of(store, other, str(cursor))
        assert caught.value.resume_cursor is None

    @pytest.mark.parametrize("ahead", [1, 2, 1000])
    async def test_a_cursor_beyond_the_end_is_reset(
        self, bench: Workbench, store: RunStore, ahead: int
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)
        cursor = await cursor_of(store, run_id)
        with pytest.raises(CursorResetError) as caught:
            await events_of(store, run_id, str(replace(cursor, seq=cursor.seq + ahead)))
        assert caught.value.resume_cursor is None

    @pytest.mark.parametrize("shift_ms", [-1, 1])
    async def test_a_cursor_of_a_replaced_entry_is_reset(
        self, bench: Workbench, store: RunStore, shift_ms: int
    ) -> None:
        """A cursor is a reset when another entry has the seq of the cursor's entry."""
        run_id = await bench.run(store)
        await store.append(run_id, note(run_id), note(run_id))
        cursor = await cursor_of(store, run_id)
        with pytest.raises(CursorResetError) as caught:
            await events_of(store, run_id, str(replace(cursor, ms=cursor.ms + shift_ms)))
        assert caught.value.resume_cursor is None

    async def test_a_cursor_of_an_earlier_life_is_reset(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        cursor = await cursor_of(store, run_id)
        await store.delete(run_id, force=True)
        await store.create(run_id, TARGET)
        await store.append(run_id, note(run_id), note(run_id))
        with pytest.raises(CursorResetError) as caught:
            await events_of(store, run_id, str(cursor))
        assert caught.value.resume_cursor is None

    async def test_a_refused_cursor_is_refused_by_the_journal_too(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        cursor = await cursor_of(store, run_id)
        with pytest.raises(CursorResetError):
            await journal_of(store, run_id, str(replace(cursor, epoch="00000000")))

    async def test_a_cursor_before_the_first_entry_reads_from_the_start(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED, event=note(run_id))
        entries = await journal_of(store, run_id)
        start = Cursor(entries[0].epoch, entries[0].ms, 0)
        assert await journal_of(store, run_id, str(start)) == entries
