"""What the store in memory has of a run."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field, replace
from typing import Any

from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.result_codec import decode_result
from murmur_streams.core.model.results import AgentResult, GroupResult, RunResult
from murmur_streams.core.model.run import Run


@dataclass(slots=True)
class MemoryRecord:
    """One run: its fold, its journal, its payloads, and who waits for more."""

    run: Run
    entries: list[JournalEntry] = field(default_factory=list[JournalEntry])
    input_json: str | None = None
    result_json: str | None = None
    checkpoint_json: str | None = None
    """Of a restored run only: here nobody executes runs."""
    result: RunResult | None = None
    expire_at_ms: int | None = None
    live_until_ms: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def after(self, seq: int) -> JournalEntry | None:
        """The first kept entry whose seq is above ``seq``."""
        place = max(0, seq - self.entries[0].seq + 1)
        return self.entries[place] if place < len(self.entries) else None

    def checked_seq(self, cursor: Cursor | None) -> int:
        """Where to go on after a cursor; a CursorError when that is impossible."""
        if cursor is None:
            return 0
        at = self.after(cursor.seq - 1)
        first = self.entries[0]
        cursor.check(
            epoch=self.run.epoch,
            version=self.run.version,
            found=at is not None and (at.seq, at.ms) == (cursor.seq, cursor.ms),
            oldest=Cursor(first.epoch, first.ms, first.seq - 1),
        )
        return cursor.seq

    @property
    def moment(self) -> int | None:
        """When somebody must look at it: to remove it, or because nobody wrote; None: never."""
        return self.expire_at_ms if self.run.state.is_terminal else self.live_until_ms

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def archive(self) -> RunArchive:
        """All that makes the run."""
        run, payloads = self.run, (self.input_json, self.result_json, self.checkpoint_json)
        entries = tuple(copied_entry(entry) for entry in self.entries)
        return RunArchive(run.run_id, run.epoch, entries, *payloads)

    @classmethod
    def of(cls, archive: RunArchive, run: Run) -> MemoryRecord:
        """The record of a restored run; ``run`` is the fold of its journal."""
        text = archive.result_json
        return cls(
            run,
            [copied_entry(entry) for entry in archive.entries],
            archive.input_json,
            text,
            archive.checkpoint_json,
            None if text is None else decode_result(text),
        )


def copied_entry(entry: JournalEntry) -> JournalEntry:
    """An entry for one reader: its fields are a dict, which the reader could change."""
    return replace(entry, fields=dict(entry.fields))


def copied(result: RunResult) -> RunResult:
    """A result that shares nothing that its owner could change."""
    # Its errors are shared: not every exception can be copied.
    if isinstance(result, GroupResult):
        outputs = {name: _copied_outcome(outcome) for name, outcome in result.outputs.items()}
        return result.model_copy(update={"outputs": outputs})
    return _copied_outcome(result)


def _copied_outcome(outcome: AgentResult[Any]) -> AgentResult[Any]:
    return outcome.model_copy(update={"output": copy.deepcopy(outcome.output)})
