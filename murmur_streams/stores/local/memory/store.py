"""InMemoryRunStore: runs in this process's memory, for tests and programs of one process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from murmur_streams.core.model.commands import Command, Finish, SetResult
from murmur_streams.core.model.errors import StoreClosedError
from murmur_streams.core.model.results import AgentResult, GroupResult, RunResult
from murmur_streams.stores.local.engine.access import Access, Begin, Committed
from murmur_streams.stores.local.engine.database import Reader, Stored
from murmur_streams.stores.local.engine.store import LocalRunStore
from murmur_streams.stores.local.engine.transaction import Transaction
from murmur_streams.stores.local.memory.database import MemoryDatabase

T = TypeVar("T")


@dataclass(eq=False)
class MemoryAccess(Access):
    """Reads and writes at once, in the caller's thread: nothing here blocks."""

    database: MemoryDatabase
    begin: Begin
    committed: Committed
    is_closed: bool = False

    async def open(self) -> None:
        self._check_open()

    async def stored(self, run_id: str) -> Stored | None:
        self._check_open()
        return self.database.stored(run_id)

    async def read(self, call: Callable[[Reader], T]) -> T:
        self._check_open()
        return call(self.database)

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        # No await between the decision and the rows: tasks of one loop cannot interleave here.
        self._check_open()
        group = self.begin(self.database, {}, set())
        value = operation(group)
        group.finish()
        if not group.changes.is_empty:
            self.database.commit(group.changes)
            self.committed(group.written)
        return value

    async def close(self) -> None:
        self.is_closed = True

    def _check_open(self) -> None:
        if self.is_closed:
            raise StoreClosedError("the store is closed; open a new one")


class InMemoryRunStore(LocalRunStore):
    """Runs in this process's memory: every store's behaviour, for one store alone.

    Two of them share nothing. A call never waits, except for what it asks to wait for; the store
    belongs to no event loop, but to one thread at a time.

    Args: as LocalRunStore's.
    """

    def _make_access(self, begin: Begin, committed: Committed) -> MemoryAccess:
        self._database = MemoryDatabase(self._feed_max_entries)
        return MemoryAccess(self._database, begin, committed)

    @property
    def where(self) -> str:
        return "memory:"

    async def get_result(self, run_id: str) -> RunResult | None:
        """Read the result, as deep a copy as was stored; None until there is one."""
        await self._stored(run_id)
        value = self._database.result(run_id)
        return await super().get_result(run_id) if value is None else _copied(value)

    def _keep_result(self, run_id: str, command: Command, result: RunResult) -> None:
        payload = command.result if isinstance(command, (SetResult, Finish)) else None
        if isinstance(command, Finish) and command.claim is not None:
            # A worker's outputs are in the JSON form of their agent's declared type already.
            return
        if payload is not None:
            self._database.keep_result(run_id, payload.text, _copied(result))


def _copied(result: RunResult) -> RunResult:
    """A result that shares nothing that its owner could change."""
    # Its errors are shared: not every exception can be copied.
    if isinstance(result, GroupResult):
        outputs = {name: _copied_outcome(outcome) for name, outcome in result.outputs.items()}
        return result.model_copy(update={"outputs": outputs})
    return _copied_outcome(result)


def _copied_outcome(outcome: AgentResult[Any]) -> AgentResult[Any]:
    return outcome.model_copy(update={"output": copy.deepcopy(outcome.output)})
