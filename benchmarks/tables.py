"""Results as tables: for the terminal, and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from benchmarks.figures import figure_of, shown
from benchmarks.goals import Goal, Verdict, judge
from benchmarks.harness.results import Results, Row, Spread, ratio
from benchmarks.harness.session import OURS

HEAD = (
    "",
    "median",
    "quartiles",
    "lowest to highest",
    "ours is",
    "client µs",
    "server µs",
    "commands",
)
GOAL_HEAD = ("goal", "bound", "measured", "quartiles", "by CPU time", "")
COST_COLUMNS = ("client_us", "server_us", "commands")
Table = list[tuple[str, ...]]


def row_tables(results: Results) -> dict[str, Table]:
    """The rows of each suite; the first line of each is the head."""
    tables: dict[str, Table] = {}
    for row in results.rows.values():
        tables.setdefault(row.suite, [HEAD]).append(_line(results, row))
    return tables


def goal_table(verdicts: Iterable[Verdict]) -> Table:
    """Every goal with what was measured."""
    lines = [
        (
            verdict.goal.title,
            _bound(verdict.goal),
            *_measured(verdict.found),
            shown(verdict.cpu) if verdict.cpu else "",
            verdict.text,
        )
        for verdict in verdicts
    ]
    return [GOAL_HEAD, *lines]


def as_text(table: Table) -> str:
    """Columns that are as wide as their longest text; all but the first end on the right."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]

    def line_of(line: tuple[str, ...]) -> str:
        rest = (f"{text:>{width}}" for text, width in zip(line[1:], widths[1:], strict=True))
        return "  ".join([f"{line[0]:{widths[0]}}", *rest]).rstrip()

    return "\n".join(line_of(line) for line in table)


def as_markdown(table: Table) -> str:
    """A table of Markdown."""
    lines = [table[0], tuple("---" for _ in table[0]), *table[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(results: Results, *, is_markdown: bool = False) -> str:
    """Everything that was measured, with versions, goals and notes."""
    render = as_markdown if is_markdown else as_text
    parts = [setting_text(results)]
    for suite, table in row_tables(results).items():
        parts += [f"### {suite}" if is_markdown else f"--- {suite}", render(table)]
    verdicts = [verdict for verdict in judge(results) if verdict.found is not None]
    if verdicts:
        parts += ["### Goals" if is_markdown else "--- goals", render(goal_table(verdicts))]
    parts += [f"Not measured: {note}" for note in results.notes]
    return "\n\n".join(parts) + "\n"


def setting_text(results: Results) -> str:
    """The versions and the setting, in a few lines."""
    versions = ", ".join(f"{name} {text}" for name, text in results.versions.items())
    setting = ", ".join(f"{name} {value}" for name, value in results.setting.items())
    return f"{versions}\n{setting}"


def _line(results: Results, row: Row) -> tuple[str, ...]:
    figure, spread = figure_of(row.figure), Spread.of(row.values)
    at = f" ({row.at:,.0f})" if row.at is not None else ""
    costs = (_cost(getattr(row, name)) for name in COST_COLUMNS)
    return (
        f"{row.subject}: {figure.title}{at}",
        f"{shown(spread.median)} {figure.unit}".strip(),
        _range(spread.lower_quartile, spread.upper_quartile),
        _range(spread.lowest, spread.highest),
        _times(results, row),
        *costs,
    )


def _times(results: Results, row: Row) -> str:
    ours = results.find(row.suite, row.figure, OURS, row.at)
    if ours is None or ours is row or not statistics.median(row.values):
        return ""
    return f"{shown(ratio(ours.values, row.values).median)} times"


def _cost(values: Sequence[float]) -> str:
    return shown(statistics.median(values)) if values else ""


def _range(low: float, high: float) -> str:
    return f"{shown(low)} to {shown(high)}"


def _bound(goal: Goal) -> str:
    return f"{'at least' if goal.is_least else 'at most'} {goal.bound:g}"


def _measured(found: Spread | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    return shown(found.median), _range(found.lower_quartile, found.upper_quartile)
