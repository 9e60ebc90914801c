"""What became of a run, as it is answered: also of one that left no result."""

from __future__ import annotations

from typing import Any

from murmur_streams.core.errors import MurmurError, RemoteAgentError, RunCancelledError
from murmur_streams.core.results import AgentResult, GroupResult
from murmur_streams.core.run import Run
from murmur_streams.core.states import RunState
from murmur_streams.server.bodies import AgentOutcome, GroupOutcome, Outcome
from murmur_streams.stores.redis.store import RedisRunStore


async def outcome_of(store: RedisRunStore, run: Run) -> Outcome:
    """The outcome of a run that has ended; a cancelled or failed one has its error."""
    result = await store.get_result(run.run_id)
    if isinstance(result, GroupResult):
        return GroupOutcome.of(result)
    if result is None:
        result = AgentResult[Any](error=_error_of(run), agent_name=run.target, task_id=run.run_id)
    return AgentOutcome.of(result)


def _error_of(run: Run) -> MurmurError | None:
    if run.state is RunState.CANCELLED:
        return RunCancelledError(run.run_id, run.cancel_reason or run.error)
    if run.state is RunState.FAILED:
        return RemoteAgentError("RunFailed", run.error or "the run failed and left no error")
    return None
