"""The outcome of a run: its output or its error, for programs and for people."""

from __future__ import annotations

import json
from typing import Any

from rich.text import Text

from murmur_streams.cli.shell.printing import console, printable, state_text
from murmur_streams.core.exception_text import error_message, error_type_name
from murmur_streams.core.model.result_codec import dump_output
from murmur_streams.core.model.results import AgentResult, GroupResult, RunResult
from murmur_streams.core.model.run import Run


def outcome_json(run: Run, result: RunResult | None) -> dict[str, Any]:
    """The outcome of a run as JSON."""
    return {
        "run_id": run.run_id,
        "state": str(run.state),
        "error": run.error,
        "result": result_json(result),
    }


def result_json(result: RunResult | None) -> dict[str, Any] | None:
    """A result as JSON."""
    if result is None:
        return None
    if isinstance(result, GroupResult):
        return {"outputs": {name: _agent_json(leaf) for name, leaf in result.outputs.items()}}
    return _agent_json(result)


def _agent_json(result: AgentResult[Any]) -> dict[str, Any]:
    error = result.error
    return {
        "agent": result.agent_name,
        "output": dump_output(result.output),
        "error": None if error is None else error_message(error),
        "error_type": None if error is None else error_type_name(error),
        "metadata": result.metadata.model_dump(mode="json"),
    }


def print_outcome(run: Run, result: RunResult | None) -> None:
    """Print the state, then the output or the error."""
    screen = console()
    screen.print(state_text(run.state))
    found = result_json(result)
    if found is not None and found.get("output") is not None:
        print_pretty(found["output"])
    elif found is not None and "outputs" in found:
        print_pretty({name: leaf["output"] for name, leaf in found["outputs"].items()})
    failure = failure_text(run, result)
    if failure:
        screen.print(Text(failure, "red"))


def failure_text(run: Run, result: RunResult | None) -> str | None:
    """The error of a run, with its type when that is known."""
    if isinstance(result, AgentResult) and result.error is not None:
        return printable(f"{error_type_name(result.error)}: {error_message(result.error)}")
    return None if run.error is None else printable(run.error)


def print_pretty(value: object) -> None:
    """JSON over several lines; control characters are escaped by JSON itself."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    for line in text.split("\n"):
        console().print(Text(printable(line)))
