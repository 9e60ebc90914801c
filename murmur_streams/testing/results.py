"""The contract of results: what is stored comes back, once and for all."""

# ruff: noqa: S101, PLR2004  # asserts are how a contract speaks, and expected numbers their point

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, JsonValue

from murmur_streams.core.model.errors import RemoteAgentError
from murmur_streams.core.model.results import AgentResult, GroupResult, ResultMetadata, RunResult
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.room import ContractRoom
from murmur_streams.testing.workbench import TARGET, Workbench, types_of

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


def agent_of(result: RunResult | None) -> AgentResult[Any]:
    """The result as that of one agent."""
    assert isinstance(result, AgentResult)
    return result


def output_of(result: RunResult | None) -> Any:
    """The output of one agent's result."""
    return agent_of(result).output


def dumped(output: Any) -> object:
    """An output's JSON value, whatever class it came back as."""
    return output.model_dump() if isinstance(output, BaseModel) else output


class ResultContract(ContractRoom):
    """What a run leaves behind."""

    @pytest.mark.parametrize("state", [RunState.PENDING, RunState.RUNNING], ids=str)
    async def test_a_result_is_stored_while_the_run_lives(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, state)
        await store.set_result(run_id, agent_result("early"))
        assert output_of(await store.get_result(run_id)) == "early"

    async def test_the_last_result_before_the_end_counts(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        for output in ("one", "two"):
            await store.set_result(run_id, agent_result(output))
        assert output_of(await store.get_result(run_id)) == "two"

    @pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED], ids=str)
    async def test_an_ended_run_without_a_result_takes_one(
        self, bench: Workbench, store: RunStore, state: RunState
    ) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, state)
        await store.set_result(run_id, agent_result("first"))
        await store.set_result(run_id, agent_result("second"))
        assert output_of(await store.get_result(run_id)) == "first"

    async def test_a_sealed_run_without_a_result_takes_one_as_a_late_entry(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED)
        await store.set_result(run_id, agent_result("late"))
        assert output_of(await store.get_result(run_id)) == "late"
        assert (await types_of(store, run_id))[-1] == "run.result"

    async def test_an_ended_run_with_a_result_keeps_it(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED, result=agent_result("kept"))
        before = await store.snapshot(run_id)
        await store.set_result(run_id, agent_result("other"))
        assert output_of(await store.get_result(run_id)) == "kept"
        assert await store.snapshot(run_id) == before

    async def test_a_cancelled_run_takes_no_result(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        await store.set_state(run_id, RunState.CANCELLED)
        await store.set_result(run_id, agent_result("too late"))
        assert await store.get_result(run_id) is None

    @pytest.mark.parametrize(
        "output",
        [False, 0, "", [], {}, 1.5, 2**900, "ключ\u0000", [1, {"a": [None]}], {"": 1}],
        ids=lambda output: ascii(output)[:20],
    )
    async def test_a_json_value_comes_back(
        self, bench: Workbench, store: RunStore, output: JsonValue
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED, result=agent_result(output))
        assert output_of(await bench.other(store).get_result(run_id)) == output

    async def test_a_model_comes_back_with_its_fields(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED, result=agent_result(FINDING))
        output = output_of(await bench.other(store).get_result(run_id))
        assert (output.title, output.score, output.model_dump()) == (
            "naïve ☕",
            0.5,
            FINDING.model_dump(),
        )

    async def test_what_surrounds_the_output_comes_back(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.set_result(run_id, agent_result(1))
        result = agent_of(await store.get_result(run_id))
        assert (result.metadata, result.agent_name, result.task_id, result.is_ok()) == (
            METADATA,
            TARGET,
            "task-1",
            True,
        )

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
        self, bench: Workbench, store: RunStore, error: Exception
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.FAILED, result=agent_result(error=error))
        result = agent_of(await store.get_result(run_id))
        assert (result.is_ok(), result.output) == (False, None)
        assert str(error).removeprefix("ValueError: ") in str(result.error)

    async def test_a_group_result_comes_back(self, bench: Workbench, store: RunStore) -> None:
        run_id = await bench.run(store)
        group = GroupResult(
            outputs={"a": agent_result(FINDING), "b": agent_result(error=ValueError("no"))},
            metadata=METADATA,
        )
        await store.finish(run_id, RunState.COMPLETED, result=group)
        result = await store.get_result(run_id)
        assert isinstance(result, GroupResult)
        assert (list(result.outputs), result.metadata) == (["a", "b"], METADATA)
        assert dumped(result.outputs["a"].output) == FINDING.model_dump()
        assert "no" in str(result.outputs["b"].error)

    async def test_what_a_reader_does_to_its_result_is_not_stored(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id, given = await bench.run(store), {"list": [1]}
        await store.finish(run_id, RunState.COMPLETED, result=agent_result(given))
        given["list"].append(2)
        output_of(await store.get_result(run_id))["list"].append(3)
        assert output_of(await store.get_result(run_id)) == {"list": [1]}

    async def test_the_journal_records_the_size_of_a_result(
        self, bench: Workbench, store: RunStore
    ) -> None:
        run_id = await bench.run(store)
        await store.finish(run_id, RunState.COMPLETED, result=agent_result("x" * 100_000))
        assert ((await store.snapshot(run_id)).result_size or 0) > 100_000
