"""Printing: JSON for programs, lines for people, with control characters escaped."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from murmur_streams.core.exception_text import error_message, error_type_name
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.results import AgentResult, GroupResult, RunResult, dump_output
from murmur_streams.core.model.run import Run, moment_of
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.wire.answers import RunSnapshot

STATE_STYLES = {
    RunState.PENDING: "dim",
    RunState.RUNNING: "cyan",
    RunState.COMPLETED: "green",
    RunState.FAILED: "bold red",
    RunState.CANCELLED: "yellow",
}
_LONGEST_TEXT = 2_000
_CLOCK = "%H:%M:%S.%f"


def console() -> Console:
    """A console on the current stdout; plain when that is not a terminal."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_message(message: str) -> None:
    """Print a message for people on stderr; stdout is for the command's result."""
    print("\n".join(map(printable, message.split("\n"))), file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """One JSON value on a line of its own, at once."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def printable(text: str) -> str:
    """The text with its control characters escaped, so that it cannot drive the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def print_rows(*rows: tuple[str, str | Text | int | None]) -> None:
    """Print names and values for a person, without the rows whose value is None, 0 or empty."""
    screen = console()
    for name, value in rows:
        if value:
            shown = value if isinstance(value, Text) else printable(str(value))
            screen.print(Text.assemble((f"{name:<9} ", "dim"), shown))


def compact(value: object) -> str:
    """A JSON value on one line, or the text itself, cut where it gets long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = printable(text)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def event_line(event: RunEvent) -> Text:
    """An event for a person."""
    moment = event.timestamp.astimezone(UTC).strftime(_CLOCK)[:-3]
    return Text.assemble(
        (f"{moment}  #{event.seq or 0:<4} ", "dim"),
        (f"{event.type:<15} ", _event_style(event)),
        _event_details(event),
    )


def _event_style(event: RunEvent) -> str:
    if event.type is RunEventType.AGENT_FAILED or event.error:
        return "bold red"
    if event.type in {RunEventType.AGENT_COMPLETED, RunEventType.GROUP_COMPLETED}:
        return "green"
    return "yellow" if event.type is RunEventType.RUN_CANCELLED else "cyan"


def _event_details(event: RunEvent) -> str:
    parts = [printable(part) for part in (event.name, event.error) if part]
    if event.data is not None:
        parts.append(compact(event.data))
    if not parts and event.agent:
        parts.append(printable(event.agent))
    if event.attempt is not None and event.type is RunEventType.AGENT_STARTED:
        parts.append(f"(attempt {event.attempt})")
    return "  ".join(parts)


def state_text(state: RunState) -> Text:
    """A state in its colour."""
    return Text(str(state), style=STATE_STYLES[state])


def moment_text(ms: int | None) -> str:
    """A time in UTC, or a dash."""
    moment = moment_of(ms)
    return "-" if moment is None else moment.strftime(f"%Y-%m-%d {_CLOCK}")[:-3]


def clock_text(ms: int) -> str:
    """The time of day in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime(_CLOCK)[:-3]


def duration_text(start_ms: int | None, end_ms: int | None) -> str:
    """A duration, or an empty text when an end of it is unknown."""
    return "" if start_ms is None or end_ms is None else f"{(end_ms - start_ms) / 1000:.3f} s"


def progress_text(progress: RunProgress | None) -> str:
    """Progress as ``3 of 10, 1 failed, 2 running``."""
    if progress is None:
        return "-"
    text = f"{progress.completed} of {progress.total}"
    text += f", {progress.failed} failed" if progress.failed else ""
    return text + (f", {progress.running} running" if progress.running else "")


def run_json(run: Run) -> dict[str, Any]:
    """A run as JSON, without its fencing token."""
    found = RunSnapshot.of(run).model_dump(exclude={"error_type"})
    times = {name: at.isoformat() for name, at in found.items() if isinstance(at, datetime)}
    return {**found, **times, "error": run.error}


def moment_json(ms: int | None) -> str | None:
    """A time in milliseconds for programs, in ISO 8601."""
    moment = moment_of(ms)
    return None if moment is None else moment.isoformat()


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


def output_of(result: RunResult | None) -> object:
    """The output of a result as JSON; of a group, the output of each agent by its name."""
    if isinstance(result, GroupResult):
        return {name: dump_output(leaf.output) for name, leaf in result.outputs.items()}
    return None if result is None else dump_output(result.output)


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
    output = output_of(result)
    if output is not None:
        print_pretty(output)
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
