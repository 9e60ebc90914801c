"""How a store reaches its database: by threads for a file, at once for rows in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from murmur_streams.stores.local.engine.database import Database, Reader, Stored
from murmur_streams.stores.local.engine.run_writes import KnownRows
from murmur_streams.stores.local.engine.transaction import Transaction, Written

T = TypeVar("T")

Begin = Callable[[Database, KnownRows], Transaction]
"""Makes a transaction of a database and what its writer knows of it."""
Committed = Callable[[list[Written]], None]
"""Called on the event loop with what a group wrote, before its callers get their answers."""


class Access(Protocol):
    """Reads and writes one database.

    Raises:
        StoreClosedError: from every method but ``watch`` and ``close``, once it is closed.
    """

    async def open(self) -> None:
        """Open the database, if it is not open yet."""
        ...

    async def stored(self, run_id: str) -> Stored | None:
        """Read a run as it was committed last, expired or not; None when there is none."""
        ...

    async def read(self, call: Callable[[Reader], T]) -> T:
        """Call something with a reader; what it returned."""
        ...

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        """Call something with a transaction and commit it; what it returned, or raised.

        It may be called again when its group could not be committed, and other operations may
        share the group: it must do nothing but read and write its transaction.
        """
        ...

    async def write_alone(self, operation: Callable[[Transaction], T]) -> T:
        """The same in a group of its own: for operations that read rows of several runs."""
        return await self.write(operation)

    def watch(self, is_wanted: bool) -> None:
        """Say whether anything in this process waits for what other processes write."""

    async def close(self) -> None:
        """Finish the writes under way and close the database; a second call does nothing."""
        ...
