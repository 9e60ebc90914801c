"""FileRunStore: what stores in a file or folder of this machine have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Unpack

from murmur_streams.stores.local.engine.access import Access, Begin, Committed
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.engine.open_file import FileAccess
from murmur_streams.stores.local.engine.store import LocalOptions, LocalRunStore


class FileRunStore(LocalRunStore):
    """Runs in a file or folder of this machine.

    Guarantees: as LocalRunStore's; killing the process does not lose a write that returned, and
    with ``sync`` a loss of power does not either. Concurrent writes share a commit.

    Args:
        path: the file or folder.
        sync: whether a write returns only when the disk says that it has it.
        options: as LocalRunStore's.
    """

    look_seconds: float | None = None
    """How often a waiting store looks for what other processes wrote; None: there are none."""

    def __init__(
        self, path: str | os.PathLike[str], *, sync: bool = False, **options: Unpack[LocalOptions]
    ) -> None:
        # Absolute now: the program's current folder may change while the file is open.
        self.path = Path(path).absolute()
        self._sync = sync
        super().__init__(**options)

    @property
    def where(self) -> str:
        return str(self.path)

    @abstractmethod
    def _open_database(self) -> Database:
        """Open the file; blocks. StoreConfigurationError, StoreDamagedError: it cannot be."""

    def _make_access(self, begin: Begin, committed: Committed) -> Access:
        return FileAccess(
            str(self.path), self._open_database, begin, committed, self._looked, self.look_seconds
        )
