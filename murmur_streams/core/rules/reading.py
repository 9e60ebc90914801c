"""The rules of reading a run's journal, without I/O; every store's tails apply them.

A tail fetches entries from its store and offers each to the reader's ``Reading``, which decides:

================================================  ==========================================
The tail offers                                   The reader
================================================  ==========================================
an entry whose id is not above the position       drops it, so a tail may fetch twice
the next entry: seq is one higher                 gets it
the first entry of a fresh reader                 gets it: a trimmed journal starts later
a seq that leaves a hole                          CursorGapError, to resume before the entry
a later id with a seq that does not grow          CursorResetError: the server lost writes
an entry, or a run, of another epoch              CursorResetError: the id began a new life
the seal or ``run.deleted``                       gets it, and the stream ends
an entry after the seal                           gets it only if it reads late entries
================================================  ==========================================

An error means that the reader cannot continue without skipping or repeating entries. After an
error the position still is that of the last entry that the reader got.
"""

from __future__ import annotations

from dataclasses import dataclass

from murmur_streams.core.model.entries import Cursor, EntryType, JournalEntry, trimmed_away
from murmur_streams.core.model.errors import CursorResetError
from murmur_streams.core.model.states import TERMINAL_STATES


@dataclass(slots=True)
class Reading:
    """The position of one reader in one life of a run, and what it knows of the run's end."""

    run_id: str
    reads_late: bool = False
    """Whether the reader gets the entries after the seal, too."""
    epoch: str = ""
    """The life that is read; "" until the first ``learn``."""
    ms: int = 0
    seq: int = 0
    version: int = 0
    """The seq of the last entry that the journal is known to have."""
    seal: int | None = None
    """The seq of the entry at which the stream ends, once that is known."""
    has_ended: bool = False
    """Whether the run's state is known to be terminal. Its seal may come later."""

    @property
    def cursor(self) -> Cursor:
        """The position, after the last entry that was read."""
        return Cursor(self.epoch, self.ms, self.seq)

    @property
    def is_caught_up(self) -> bool:
        """Whether every entry that is known of was read."""
        return self.seq >= self.version

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be read, now or later."""
        if self.seal is None or self.seq < self.seal:
            return False
        return not self.reads_late or self.is_caught_up

    def start_after(self, cursor: Cursor) -> None:
        """Begin after a cursor that was checked."""
        self.epoch, self.ms, self.seq = cursor.epoch, cursor.ms, cursor.seq

    def learn(self, *, epoch: str, version: int, seal: int | None, has_ended: bool) -> None:
        """Take in what the store has of the run now.

        Raises:
            CursorResetError: the run id began a new life.
        """
        if self.epoch and epoch != self.epoch:
            raise self._new_life()
        self.epoch, self.version, self.seal, self.has_ended = epoch, version, seal, has_ended

    def take(self, entry: JournalEntry) -> bool:
        """Whether the reader gets this entry; if so, the position moves to it.

        Raises:
            CursorGapError: entries before this one were trimmed away.
            CursorResetError: the entry is from another life, or the journal was rewound.
        """
        seq, fields = entry.seq, entry.fields
        kind = fields.get("type")
        if entry.epoch != self.epoch or (
            kind == EntryType.CREATED and fields.get("epoch") != self.epoch
        ):
            raise self._new_life()
        last = None if self.reads_late else self.seal
        if last is not None and self.seq >= last:
            return False
        if seq != self.seq + 1 and not self._skips_to(entry):
            return False
        if last is not None and seq > last:
            # A fresh reader of a journal of which only late entries are left.
            self.seq = last
            return False
        self.ms, self.seq = entry.ms, seq
        self.version = max(self.version, seq)
        if kind == EntryType.STATE and fields.get("state") in TERMINAL_STATES:
            self.has_ended = True
        if kind == EntryType.DELETED or entry.is_seal:
            self.seal = seq
        return True

    def take_next(self, ms: int, seq: int) -> bool:
        """Whether the reader gets this entry, which is an event of its life without any mark.

        A shorter way to what ``take`` decides, for almost every entry of a long journal. The answer
        False only means that ``take`` must decide, by the whole entry.
        """
        if seq != self.seq + 1 or (self.seal is not None and seq > self.seal):
            return False
        self.ms, self.seq = ms, seq
        if seq > self.version:  # noqa: PLR1730  # max() would cost a third of this method
            self.version = seq
        return True

    def end(self) -> None:
        """End here: the run was deleted, and its last entry cannot be had."""
        self.seal = self.version = self.seq

    def _skips_to(self, entry: JournalEntry) -> bool:
        """Whether an entry that is not the next one may be read all the same."""
        if entry.seq <= self.seq:
            if entry.ms <= self.ms:
                return False
            raise CursorResetError(
                f"entry {entry.seq} of run {self.run_id!r} came after entry {self.seq}: the "
                "server lost writes; read again from the start",
                None,
            )
        if self.seq:
            raise trimmed_away(self.seq, Cursor(self.epoch, entry.ms, entry.seq - 1))
        return True

    def _new_life(self) -> CursorResetError:
        return CursorResetError(f"run {self.run_id!r} began a new life of its id", None)
