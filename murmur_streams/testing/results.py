"""The contract of results: a stored result comes back, and the first one after the end stays."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, JsonValue

from murmur_streams.core.model.errors import RemoteAgentError
from murmur_streams.core.model.results import AgentResult, GroupResult, ResultMetadata
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.fixtures import ContractFixtures
from murmur_streams.testing.workbench import LIVE, TARGET, types_of

METADATA = ResultMetadata(
    duration_ms=5, tokens_used=7, cost_usd=0.25, backend="thread", trace_id="t"
)


class Finding(BaseModel):
    """A typed output."""

    title: str
    score: float
    parts: list[dict[str, int]]


class OddError(Exception):
    """An exception that cannot be copied: its arguments are not its text."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


FINDING = Finding(title="naïve ☕", score=0.5, parts=[{"a": 1}])


def agent_result(output: Any = None, error: BaseException | None = None) -> AgentResult[Any]:
    """A result of TARGET."""
    return AgentResult[Any](
        output=output, error=error, metadata=METADATA, agent_name=TARGET, task_id="task-1"
    )


async def stored_result(store: RunStore, run_id: str) -> AgentResult[Any]:
    """The run's result, which is that of one agent."""
    result = await store.get_result(run_id)
    assert isinstance(result, AgentResult)
    return result


async def stored_output(store: RunStore, run_id: str) -> Any:
    """The output in the run's result."""
    return (await stored_result(store, run_id)).output


class ResultContract(ContractFixtures):
    """The results of runs."""

    @pytest.mark.parametrize("state", LIVE)
    async def test_the_last_result_of_a_live_run_counts(
        self, store: RunStore, run_id: str, state: RunState
    ) -> None:
        """A live run has the result that was stored last."""
        await store.set_state(run_id, state)
        for output in ("one", "two"):
            await store.set_result(run_id, agent_result(output))
            assert await stored_output(store, run_id) == output

    @pytest.mark.parametrize("sealed", [False, True])
    @pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED])
    async def test_an_ended_run_takes_one_result(
        self, store: RunStore, run_id: str, state: RunState, sealed: bool
    ) -> None:
        """An ended run without a result takes the first one only, after its seal as well."""
        await (store.finish if sealed else store.set_state)(run_id, state)
        for output in ("first", "second"):
            await store.set_result(run_id, agent_result(output))
            assert await stored_output(store, run_id) == "first"
        assert (await types_of(store, run_id))[-1] == "run.result"

    async def test_a_result_after_the_end_stays(self, store: RunStore, run_id: str) -> None:
        """An ended run with a result takes no other."""
        await store.finish(run_id, RunState.COMPLETED, result=agent_result("first"))
        before = await store.snapshot(run_id)
        await store.set_result(run_id, agent_result("other"))
        assert await stored_output(store, run_id) == "first"
        assert await store.snapshot(run_id) == before

    async def test_a_cancelled_run_takes_no_result(self, store: RunStore, run_id: str) -> None:
        await store.set_state(run_id, RunState.CANCELLED)
        await store.set_result(run_id, agent_result("too late"))
        assert await store.get_result(run_id) is None

    @pytest.mark.parametrize(
        "output",
        [False, 0, "", [], {}, 1.5, 2**900, "ключ\u0000", [1, {"a": [None]}], {"": 1}],
        ids=lambda output: ascii(output)[:20],
    )
    async def test_a_json_value_comes_back(
        self, store: RunStore, other: RunStore, run_id: str, output: JsonValue
    ) -> None:
        await store.finish(run_id, RunState.COMPLETED, result=agent_result(output))
        assert await stored_output(other, run_id) == output

    async def test_a_model_comes_back_with_its_fields(
        self, store: RunStore, other: RunStore, run_id: str
    ) -> None:
        await store.finish(run_id, RunState.COMPLETED, result=agent_result(FINDING))
        output = await stored_output(other, run_id)
        assert (output.title, output.score) == (FINDING.title, FINDING.score)
        assert output.model_dump() == FINDING.model_dump()

    async def test_the_fields_of_a_result_come_back(self, store: RunStore, run_id: str) -> None:
        await store.set_result(run_id, agent_result(1))
        result = await stored_result(store, run_id)
        assert (result.metadata, result.agent_name) == (METADATA, TARGET)
        assert (result.task_id, result.is_ok()) == ("task-1", True)

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("no such page"),
            KeyError("k"),
            RemoteAgentError("ValueError", "from afar"),
            OddError(7, reason="no two alike"),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_an_error_comes_back_with_its_text(
        self, store: RunStore, run_id: str, error: Exception
    ) -> None:
        await store.finish(run_id, RunState.FAILED, result=agent_result(error=error))
        result = await stored_result(store, run_id)
        assert (result.is_ok(), result.output) == (False, None)
        assert str(error).removeprefix("ValueError: ") in str(result.error)

    async def test_a_group_result_comes_back(self, store: RunStore, run_id: str) -> None:
        """The results of a group come back, each with its output or error."""
        outputs = {"a": agent_result(FINDING), "b": agent_result(error=ValueError("no"))}
        group = GroupResult(outputs=outputs, metadata=METADATA)
        await store.finish(run_id, RunState.COMPLETED, result=group)
        result = await store.get_result(run_id)
        assert isinstance(result, GroupResult)
        assert (list(result.outputs), result.metadata) == (["a", "b"], METADATA)
        output: Any = result.outputs["a"].output
        found = output.model_dump() if isinstance(output, BaseModel) else output
        assert found == FINDING.model_dump()
        assert "no" in str(result.outputs["b"].error)

    async def test_a_result_belongs_to_the_store(self, store: RunStore, run_id: str) -> None:
        """Changes that the writer or a reader makes to its output are not stored."""
        given = {"list": [1]}
        await store.finish(run_id, RunState.COMPLETED, result=agent_result(given))
        given["list"].append(2)
        (await stored_output(store, run_id))["list"].append(3)
        assert await stored_output(store, run_id) == {"list": [1]}

    async def test_the_size_of_a_result_is_recorded(self, store: RunStore, run_id: str) -> None:
        await store.finish(run_id, RunState.COMPLETED, result=agent_result("x" * 100_000))
        assert ((await store.snapshot(run_id)).result_size or 0) > 100_000
