"""What became of a run, as it is answered: also of one that left no result."""

from __future__ import annotations

from typing import Any

from murmur_streams.core.model.results import AgentResult, GroupResult
from murmur_streams.core.model.run import Run
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.answers import AgentOutcome, AnyOutcome, GroupOutcome


async def outcome_of(store: WorkStore, run: Run) -> AnyOutcome:
    """The outcome of a run that has ended; a cancelled or failed one has its error."""
    result = await store.get_result(run.run_id)
    if isinstance(result, GroupResult):
        return GroupOutcome.of(result)
    if result is None:
        error = run.error_without_result
        result = AgentResult[Any](error=error, agent_name=run.target, task_id=run.run_id)
    return AgentOutcome.of(result)
