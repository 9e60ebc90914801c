"""Cursors: a reader's position as opaque text, which names the run's life that it belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from murmur_streams.core.model.errors import CursorGapError, CursorResetError, InvalidCursorError

_CURSOR = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})-([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a run's journal: after the entry ``<ms>-<seq>`` of the life ``epoch``."""

    epoch: str
    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.ms}-{self.seq}"

    @property
    def entry_id(self) -> str:
        """The id of the entry it stands after."""
        return f"{self.ms}-{self.seq}"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read a cursor's text; InvalidCursorError when it is not one."""
        match = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidCursorError(
                f"{ascii(text)[:60]} is not a cursor; pass the .id of an event, or None"
            )
        return cls(match[1], int(match[2]), int(match[3]))

    def check(self, *, epoch: str, version: int, found: bool, oldest: Self | None) -> None:
        """Raise when the journal no longer continues after this cursor.

        Args:
            epoch: the run's epoch.
            version: seq of the run's last entry.
            found: whether the journal has an entry with exactly this id.
            oldest: the position just before the oldest entry; None in an empty journal.

        Raises:
            CursorResetError: another run or life, beyond the end, or a rewritten entry.
            CursorGapError: the entry was trimmed away.
        """
        if self.epoch != epoch:
            raise CursorResetError(
                "the cursor belongs to another run, or to an earlier life of this id; "
                "read again from the start",
                None,
            )
        if found or (oldest is not None and self.seq == oldest.seq and self.ms <= oldest.ms):
            # The entry just before the oldest one may be trimmed: nothing after it is missing.
            return
        if self.seq > version:
            raise CursorResetError(
                f"the cursor stands after entry {self.seq}, but the run has only {version}; "
                "the server lost writes: read again from the start",
                None,
            )
        if oldest is not None and self.seq <= oldest.seq:
            raise trimmed_away(self.seq, oldest)
        raise CursorResetError(
            f"entry {self.seq} is not the one that the cursor saw (a failover rewound the "
            "journal); read again from the start",
            None,
        )


def trimmed_away(seen: int, resume: Cursor) -> CursorGapError:
    """The error of a reader that has seen entry ``seen`` and can only resume after ``resume``."""
    return CursorGapError(f"entries {seen + 1} to {resume.seq} were trimmed away", str(resume))
