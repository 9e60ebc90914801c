"""What a soak measured and found: for a terminal, in Markdown, as JSON, and as a plot."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from benchmarks.plots import OTHERS, STYLE
from tests.chaos.report import Report
from tests.soak.keys import Counts, rule_of
from tests.soak.memory import RESIDENT, USED, Growth, Series, growth

MOST_SHOWN = 20


@dataclass(slots=True)
class SoakReport:
    """What a soak measured and found."""

    chaos: Report
    """The faults, the runs, and the violations that the checker found."""
    minutes: float
    """How long it was to last."""
    series: list[Series] = field(default_factory=list[Series])
    starts: dict[str, int] = field(default_factory=dict[str, int])
    """How often each worker and pod was started."""
    unjudged: list[str] = field(default_factory=list[str])
    """Runs that could not be read before they expired."""
    last_error: str = ""
    """Why runs could not be read, the last time."""
    key_problems: list[str] = field(default_factory=list[str])
    """Of keys that break their rule in the key table."""
    keys: Counts = field(default_factory=Counts)
    """By row of the key table, when the load ended."""
    keys_at_the_end: Counts | None = None
    """When all runs had expired; None: that was not waited for."""
    left: list[str] = field(default_factory=list[str])
    """Keys that should not be there any more then."""
    was_interrupted: bool = False
    is_complete: bool = False
    """Whether every run was judged, and every key."""

    @property
    def growths(self) -> list[Growth]:
        """Of the series that are long enough to judge."""
        found = [growth(each) for each in self.series]
        return [each for each in found if each is not None]

    def problems(self) -> list[str]:
        """Why the soak fails; an empty list when it is clean."""
        violations = [f"{each.run_id}: {each.rule}: {each.text}" for each in self.chaos.violations]
        grown = [f"memory grows: {each}" for each in self.growths if not each.is_flat]
        unjudged = [f"{run_id}: not judged in time ({self.last_error})" for run_id in self.unjudged]
        left = [f"{key}: is there after its run has expired" for key in self.left]
        ended = [] if self.is_complete else ["it ended before everything was judged"]
        return [*violations, *grown, *unjudged, *self.key_problems, *left, *ended]

    def markdown(self) -> list[str]:
        """For a person."""
        chaos, problems = self.chaos, self.problems()
        result = "clean" if not problems else f"{len(problems)} problems"
        runs = chaos.runs + sum(chaos.ends.values())
        kinds = len(chaos.faults.happened)
        interrupted = ", interrupted" if self.was_interrupted else ""
        return [
            f"# Soak of {chaos.seconds / 60:.1f} minutes{interrupted}: {result}",
            "",
            f"- {chaos.topology}, seed {chaos.seed}",
            *(f"- PROBLEM {each}" for each in problems[:MOST_SHOWN]),
            *([f"- and {len(problems) - MOST_SHOWN} more"] * (len(problems) > MOST_SHOWN)),
            f"- {chaos.faults.total:,} faults of {kinds} kinds",
            f"- {runs:,} runs with {chaos.entries:,} entries were judged and audited",
            f"- {chaos.runs:,} of them of programs; of workers: {_counted(chaos.ends)}",
            f"- {chaos.attempts:,} executions by workers",
            f"- {chaos.readers:,} readers, {chaos.feed_entries:,} entries of feeds",
            f"- calls of programs: {_counted(chaos.outcomes)}",
            f"- starts of processes: {_counted(self.starts)}",
            "",
            *self._memory(),
            "",
            *self._keys(),
            "",
            "| fault | how often |",
            "| --- | --- |",
            *(f"| {name} | {count} |" for name, count in sorted(chaos.faults.happened.items())),
            *(
                f"| not possible: {name} ({chaos.faults.reasons[name][:80]}) | {count} |"
                for name, count in sorted(chaos.faults.failed.items())
            ),
        ]

    def _memory(self) -> Iterator[str]:
        yield "| | minutes | first | middle third | last third | growth, and at most | |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for each in self.growths:
            series, unit = each.series, each.series.measure.unit
            yield (
                f"| {series.name} | {series.seconds / 60:.1f} | {series.points[0][1]:,.1f} {unit} "
                f"| {each.middle:,.1f} | {each.last:,.1f} "
                f"| {each.last - each.middle:+,.1f}, {each.allowed:+,.1f} "
                f"| {'flat' if each.is_flat else 'GROWS'} |"
            )
        judged = {each.series.name for each in self.growths}
        longest = sorted(self.series, key=lambda each: each.seconds)
        for name, each in {each.name: each for each in longest}.items():
            if name not in judged:
                yield (
                    f"| {name} | {each.seconds / 60:.1f} | {each.points[0][1]:,.1f} "
                    f"{each.measure.unit} | | then {each.points[-1][1]:,.1f} | | too short |"
                )

    def _keys(self) -> Iterator[str]:
        at_end = self.keys_at_the_end
        yield "| keys | rule | at the end of the load | when all runs had expired |"
        yield "| --- | --- | --- | --- |"
        for key in sorted(self.keys | (at_end or {})):
            left = "not waited for" if at_end is None else f"{at_end.get(key, 0):,}"
            yield f"| `{key}` | {rule_of(key)} | {self.keys.get(key, 0):,} | {left} |"

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "problems": self.problems(),
            "minutes": self.minutes,
            "was_interrupted": self.was_interrupted,
            "starts": self.starts,
            "keys": self.keys,
            "keys_at_the_end": self.keys_at_the_end,
            "growth": [
                {
                    "name": each.series.name,
                    "unit": each.series.measure.unit,
                    "middle": each.middle,
                    "last": each.last,
                    "allowed": each.allowed,
                }
                for each in self.growths
            ],
            "series": [
                {
                    "name": each.name,
                    "unit": each.measure.unit,
                    "points": [[round(at, 1), round(value, 2)] for at, value in each.points],
                }
                for each in self.series
            ],
            **self.chaos.as_json(),
        }


def write(report: SoakReport, path: Path) -> None:
    """Write the report as JSON, and beside it in Markdown and with a plot of the memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.as_json(), indent=1)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    plot = path.with_suffix(".svg")
    plot.write_text(svg(report), encoding="utf-8")
    lines = [*report.markdown(), "", f"![Memory]({plot.name})"]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def svg(report: SoakReport) -> str:
    """The memory of each process, and of the server."""
    with cast("Any", import_module("matplotlib")).rc_context(STYLE):
        figure = import_module("matplotlib.figure").Figure(figsize=(9, 3.4), layout="constrained")
        resident, used = figure.subplots(1, 2)
        names = [*dict.fromkeys(e.name for e in report.series if e.measure is RESIDENT)]
        for series in report.series:
            minutes = [at / 60 for at, _ in series.points]
            values = [value for _, value in series.points]
            if series.measure is RESIDENT:
                at = names.index(series.name)
                resident.plot(minutes, values, color=OTHERS[at % len(OTHERS)], linewidth=1)
            elif series.measure is USED:
                used.plot(minutes, values, color=OTHERS[0], linewidth=1)
        for axes, title in ((resident, "Processes"), (used, "Server")):
            axes.set(title=title, xlabel="minutes", ylabel="MiB", ylim=(0, None))
            axes.grid(visible=True)
        for at, name in enumerate(names):
            resident.plot([], [], color=OTHERS[at % len(OTHERS)], label=name)
        resident.legend(loc="lower right")
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"
